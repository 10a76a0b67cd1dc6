"""Pruners by name.

A pruner sees all trials of the study and says whether a running one should end (or, with promotion,
wait) at the iteration that it has just reported. Those with rungs judge several objectives and
constraints together (`ranking`); the others compare one number.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from darts_core.errors import TuneError
from darts_core.reading import is_number
from darts_core.study.halving import HalvingPruner, HyperbandPruner
from darts_core.study.promotion import PromotionPruner, all_trials
from darts_core.study.ranking import Ranking
from darts_core.study.samplers import build, named

__all__ = ["PRUNERS", "RunningMeanPruner", "check_pruner", "make_pruner", "rungs_of"]


@dataclass(frozen=True)
class RunningMeanPruner(BasePruner):
    """Ends a trial whose best value so far lies below the median of the running means, at the same
    iteration, of the other trials that got there.

    Args:
        n_warmup_steps: iterations before a trial may end.
        n_min_trials: other trials needed for a median.

    Raises:
        ValueError: one of them is no number.

    Source: Golovin et al. 2017, "Google Vizier", section 3.2.1.
    """

    n_warmup_steps: int = 1
    n_min_trials: int = 3

    def __post_init__(self) -> None:
        if not (is_number(self.n_warmup_steps) and is_number(self.n_min_trials)):
            raise ValueError("n_warmup_steps and n_min_trials must be numbers")

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial ends here."""
        step = trial.last_step
        if step is None or step < self.n_warmup_steps:
            return False
        maximized = study.directions[0] == optuna.study.StudyDirection.MAXIMIZE
        sign, means = 1.0 if maximized else -1.0, []
        # as stored: of several objectives, a sampler's view of a trial holds no reports
        for other in all_trials(study):
            history = other.intermediate_values
            if other.number != trial.number and history and max(history) >= step:
                means.append(statistics.fmean(sign * v for s, v in history.items() if s <= step))
        if len(means) < self.n_min_trials:
            return False
        return max(sign * v for v in trial.intermediate_values.values()) < statistics.median(means)


def _asha(epochs: int | None, ranking: Ranking | None, promote: bool = True, **options: Any) -> Any:
    if promote and epochs is not None:
        return PromotionPruner(epochs, ranking=ranking, **options)
    # without the length of a trial nobody knows what going on with one would take
    options.pop("cost_share", None)
    return HalvingPruner(**{"max_resource": epochs, "ranking": ranking, **options})


def _hyperband(epochs: int | None, ranking: Ranking | None, **options: Any) -> Any:
    return HyperbandPruner(**{"max_resource": epochs, "ranking": ranking, **options})


def _median(epochs: int | None, ranking: Ranking | None, **options: Any) -> Any:
    from optuna.pruners import MedianPruner

    return MedianPruner(**{"n_startup_trials": 4, "n_warmup_steps": 1, **options})


def _running_mean(epochs: int | None, ranking: Ranking | None, **options: Any) -> Any:
    return RunningMeanPruner(**options)


def _none(epochs: int | None, ranking: Ranking | None, **options: Any) -> Any:
    from optuna.pruners import NopPruner

    return NopPruner(**options)


PRUNERS: dict[str, Callable[..., Any]] = {
    "asha": _asha,
    "hyperband": _hyperband,
    "median": _median,
    "running_mean": _running_mean,
    "none": _none,
}
_COMPARE_ONE_NUMBER = ("median", "running_mean")


def check_pruner(name: str, ranking: Ranking) -> None:
    """Refuse a pruner that compares one number where more than one counts.

    Raises:
        TuneError: names those that can.
    """
    if name in _COMPARE_ONE_NUMBER and not ranking.plain:
        several = len(ranking.goals) > 1
        more = f"{len(ranking.goals)} objectives" if several else "constraints, too"
        raise TuneError(
            f"The pruner {name!r} compares one number, but the study has {more}; use asha, hyperband "
            "or none."
        )


def make_pruner(
    given: str | Mapping[str, Any], ranking: Ranking | None = None, epochs: int | None = None
) -> Any:
    """The Optuna pruner.

    Args:
        given: name or mapping with `name` and options.
        ranking: how trials are judged; None: by the study's first objective.
        epochs: of a full trial, where known.

    Raises:
        TuneError: unknown name or option, or one that compares one number where more counts.
    """
    entry = named("pruner", given, PRUNERS)
    if ranking is not None:
        check_pruner(entry["name"], ranking)
    return build("pruner", entry, lambda name, options: PRUNERS[name](epochs, ranking, **options))


def rungs_of(pruner: Any) -> list[int]:
    """Iterations after which a trial should wait for the decision; none for a pruner without rungs."""
    return list(getattr(pruner, "rungs", ()))
