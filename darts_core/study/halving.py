"""Successive halving that ends trials for good, alone or in Hyperband's brackets: for trials that cannot
go on from where they were stopped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

from darts_core.study.promotion import all_trials
from darts_core.study.ranking import Ranking

__all__ = ["HalvingPruner", "HyperbandPruner", "bracket_round"]


@dataclass(frozen=True)
class HalvingPruner(BasePruner):
    """Asynchronous successive halving.

    A trial that reaches a rung ends there unless it is among the best 1/`reduction_factor` of all that
    have been at this rung so far (itself included, those that failed left out; at least one is good
    enough), or no worse than one of these, in no objective.

    Args:
        min_resource: the first rung, in iterations; the others lie at its multiples by powers of
            `reduction_factor`, rounded up, below `max_resource`.
        reduction_factor: above 1.
        max_resource: beyond it every trial ends; None is open.
        slack: how much worse in the first objective is still no worse.
        ranking: how trials are judged; None: by the study's first objective.
        last_rung: no rung lies beyond it: whoever passes it goes on to its end. None is open.

    Raises:
        ValueError: a setting is out of range.

    Source: Li et al. 2020, "A system for massively parallel hyperparameter tuning", section 3.
    """

    min_resource: int = 1
    reduction_factor: float = 3
    max_resource: int | None = None
    slack: float = 0.0
    ranking: Ranking | None = None
    last_rung: int | None = None

    def __post_init__(self) -> None:
        if self.min_resource < 1 or self.reduction_factor <= 1:
            raise ValueError("min_resource must be at least 1, reduction_factor above 1")

    @property
    def rungs(self) -> list[int]:
        """Iterations at which a trial may end."""
        found: list[int] = []
        at, limit = float(self.min_resource), self.max_resource or 10**6
        last = math.inf if self.last_rung is None else self.last_rung
        while math.ceil(at) < limit and math.ceil(at) <= last:
            if not found or math.ceil(at) > found[-1]:
                found.append(math.ceil(at))
            at *= self.reduction_factor
        return found

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial ends here."""
        return self.ends(trial, all_trials(study), self.ranking or Ranking.of(study))

    def ends(self, trial: FrozenTrial, trials: Sequence[FrozenTrial], ranking: Ranking) -> bool:
        """The same among given trials, `trial` among them."""
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
        here, steps = [], []
        for other in trials:
            # it gives no result, and would keep its place from one that does
            if other.state == TrialState.FAIL:
                continue
            found = [s for s in other.intermediate_values if rung <= s < beyond]
            if found:
                here.append(other)
                steps.append(min(found))
        return not self._good(trial.number, here, steps, ranking)

    def _good(
        self, number: int, here: Sequence[FrozenTrial], steps: Sequence[int], ranking: Ranking
    ) -> bool:
        """Whether a trial is among the best of the rung, or no worse than one of these."""
        order = ranking.order(here, steps)
        good = order[: max(1, int(len(order) / self.reduction_factor))]
        violations, costs = ranking.tables(here, steps)
        own = next(i for i, trial in enumerate(here) if trial.number == number)
        limits = costs[good] + self.slack * (np.arange(costs.shape[1]) == 0)
        no_worse = (costs[own] <= limits).all(axis=1)
        return bool((no_worse & (violations[own] <= violations[good]).all(axis=1)).any())


@dataclass(frozen=True)
class HyperbandPruner(BasePruner):
    """Brackets of successive halving that begin at different rungs; trials compete in their own bracket.

    Bracket 0 judges from `min_resource` on, each next one `reduction_factor` times later, the last one
    never. Trials are dealt to the brackets by their numbers, in the paper's proportions at any moment.

    Args:
        min_resource: the first rung of bracket 0, in iterations.
        reduction_factor: above 1.
        max_resource: iterations of a full trial; None: those of the longest complete one, and until there
            is one no trial ends.
        ranking: how trials are judged; None: by the study's first objective.

    Raises:
        ValueError: a setting is out of range.

    Source: Li et al. 2018, "Hyperband", algorithm 1, with the asynchronous rule in each bracket.
    """

    min_resource: int = 1
    reduction_factor: float = 3
    max_resource: int | None = None
    ranking: Ranking | None = None

    def __post_init__(self) -> None:
        HalvingPruner(self.min_resource, self.reduction_factor)  # it has the same ranges

    @property
    def rungs(self) -> list[int]:
        """Iterations at which a trial of some bracket may end."""
        return self._bracket(0, self.max_resource).rungs

    def _bracket(self, index: int, most: int | None) -> HalvingPruner:
        first = math.ceil(self.min_resource * self.reduction_factor**index)
        return HalvingPruner(first, self.reduction_factor, most)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial ends here."""
        trials = all_trials(study)
        most = self.max_resource or _longest(trials)
        # where nobody said how long a trial is, a longer one than any so far is no reason to end it
        if most is None or (self.max_resource is None and (trial.last_step or 0) > most):
            return False
        brackets = 1
        while self.min_resource * self.reduction_factor**brackets <= most:
            brackets += 1
        turns = bracket_round(brackets, self.reduction_factor)
        own = turns[trial.number % len(turns)]
        if own == brackets - 1:
            # its trials are full ones, also where the length is no power of the factor
            return self.max_resource is not None and (trial.last_step or 0) > most
        rivals = [t for t in trials if turns[t.number % len(turns)] == own]
        return self._bracket(own, most).ends(trial, rivals, self.ranking or Ranking.of(study))


def _longest(trials: Sequence[FrozenTrial]) -> int | None:
    """Iterations of the longest complete trial."""
    ended = [t.last_step for t in trials if t.state == TrialState.COMPLETE]
    return max((step for step in ended if step), default=None)


@lru_cache
def bracket_round(brackets: int, factor: float) -> tuple[int, ...]:
    """The brackets of consecutive trials, over and over: each turn goes to the one furthest behind its share.

    Bracket i has ceil(n / (s + 1) * factor**s) trials a round, n brackets in all and s = n - 1 - i.
    """
    rest = range(brackets - 1, -1, -1)
    sizes = [math.ceil(brackets / (s + 1) * factor**s) for s in rest]
    dealt, turns = [0] * brackets, []
    for turn in range(1, sum(sizes) + 1):
        behind = [sizes[i] * turn - dealt[i] * sum(sizes) for i in range(brackets)]
        chosen = behind.index(max(behind))
        dealt[chosen] += 1
        turns.append(chosen)
    return tuple(turns)
