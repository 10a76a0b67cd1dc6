"""Everything a worker must know about a study, in one picklable value."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from numbers import Integral
from pathlib import Path
from typing import Any

from darts_core.errors import TuneError
from darts_core.study.budget import Budget
from darts_core.study.pruners import PRUNERS, check_pruner, make_pruner
from darts_core.study.ranking import Ranking
from darts_core.study.records import parse_constraints
from darts_core.study.samplers import (
    SAMPLERS,
    Drawing,
    check_sampler,
    grid_size,
    make_sampler,
    named,
    say_few_whole,
    say_of_constraints,
)
from darts_core.study.space import (
    SearchDimension,
    check_params,
    parse_space,
    space_size,
    space_to_dict,
)
from darts_core.study.trial import unboxed

__all__ = ["StudySpec", "enqueued"]

log = logging.getLogger("darts_core")

_DIRECTIONS = ("maximize", "minimize")


def _name_for(folder: Path, storage: str | None) -> str:
    """A journal holds one study; a database holds many, told apart by job, version and stage."""
    return "tune" if storage is None else "/".join(folder.resolve().parts[-3:])


def _of_the_longest(budget: Budget, epochs: SearchDimension | None) -> Budget:
    """The budget with the length of the longest trial, where the number of epochs is searched, too."""
    own = budget.epochs_per_trial
    if epochs is None or own is None:
        return budget
    ends = [end for end in (*epochs.choices, epochs.high) if isinstance(end, (int, float))]
    longest = max([own, *map(int, ends)])
    if longest > own:
        log.info(
            "%s is searched, too: early stopping reckons with trials of up to %d epochs, where one is "
            "configured with %d",
            epochs.name,
            longest,
            own,
        )
    return replace(budget, epochs_per_trial=longest, stretch=longest / own)


def _say_whole(node: Any, dimension: SearchDimension | None, own: Any) -> None:
    """Say that whole ends make whole numbers, where nobody asked for these and the user's own is none."""
    asked = not isinstance(node, Mapping) or "integer" in node or "step" in node
    if dimension is not None and dimension.integer and isinstance(own, float) and not asked:
        log.warning(
            "of %s whole numbers alone are tried, as both of its ends are (%s to %s; your own value is %s); "
            "write an end with a point, such as %s.0, for those between",
            dimension.name,
            dimension.low,
            dimension.high,
            own,
            dimension.high,
        )


def _say_idle(params: Mapping[str, Any], space: Mapping[str, SearchDimension]) -> None:
    """Say which values of a setting to be tried count for nothing, as their conditions do not hold in it."""
    idle: list[str] = []
    for name, dimension in space.items():  # conditions come after what they depend on
        if name in params and any(
            other in idle or (other in params and params[other] not in admitted)
            for other, admitted in dimension.when
        ):
            idle.append(name)
    if idle:
        _tell_idle(str(dict(params)), ", ".join(idle))


@lru_cache(maxsize=64)  # a pipeline describes several studies alike
def _tell_idle(setting: str, idle: str) -> None:
    log.warning(
        "of the setting %s, which is to be tried, %s does not count: its condition (when) does not hold "
        "there",
        setting,
        idle,
    )


def _whole(
    baseline: Mapping[str, Any] | None, space: Mapping[str, SearchDimension]
) -> tuple[Mapping[str, Any] | None, list[Mapping[str, Any]]]:
    """The user's own setting as the baseline; as one to be tried first where what it lacks would be drawn.

    One outside the space runs as it is.
    """
    if baseline is None:
        return None, []
    own = _unboxed(baseline)
    inside = all(name in space and space[name].contains(value) for name, value in own.items())
    lacking = [name for name, d in space.items() if name not in own and d.active(own)]
    if not lacking or not inside:
        return own, []
    log.warning(
        "the configuration has no value of %s, so there is no baseline to compare with; give it one",
        ", ".join(lacking),
    )
    return None, [own] if own else []


def _unboxed(params: Mapping[str, Any]) -> dict[str, Any]:
    """A setting, its numbers Python's own: a space holds no others, and neither do the study's files."""
    return {name: unboxed(value) for name, value in params.items()}


def _goals(given: Any) -> dict[str, str]:
    """Objectives with their directions: a mapping, or pairs of the two.

    Raises:
        TuneError: it is neither, such as names alone.
    """
    try:
        return dict(given)
    except (TypeError, ValueError):
        raise TuneError(
            f"The objectives are {given!r}; give each with its direction, such as "
            "{val_accuracy: maximize, params: minimize}."
        ) from None


def enqueued(given: Any) -> tuple[Mapping[str, Any], ...]:
    """The settings of a list, each a mapping of names to values.

    Raises:
        TuneError: it is none, such as one setting alone.
    """
    alone = isinstance(given, (str, Mapping)) or not isinstance(given, Iterable)
    found = () if alone else tuple(given)
    # a row of a table has items, too, though it is no mapping
    if alone or not all(callable(getattr(params, "items", None)) for params in found):
        raise TuneError(
            f"enqueue is {given!r}; give a list of settings, such as [{{NAME: VALUE, NAME: VALUE}}]."
        )
    return found


@dataclass(frozen=True)
class StudySpec:
    """A study's description. `make` checks and fills it in.

    `baseline` is the user's own configuration: trial 0, run to its end whatever it reports, also where it
    lies outside the space; `make` lets one that lacks a value of the space be tried first instead. With
    `distinct` no point is tried twice, and a finite space ends the study.
    `device_share` is the part of a device that each of the workers has. `trials_folder` and `trial_name`
    say where trials lie if not in `trials/NNNN`; `artifacts` is a path that all hosts reach, where trials'
    files are kept for whoever goes on with them. When the first `hopeless` trials have all failed the study
    ends: the code is broken, not its settings. `epochs_setting` names the setting that says how many epochs a
    trial has, where there is one; searched, it decides which is the longest and when each is fully trained.
    `subject` says in words what is tuned, where that is known: a study of another subject is not joined.
    """

    folder: Path
    space: dict[str, SearchDimension]
    objectives: dict[str, str]
    budget: Budget
    sampler: dict[str, Any]
    pruner: dict[str, Any]
    seed: int = 0
    constraints: tuple[tuple[str, str, float], ...] = ()
    enqueue: tuple[dict[str, Any], ...] = ()
    baseline: dict[str, Any] | None = None
    pruning_metric: str | None = None
    epochs_setting: str | None = None
    distinct: bool = False
    device_share: float = 1.0
    trials_folder: Path | None = None
    trial_name: Callable[[int], str] | None = None
    storage: str | None = None
    artifacts: str | None = None
    study_name: str = "tune"
    subject: str | None = None
    max_failure_share: float = 0.5
    hopeless: int | None = None
    max_restarts: int = 3
    stale_seconds: float = 60.0

    @classmethod
    def make(
        cls,
        space: Mapping[str, Any],
        budget: Budget,
        *,
        folder: str | Path,
        sampler: str | Mapping[str, Any] = "tpe",
        pruner: str | Mapping[str, Any] = "default",
        direction: str = "maximize",
        metric: str = "val_accuracy",
        objectives: Mapping[str, str] | None = None,
        constraints: Mapping[str, Any] | None = None,
        enqueue: Sequence[Mapping[str, Any]] = (),
        baseline: Mapping[str, Any] | None = None,
        storage: str | None = None,
        study_name: str | None = None,
        epochs_setting: str | None = None,
        **rest: Any,
    ) -> StudySpec:
        """A checked description; see `run_study` for the arguments.

        Raises:
            TuneError: anything that could not work, before any trial starts.
        """
        goals = _goals(objectives) if objectives else {metric: direction}
        for name, goal in goals.items():
            if goal not in _DIRECTIONS:
                raise TuneError(
                    f"The direction of {name} is {goal!r}; it must be maximize or minimize."
                )
        dimensions = parse_space(space)
        baseline, tried = _whole(baseline, dimensions)
        if pruner == "default" or (isinstance(pruner, Mapping) and pruner.get("name") == "default"):
            pruner = "asha" if len(goals) == 1 else "none"
        # an objective in this process may change the working directory
        place = Path(folder).expanduser().absolute()
        spec = cls(
            folder=place,
            space=dimensions,
            objectives=goals,
            budget=_of_the_longest(budget, dimensions.get(epochs_setting or "")),
            epochs_setting=epochs_setting,
            sampler=named("sampler", sampler, SAMPLERS),
            pruner=named("pruner", pruner, PRUNERS),
            constraints=parse_constraints(constraints),
            enqueue=tuple(_unboxed(params) for params in (*tried, *enqueued(enqueue))),
            baseline=None if baseline is None else dict(baseline),
            storage=storage,
            study_name=study_name or _name_for(place, storage),
            **rest,
        )
        for params in spec.enqueue:
            check_params(params, dimensions)
            _say_idle(params, dimensions)
        spec.check()
        say_few_whole(spec.sampler, spec.pruner)
        say_of_constraints(spec.sampler, spec.constraints)
        for name, value in (spec.baseline or {}).items():
            _say_whole(space.get(name), dimensions.get(name), value)
        return spec

    def check(self) -> None:
        """Refuse combinations that cannot work.

        Raises:
            TuneError: see the sentences.
        """
        if not 0 <= self.max_failure_share <= 1:
            raise TuneError(f"max_failure_share={self.max_failure_share} must lie between 0 and 1.")
        if not isinstance(self.seed, Integral) or self.seed < 0:
            raise TuneError(
                f"The study's seed is {self.seed!r}; give a whole number from 0 on (of an app with a seed of "
                "its own, hydra.sweeper.seed=0)."
            )
        if self.sampler["name"] == "grid":
            grid_size(self.space)
        check_sampler(self.sampler["name"], len(self.objectives))
        check_pruner(self.pruner["name"], self.ranking)

    def check_options(self) -> None:
        """Refuse options that the sampler or the pruner does not take.

        Raises:
            TuneError: names them.
        """
        make_sampler(self.sampler, Drawing(self.seed, 0, self.space, self.budget.trials))
        make_pruner(self.pruner, self.ranking, self.budget.epochs_per_trial)

    @property
    def ranking(self) -> Ranking:
        """How running trials are judged: by `pruning_metric` alone, else by objectives and constraints."""
        if self.pruning_metric is not None:
            return Ranking({self.pruning_metric: self.objectives[self.pruning_metric]})
        return Ranking(self.objectives, self.constraints)

    @property
    def counts_epochs(self) -> bool:
        """Whether nothing but reported epochs ends the study; finitely many points come to an end, too."""
        finite = self.distinct and space_size(self.space) is not None
        return self.budget.epochs_alone and not finite and self.sampler["name"] != "grid"

    @property
    def wanted(self) -> tuple[str, ...]:
        """Names of the metrics that objectives and constraints need."""
        return (*self.objectives, *(name for name, _, _ in self.constraints))

    def identity(self) -> dict[str, Any]:
        """What must not change while a study goes on: its space, objectives and constraints."""
        return {
            "space": space_to_dict(self.space),
            "objectives": [[name, goal] for name, goal in self.objectives.items()],
            "constraints": [list(constraint) for constraint in self.constraints],
        }

    def check_subject(self, known: str | None) -> None:
        """Refuse to join a study of something else; one that does not say of what it is passes.

        Raises:
            TuneError: its subject is another one.
        """
        if None not in (known, self.subject) and known != self.subject:
            raise TuneError(
                f"The study {self.study_name!r} in {self.storage} tunes {known}, this command "
                f"{self.subject}: their trials do not compare. Give another study_name."
            )

    def differs(self, known: Mapping[str, Any]) -> str:
        """A sentence that names what differs from a stored study's identity."""
        mine = self.identity()
        where = self.storage or str(self.folder)
        old, new = known.get("space", {}), mine["space"]
        changed = sorted(n for n in {*old, *new} if old.get(n) != new.get(n))
        if changed:
            what = f"the dimensions {', '.join(changed)} differ"
        else:
            keys = [k for k in ("objectives", "constraints") if known.get(k) != mine[k]]
            what = f"the {' and '.join(keys)} differ"
        return (
            f"The storage {where} is in use by a study with another space ({what}); give another "
            "folder or storage, or restore the old space."
        )
