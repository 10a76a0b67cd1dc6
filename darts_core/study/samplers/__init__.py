"""Samplers by name. A sampler is made anew for each trial, seeded by (seed, number).

So workers never repeat each other, and a study continued after a kill draws what an unkilled one
would have drawn.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from typing import Any

import numpy as np

from darts_core.errors import TuneError, unknown_name
from darts_core.reading import is_number
from darts_core.study.accounts import imported
from darts_core.study.records import OUTSIDE
from darts_core.study.space import SearchDimension
from darts_core.study.trial import unboxed

__all__ = [
    "SAMPLERS",
    "Drawing",
    "build",
    "check_named",
    "check_sampler",
    "grid_size",
    "make_sampler",
    "named",
    "say_few_whole",
    "say_of_constraints",
]

log = logging.getLogger("darts_core")


@dataclass(frozen=True)
class Drawing:
    """What a sampler is made for: the study's seed, the trial's number, space, budget, constraints.

    `again` counts the draws for the same trial whose points were known already.
    """

    seed: int
    number: int
    space: Mapping[str, SearchDimension]
    trials: int | None
    constraints: Callable[[Any], list[float]] | None = None
    again: int = 0

    @property
    def trial_seed(self) -> int:
        """A seed for this draw alone."""
        key = [self.seed, self.number] + ([self.again] if self.again else [])
        return int(np.random.SeedSequence(key).generate_state(1)[0])

    @property
    def near(self) -> dict[str, tuple[tuple[int, ...], ...]]:
        """Which choices are alike, where that is known."""
        return {name: d.near for name, d in self.space.items() if d.near}


def _check_start(options: Mapping[str, Any]) -> None:
    """Refuse, before anything is drawn, a number of first draws that is none."""
    first = options.get("n_startup_trials", 0)
    # 10.0 is one, too: it is only compared with
    if not is_number(first) or first < 0 or first % 1:
        raise ValueError("n_startup_trials must be a whole number from 0 on")


def _tpe(draw: Drawing, gamma: float | None = None, **options: Any) -> Any:
    from optuna.samplers import TPESampler

    _check_start(options)
    if gamma is not None:
        if not is_number(gamma) or not 0 < gamma <= 1:
            raise ValueError("gamma must lie above 0 and up to 1")
        # the share of trials that count as good
        options["gamma"] = lambda count: math.ceil(gamma * count)

    # a quarter of a small study is exploration; ten are enough for a large one
    startup = min(10, max(4, (draw.trials or 40) // 4))
    options = {"n_startup_trials": startup, **options}
    return TPESampler(seed=draw.trial_seed, constraints_func=draw.constraints, **options)


def _gp(draw: Drawing, **options: Any) -> Any:
    from optuna.samplers import GPSampler

    _check_start(options)
    options = {"n_startup_trials": min(10, max(4, (draw.trials or 40) // 4)), **options}
    return GPSampler(
        seed=draw.trial_seed,
        constraints_func=draw.constraints,
        warn_independent_sampling=False,
        **options,
    )


def _acquisition(draw: Drawing, **options: Any) -> Any:
    from darts_core.study.samplers.acquisition import AcquisitionSampler

    return AcquisitionSampler(**{"kind": "ucb", "seed": draw.trial_seed, **options})


def _anneal(draw: Drawing, **options: Any) -> Any:
    from darts_core.study.samplers.anneal import AnnealSampler

    return AnnealSampler(seed=draw.trial_seed, near=draw.near, **options)


def _evolution(draw: Drawing, **options: Any) -> Any:
    from darts_core.study.samplers.evolution import EvolutionSampler

    return EvolutionSampler(seed=draw.trial_seed, near=draw.near, **options)


def _cmaes(draw: Drawing, **options: Any) -> Any:
    from optuna.samplers import CmaEsSampler

    _check_start(options)
    sigma = options.get("sigma0")
    if sigma is not None and not (is_number(sigma) and sigma > 0):
        raise ValueError("sigma0 must be above 0")
    return CmaEsSampler(seed=draw.trial_seed, warn_independent_sampling=False, **options)


def _qmc(draw: Drawing, **options: Any) -> Any:
    from optuna.samplers import QMCSampler

    # one sequence for the whole study: its points are told apart by their index, not by a seed
    options = {"scramble": True, "warn_asynchronous_seeding": False, **options}
    return QMCSampler(seed=draw.seed, warn_independent_sampling=False, **options)


def _random(draw: Drawing, **options: Any) -> Any:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=draw.trial_seed, **options)


def _grid(draw: Drawing, *, shuffle: bool = True, **options: Any) -> Any:
    from darts_core.study.optuna_private import PointsGrid

    class Grid(PointsGrid):
        """Counts a setting that was enqueued or is known as the point that it is; ends no loop by itself."""

        def before_trial(self, study: Any, trial: Any) -> None:
            """Assign a point that no trial has."""
            attrs = trial.system_attrs
            if "grid_id" in attrs or OUTSIDE in trial.user_attrs:
                return
            # a trial of an older program that goes on has settings, and none that were fixed
            fixed = attrs.get("fixed_params", {}) or trial.params
            points = _distinct(draw.space, self.names, self.points)
            fitting = [i for i, point in points.items() if _agrees(fixed, point)]
            others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
            taken = {t.system_attrs.get("grid_id") for t in others}
            known = [t.params for t in others if t.params]
            free = [i for i in fitting if i not in taken]
            new = [i for i in free if not any(_is(p, points[i]) for p in known)]
            self.assign(study, trial, (new or free or fitting)[0])

        def after_trial(self, *args: Any, **kwargs: Any) -> None:
            """Nothing: it may only do so inside Optuna's `optimize`; the ledger counts the points."""

    values = {name: dimension.stored_values() for name, dimension in draw.space.items()}
    made = Grid(values, seed=draw.seed, **options)
    if not shuffle:
        # in the order in which the space was written, the last dimension moving fastest
        order = [list(values).index(name) for name in made.names]
        made.points = [tuple(p[i] for i in order) for p in product(*values.values())]
    return made


def _distinct(
    space: Mapping[str, SearchDimension], names: Sequence[str], points: Iterable[Sequence[Any]]
) -> dict[int, dict[str, Any]]:
    """By their indices, the points of a grid that are settings of their own, as Optuna stores them.

    What a condition leaves out is no part of a point, and points that differ in that alone are one.
    """
    found: dict[int, dict[str, Any]] = {}
    seen: set[str] = set()
    conditions = any(dimension.when for dimension in space.values())
    for index, values in enumerate(points):
        point = dict(zip(names, values, strict=True))
        if conditions:
            point = _active(space, point)
            key = repr(sorted(point.items()))
            if key in seen:
                continue
            seen.add(key)
        found[index] = point
    return found


def _active(space: Mapping[str, SearchDimension], point: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a point whose conditions hold."""
    params: dict[str, Any] = {}
    for name, dimension in space.items():
        if dimension.active(params):
            params[name] = dimension.decode(point[name])
    return {name: point[name] for name in params}


def _is(params: Mapping[str, Any], point: Mapping[str, Any]) -> bool:
    """Whether a trial's settings are that point."""
    return params.keys() == point.keys() and _agrees(params, point)


def _agrees(fixed: Mapping[str, Any], point: Mapping[str, Any]) -> bool:
    """Whether a point has the fixed values, but for the rounding of steps."""

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, float) and isinstance(b, float):
            return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
        return bool(a == b and isinstance(a, bool) == isinstance(b, bool))

    return all(name not in point or same(value, point[name]) for name, value in fixed.items())


def _nsga(sampler: str, draw: Drawing, **options: Any) -> Any:
    import optuna.samplers

    population = min(50, max(4, (draw.trials or 200) // 4))
    options = {"population_size": population, **options}
    return getattr(optuna.samplers, sampler)(
        seed=draw.trial_seed, constraints_func=draw.constraints, **options
    )


SAMPLERS: dict[str, Callable[..., Any]] = {
    "tpe": _tpe,
    "gp": _gp,
    "acquisition": _acquisition,
    "anneal": _anneal,
    "evolution": _evolution,
    "cmaes": _cmaes,
    "qmc": _qmc,
    "random": _random,
    "grid": _grid,
    "nsga2": partial(_nsga, "NSGAIISampler"),
    "nsga3": partial(_nsga, "NSGAIIISampler"),
}
_ONE_OBJECTIVE = ("acquisition", "anneal", "evolution", "cmaes")
# those that look at no trial which was stopped, and the pruners that stop most of them
_OF_WHOLE_TRIALS = (*_ONE_OBJECTIVE, "gp", "nsga2", "nsga3")
_STOP_MOST = ("asha", "hyperband")
# of those that learn, the ones that ask nobody for the constraints
_WITHOUT_CONSTRAINTS = _ONE_OBJECTIVE


def check_sampler(name: str, objectives: int) -> None:
    """Refuse a sampler that cannot draw for so many objectives.

    Raises:
        TuneError: names those that can.
    """
    if objectives > 1 and name in _ONE_OBJECTIVE:
        several = [other for other in SAMPLERS if other not in _ONE_OBJECTIVE]
        raise TuneError(
            f"The sampler {name!r} takes one objective, but the study has {objectives}; use "
            f"{', '.join(several[:-1])} or {several[-1]}."
        )


def say_few_whole(sampler: Mapping[str, Any], pruner: Mapping[str, Any]) -> None:
    """Say that a sampler learns little beside a pruner which leaves it few trials to learn from."""
    name, stops = sampler["name"], pruner["name"]
    learns = name not in _OF_WHOLE_TRIALS or sampler.get("consider_pruned_trials")
    if not learns and stops in _STOP_MOST:
        _tell_few_whole(name, stops)


def say_of_constraints(sampler: Mapping[str, Any], constraints: Iterable[Any]) -> None:
    """Say that a sampler takes what breaks the constraints for as good as its objective is."""
    if [*constraints] and sampler["name"] in _WITHOUT_CONSTRAINTS:
        _tell_of_constraints(sampler["name"])


@lru_cache(maxsize=8)
def _tell_of_constraints(name: str) -> None:
    log.warning(
        "the sampler %s learns from trials that break the constraints as from any other, and may go on "
        "drawing what breaks them; tpe, gp, nsga2 and nsga3 heed them",
        name,
    )


@lru_cache(maxsize=8)  # a pipeline describes several studies alike
def _tell_few_whole(name: str, stops: str) -> None:
    log.warning(
        "the sampler %s learns from trials that ran to their end alone, of which the pruner %s leaves few "
        "where trials report on their way: it will hardly do better than random draws then; take the pruner "
        "none, or the sampler tpe, which learns from stopped trials, too",
        name,
        stops,
    )


def named(kind: str, given: str | Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """`given` (a name, or a mapping with `name` and options) as a mapping with a known name.

    Numbers among the options are Python's own.

    Raises:
        TuneError: unknown name, or neither a name nor a mapping.
    """
    check_named(kind, given)
    entry = {"name": given} if isinstance(given, str) else dict(given)
    entry.pop("description", None)
    name = entry.get("name")
    if not isinstance(name, str) or name not in known:
        raise TuneError(unknown_name(kind, str(name), known))
    return {key: unboxed(value) for key, value in entry.items()}


def check_named(kind: str, given: Any) -> None:
    """Refuse what is neither a name nor a mapping.

    Raises:
        TuneError: it is another kind of value, such as a list.
    """
    if not isinstance(given, (str, Mapping)):
        raise TuneError(
            f"The {kind} is {given!r}; give a name, or a mapping with that name and its options, such as "
            "{name: NAME, OPTION: 3}."
        )


def make_sampler(given: str | Mapping[str, Any], draw: Drawing) -> Any:
    """The Optuna sampler that draws one trial's parameters.

    Raises:
        TuneError: unknown name, unknown option, or a grid over a continuous dimension.
    """
    entry = named("sampler", given, SAMPLERS)
    return build("sampler", entry, lambda name, options: SAMPLERS[name](draw, **options))


def build(kind: str, entry: dict[str, Any], make: Callable[[str, dict[str, Any]], Any]) -> Any:
    """What `make` makes of a name and options, Optuna's own complaints turned into sentences.

    Raises:
        TuneError: an option is unknown or out of range.
    """
    options = {key: value for key, value in entry.items() if key != "name"}
    try:
        with warnings.catch_warnings():
            # Optuna calls QMC, GP and NSGA-III experimental at every construction
            warnings.simplefilter("ignore")
            return make(entry["name"], options)
    except (TypeError, ValueError) as error:
        raise TuneError(f"The {kind} {entry['name']!r} refuses {options}: {error}.") from error


def grid_size(space: Mapping[str, SearchDimension], trials: Sequence[Any] = ()) -> int:
    """How many points of a grid over `space` are to be run.

    Args:
        space: of the study, conditions after what they depend on.
        trials: of the study; a point that one of another study has is not run again, unless it waits to be.

    Raises:
        TuneError: a dimension is continuous.
    """
    values = {name: dimension.stored_values() for name, dimension in space.items()}
    known = [t.params for t in trials if imported(t)]
    if not known and not any(dimension.when for dimension in space.values()):
        return math.prod(map(len, values.values()))
    points = _distinct(space, list(values), product(*values.values())).values()
    asked = [t.system_attrs.get("fixed_params", {}) for t in trials if not imported(t)]
    return sum(
        any(_is(p, point) for p in asked) or not any(_is(p, point) for p in known)
        for point in points
    )
