"""Samplers and pruners by name. A sampler is made anew for each trial, seeded by (seed, number).

So workers never repeat each other, and a study continued after a kill draws what an unkilled one
would have drawn.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from darts_core.errors import TuneError, unknown_name
from darts_core.study.space import SearchDimension

__all__ = ["PRUNERS", "SAMPLERS", "Drawing", "grid_size", "make_pruner", "make_sampler", "named"]


@dataclass(frozen=True)
class Drawing:
    """What a sampler is made for: the study's seed, the trial's number, space, budget, constraints."""

    seed: int
    number: int
    space: Mapping[str, SearchDimension]
    trials: int | None
    constraints: Callable[[Any], list[float]] | None = None

    @property
    def trial_seed(self) -> int:
        """A seed for this trial alone."""
        return int(np.random.SeedSequence([self.seed, self.number]).generate_state(1)[0])


def _tpe(draw: Drawing, **options: Any) -> Any:
    from optuna.samplers import TPESampler

    # a quarter of a small study is exploration; ten are enough for a large one
    startup = min(10, max(4, (draw.trials or 40) // 4))
    options = {"n_startup_trials": startup, **options}
    return TPESampler(seed=draw.trial_seed, constraints_func=draw.constraints, **options)


def _gp(draw: Drawing, **options: Any) -> Any:
    from optuna.samplers import GPSampler

    options = {"n_startup_trials": min(10, max(4, (draw.trials or 40) // 4)), **options}
    return GPSampler(
        seed=draw.trial_seed,
        constraints_func=draw.constraints,
        warn_independent_sampling=False,
        **options,
    )


def _cmaes(draw: Drawing, **options: Any) -> Any:
    from optuna.samplers import CmaEsSampler

    return CmaEsSampler(seed=draw.trial_seed, warn_independent_sampling=False, **options)


def _qmc(draw: Drawing, **options: Any) -> Any:
    from optuna.samplers import QMCSampler

    # one sequence for the whole study: its points are told apart by their index, not by a seed
    options = {"scramble": True, "warn_asynchronous_seeding": False, **options}
    return QMCSampler(seed=draw.seed, warn_independent_sampling=False, **options)


def _random(draw: Drawing, **options: Any) -> Any:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=draw.trial_seed, **options)


def _grid(draw: Drawing, **options: Any) -> Any:
    from optuna.samplers import GridSampler

    class Grid(GridSampler):
        """Counts a setting that was enqueued as the point that it is; ends no loop by itself."""

        def before_trial(self, study: Any, trial: Any) -> None:
            """Assign a point that no trial has."""
            attrs = trial.system_attrs
            if "grid_id" in attrs:
                return
            fixed = attrs.get("fixed_params", {})
            points = [dict(zip(self._param_names, p, strict=True)) for p in self._all_grids]
            fitting = [i for i, point in enumerate(points) if _agrees(fixed, point)]
            unvisited = set(self._get_unvisited_grid_ids(study))
            chosen = next((i for i in fitting if i in unvisited), fitting[0])
            for key, value in (("search_space", self._search_space), ("grid_id", chosen)):
                study._storage.set_trial_system_attr(trial._trial_id, key, value)

        def after_trial(self, *args: Any, **kwargs: Any) -> None:
            """Nothing: it may only do so inside Optuna's `optimize`; the ledger counts the points."""

    values = {name: dimension.stored_values() for name, dimension in draw.space.items()}
    return Grid(values, seed=draw.seed, **options)


def _agrees(fixed: Mapping[str, Any], point: Mapping[str, Any]) -> bool:
    """Whether a point has the fixed values, but for the rounding of steps."""

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, float) and isinstance(b, float):
            return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
        return bool(a == b and isinstance(a, bool) == isinstance(b, bool))

    return all(name not in point or same(value, point[name]) for name, value in fixed.items())


def _population(draw: Drawing, options: dict[str, Any]) -> dict[str, Any]:
    return {"population_size": min(50, max(4, (draw.trials or 200) // 4)), **options}


def _nsga2(draw: Drawing, **options: Any) -> Any:
    from optuna.samplers import NSGAIISampler

    options = _population(draw, options)
    return NSGAIISampler(seed=draw.trial_seed, constraints_func=draw.constraints, **options)


def _nsga3(draw: Drawing, **options: Any) -> Any:
    from optuna.samplers import NSGAIIISampler

    options = _population(draw, options)
    return NSGAIIISampler(seed=draw.trial_seed, constraints_func=draw.constraints, **options)


SAMPLERS: dict[str, Callable[..., Any]] = {
    "tpe": _tpe,
    "gp": _gp,
    "cmaes": _cmaes,
    "qmc": _qmc,
    "random": _random,
    "grid": _grid,
    "nsga2": _nsga2,
    "nsga3": _nsga3,
}


def _asha(epochs: int | None, promote: bool = True, **options: Any) -> Any:
    from optuna.pruners import SuccessiveHalvingPruner

    from darts_core.study.promotion import PromotionPruner

    if promote and epochs is not None:
        return PromotionPruner(epochs, **options)
    # without the length of a trial nobody knows what going on with one would take
    options.pop("cost_share", None)
    return SuccessiveHalvingPruner(**{"min_resource": 1, "reduction_factor": 3, **options})


def _hyperband(epochs: int | None, **options: Any) -> Any:
    from optuna.pruners import HyperbandPruner

    return HyperbandPruner(**{"max_resource": epochs or "auto", **options})


def _median(epochs: int | None, **options: Any) -> Any:
    from optuna.pruners import MedianPruner

    return MedianPruner(**{"n_startup_trials": 4, "n_warmup_steps": 1, **options})


def _none(epochs: int | None, **options: Any) -> Any:
    from optuna.pruners import NopPruner

    return NopPruner(**options)


PRUNERS: dict[str, Callable[..., Any]] = {
    "asha": _asha,
    "hyperband": _hyperband,
    "median": _median,
    "none": _none,
}


def named(kind: str, given: str | Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """`given` (a name, or a mapping with `name` and options) as a mapping with a known name.

    Raises:
        TuneError: unknown name.
    """
    entry = {"name": given} if isinstance(given, str) else dict(given)
    entry.pop("description", None)
    name = entry.get("name")
    if name not in known:
        raise TuneError(unknown_name(kind, str(name), known))
    return entry


def make_sampler(given: str | Mapping[str, Any], draw: Drawing) -> Any:
    """The Optuna sampler that draws one trial's parameters.

    Raises:
        TuneError: unknown name, unknown option, or a grid over a continuous dimension.
    """
    entry = named("sampler", given, SAMPLERS)
    return _build("sampler", entry, lambda name, options: SAMPLERS[name](draw, **options))


def make_pruner(given: str | Mapping[str, Any], objectives: int, epochs: int | None = None) -> Any:
    """The Optuna pruner.

    Args:
        given: name or mapping with `name` and options.
        objectives: how many.
        epochs: of a full trial, where known.

    Raises:
        TuneError: unknown name or option, or a pruner with several objectives.
    """
    entry = named("pruner", given, PRUNERS)
    if objectives > 1 and entry["name"] != "none":
        raise TuneError(
            f"The pruner {entry['name']!r} compares one number, but the study has {objectives} "
            "objectives; use pruner=none."
        )
    return _build("pruner", entry, lambda name, options: PRUNERS[name](epochs, **options))


def _build(kind: str, entry: dict[str, Any], make: Callable[[str, dict[str, Any]], Any]) -> Any:
    options = {key: value for key, value in entry.items() if key != "name"}
    try:
        with warnings.catch_warnings():
            # Optuna calls QMC, GP and NSGA-III experimental at every construction
            warnings.simplefilter("ignore")
            return make(entry["name"], options)
    except (TypeError, ValueError) as error:
        raise TuneError(f"The {kind} {entry['name']!r} refuses {options}: {error}.") from error


def grid_size(space: Mapping[str, SearchDimension]) -> int:
    """How many points a grid over `space` has.

    Raises:
        TuneError: a dimension is continuous.
    """
    return math.prod(len(dimension.values()) for dimension in space.values())
