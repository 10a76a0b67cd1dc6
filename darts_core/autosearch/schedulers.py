"""Schedulers: which trial ends early. Each sees every reported value of the first objective.

The rules are exact and small: `decide` returns True when the trial should end now.
"""

from __future__ import annotations

import math
import statistics
from typing import Any

from darts_core.autosearch.spec import SearchSpec
from darts_core.errors import ConfigError

__all__ = ["AsyncHyperband", "Fifo", "MedianStopping", "Scheduler", "create_scheduler"]


class Scheduler:
    """Values are turned so that larger is better.

    At `decision_points` (iterations) a trial waits for the decision before it goes on.
    """

    decision_points: tuple[int, ...] = ()

    def decide(self, trial: str, iteration: int, value: float) -> bool:
        """Record the value of a trial at an iteration (from 1); True when the trial should end."""
        return False


class Fifo(Scheduler):
    """Every trial runs to its end."""


class AsyncHyperband(Scheduler):
    """Asynchronous successive halving.

    Rungs lie at `grace_period * reduction_factor**k` up to `max_t`. A trial that reaches a rung ends
    there unless its value is among the best 1/reduction_factor of all values recorded at this rung so
    far (its own included; at least one is always good enough), or within `slack` of the worst of
    these. Beyond `max_t` every trial ends.
    Source: Li et al. 2020, "A system for massively parallel hyperparameter tuning", section 3.
    """

    def __init__(
        self,
        *,
        grace_period: int,
        reduction_factor: float,
        max_t: int | None,
        slack: float = 0.0,
    ) -> None:
        self.slack = slack
        self.max_t = max_t
        self.factor = reduction_factor
        self.rungs: list[tuple[int, dict[str, float]]] = []
        at = float(grace_period)
        limit = max_t if max_t is not None else 10**6
        while math.ceil(at) < limit:
            rung = math.ceil(at)
            if not self.rungs or rung > self.rungs[-1][0]:
                self.rungs.append((rung, {}))
            at *= reduction_factor
        self.decision_points = tuple(rung for rung, _ in self.rungs)

    def decide(self, trial: str, iteration: int, value: float) -> bool:
        """See the class."""
        if self.max_t is not None and iteration > self.max_t:
            return True
        for rung, recorded in reversed(self.rungs):
            if iteration < rung:
                continue
            if trial in recorded:
                return False
            recorded[trial] = value
            good = max(1, int(len(recorded) / self.factor))
            return value < sorted(recorded.values(), reverse=True)[good - 1] - self.slack
        return False


class MedianStopping(Scheduler):
    """A trial ends when its best value so far lies below the median of the running means, at the same
    iteration, of the other trials that got there.

    Source: Golovin et al. 2017, "Google Vizier", section 3.2.1.
    """

    def __init__(self, *, grace_period: int, min_samples_required: int) -> None:
        self.grace_period = grace_period
        self.min_samples = min_samples_required
        self.values: dict[str, dict[int, float]] = {}

    def decide(self, trial: str, iteration: int, value: float) -> bool:
        """See the class."""
        self.values.setdefault(trial, {})[iteration] = value
        if iteration < self.grace_period:
            return False
        means = []
        for other, history in self.values.items():
            if other != trial and max(history) >= iteration:
                means.append(statistics.fmean(v for i, v in history.items() if i <= iteration))
        if len(means) < self.min_samples:
            return False
        return max(self.values[trial].values()) < statistics.median(means)


def create_scheduler(spec: SearchSpec) -> Scheduler:
    """The scheduler a spec names.

    Raises:
        ConfigError: the name is unknown.
    """
    options: dict[str, Any] = dict(spec.scheduler_options)
    if spec.scheduler == "FIFOScheduler":
        return Fifo()
    if spec.scheduler == "async_hyperband":
        options["max_t"] = options.get("max_t") or spec.max_iterations
        # what may be given up for the next objective is no reason to stop a trial
        return AsyncHyperband(**options, slack=spec.objectives[0].tolerance)
    if spec.scheduler == "median_stopping":
        return MedianStopping(**options)
    raise ConfigError(f"Unknown scheduler {spec.scheduler!r}; use FIFOScheduler, async_hyperband.")
