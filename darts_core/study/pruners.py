"""Pruners by name, and the two rules that Optuna lacks.

A pruner sees all trials of the study and says whether a running one should end (or, with promotion,
wait) at the iteration that it has just reported. Larger is better below after turning by `sign_of`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from darts_core.errors import TuneError
from darts_core.study.promotion import PromotionPruner, sign_of
from darts_core.study.samplers import build, named

__all__ = ["PRUNERS", "HalvingPruner", "RunningMeanPruner", "make_pruner", "rungs_of"]


@dataclass(frozen=True)
class HalvingPruner(BasePruner):
    """Asynchronous successive halving that ends trials for good: for those that cannot go on.

    A trial that reaches a rung ends there unless its value is among the best 1/`reduction_factor` of all
    values at this rung so far (its own included; at least one is good enough), or within `slack` of
    the worst of these.

    Args:
        min_resource: the first rung, in iterations; the others lie at its multiples by powers of
            `reduction_factor`, rounded up, below `max_resource`.
        reduction_factor: above 1.
        max_resource: beyond it every trial ends; None is open.
        slack: how much worse than the worst good value is still good enough.

    Raises:
        ValueError: a setting is out of range.

    Source: Li et al. 2020, "A system for massively parallel hyperparameter tuning", section 3.
    """

    min_resource: int = 1
    reduction_factor: float = 3
    max_resource: int | None = None
    slack: float = 0.0

    def __post_init__(self) -> None:
        if self.min_resource < 1 or self.reduction_factor <= 1:
            raise ValueError("min_resource must be at least 1, reduction_factor above 1")

    @property
    def rungs(self) -> list[int]:
        """Iterations at which a trial may end."""
        found: list[int] = []
        at, limit = float(self.min_resource), self.max_resource or 10**6
        while math.ceil(at) < limit:
            if not found or math.ceil(at) > found[-1]:
                found.append(math.ceil(at))
            at *= self.reduction_factor
        return found

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial ends here."""
        step = trial.last_step
        if step is None:
            return False
        if self.max_resource is not None and step > self.max_resource:
            return True
        rungs = self.rungs
        reached = [rung for rung in rungs if rung <= step]
        if not reached:
            return False
        rung = reached[-1]
        beyond = min((r for r in rungs if r > rung), default=math.inf)
        # a trial is judged at its first report from a rung on; that may come later than the rung itself
        if min(s for s in trial.intermediate_values if s >= rung) != step:
            return False
        sign, values = sign_of(study), []
        for other in study._get_trials(deepcopy=False):
            steps = [s for s in other.intermediate_values if rung <= s < beyond]
            if steps:
                values.append(sign * other.intermediate_values[min(steps)])
        good = max(1, int(len(values) / self.reduction_factor))
        mine = sign * trial.intermediate_values[step]
        return mine < sorted(values, reverse=True)[good - 1] - self.slack


@dataclass(frozen=True)
class RunningMeanPruner(BasePruner):
    """Ends a trial whose best value so far lies below the median of the running means, at the same
    iteration, of the other trials that got there.

    Args:
        n_warmup_steps: iterations before a trial may end.
        n_min_trials: other trials needed for a median.

    Source: Golovin et al. 2017, "Google Vizier", section 3.2.1.
    """

    n_warmup_steps: int = 1
    n_min_trials: int = 3

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial ends here."""
        step = trial.last_step
        if step is None or step < self.n_warmup_steps:
            return False
        sign, means = sign_of(study), []
        for other in study._get_trials(deepcopy=False):
            history = other.intermediate_values
            if other.number != trial.number and history and max(history) >= step:
                means.append(statistics.fmean(sign * v for s, v in history.items() if s <= step))
        if len(means) < self.n_min_trials:
            return False
        return max(sign * v for v in trial.intermediate_values.values()) < statistics.median(means)


def _asha(epochs: int | None, promote: bool = True, **options: Any) -> Any:
    if promote and epochs is not None:
        return PromotionPruner(epochs, **options)
    # without the length of a trial nobody knows what going on with one would take
    options.pop("cost_share", None)
    return HalvingPruner(**{"max_resource": epochs, **options})


def _hyperband(epochs: int | None, **options: Any) -> Any:
    from optuna.pruners import HyperbandPruner

    return HyperbandPruner(**{"max_resource": epochs or "auto", **options})


def _median(epochs: int | None, **options: Any) -> Any:
    from optuna.pruners import MedianPruner

    return MedianPruner(**{"n_startup_trials": 4, "n_warmup_steps": 1, **options})


def _running_mean(epochs: int | None, **options: Any) -> Any:
    return RunningMeanPruner(**options)


def _none(epochs: int | None, **options: Any) -> Any:
    from optuna.pruners import NopPruner

    return NopPruner(**options)


PRUNERS: dict[str, Callable[..., Any]] = {
    "asha": _asha,
    "hyperband": _hyperband,
    "median": _median,
    "running_mean": _running_mean,
    "none": _none,
}


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
    return build("pruner", entry, lambda name, options: PRUNERS[name](epochs, **options))


def rungs_of(pruner: Any) -> list[int]:
    """Iterations after which a trial should wait for the decision; none for a pruner without rungs."""
    return list(getattr(pruner, "rungs", ()))
