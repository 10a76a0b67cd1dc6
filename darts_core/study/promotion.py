"""Asynchronous successive halving with promotion: a paused trial goes on once it is among the best.

Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning" (arXiv:1810.05934). Optuna's
pruner ends a trial for good at its rung, judged against the few that came before it; here it keeps its
checkpoint and is judged again whenever others have reached the rung.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, cmp_to_key

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

from darts_core.study.accounts import imported, spent_by
from darts_core.study.budget import Budget, Spent
from darts_core.study.lease import Lease
from darts_core.study.optuna_private import ViewedStudy
from darts_core.study.ranking import Ranking
from darts_core.study.records import IS_BASELINE, OUTSIDE, paused, violations_of

__all__ = ["Promoter", "PromotingStudy", "PromotionPruner", "all_trials", "promoter_of"]

# of a study without a number of trials, the rest of the budget trains the best ones further
_SHARE_OF_NEW_TRIALS = 0.5
# a share of a few trials would leave a single one that is trained to its end
_FULL_TRIALS = 3


class PromotingStudy(ViewedStudy):
    """A study whose paused trials are, for samplers, pruned ones.

    Of several objectives they see what ended alone: TPE ranks pruned trials by what these reported on the
    way, and knows only one direction to do so.
    """

    @cached_property
    def _several(self) -> bool:
        return len(self.directions) > 1

    def shown(self, trial: FrozenTrial) -> FrozenTrial:
        """A trial as samplers and pruners see it."""
        if self._several and trial.intermediate_values:
            trial = copy.copy(trial)
            trial.intermediate_values = {}
        if trial.state == TrialState.RUNNING and paused(trial):
            trial = copy.copy(trial)
            trial.state = TrialState.PRUNED
        elif trial.state == TrialState.COMPLETE and OUTSIDE in trial.user_attrs:
            # a point outside the space would only shrink what samplers take for the space
            trial = copy.copy(trial)
            trial.state = TrialState.FAIL
        return trial


def all_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials as stored, with all that they reported."""
    if isinstance(study, PromotingStudy):
        return study.real_trials()
    return study.get_trials(deepcopy=False)


@dataclass(frozen=True)
class PromotionPruner(BasePruner):
    """Pauses a trial at a rung (an epoch count) unless it is in the best 1/`reduction_factor` there.

    Args:
        epochs: of a trial that is not stopped.
        min_resource: the first rung, in epochs.
        reduction_factor: each rung lies this many times later, and one of so many passes it.
        cost_share: most epochs of a study with a known number of trials, as a share of what all of them
            would take unstopped, though never fewer than three full trials take. Promotions stay
            within it; what is left when all trials are drawn trains the best paused ones to their end.
        ranking: how trials are judged; None: by the study's first objective.

    Raises:
        ValueError: a setting is out of range.
    """

    epochs: int
    min_resource: int = 1
    reduction_factor: int = 3
    cost_share: float = 0.25
    ranking: Ranking | None = None

    def __post_init__(self) -> None:
        if self.min_resource < 1 or self.reduction_factor < 2:
            raise ValueError("min_resource must be at least 1, reduction_factor at least 2")
        # a trial pauses after whole epochs
        if self.min_resource % 1 or self.reduction_factor % 1:
            raise ValueError(
                "min_resource and reduction_factor must be whole numbers, unless promote=false"
            )
        if not 0.0 <= self.cost_share <= 1.0:
            raise ValueError(f"cost_share={self.cost_share} must lie between 0 and 1")

    @property
    def rungs(self) -> list[int]:
        """Epochs at which a trial may pause."""
        found = [int(self.min_resource)]
        while found[-1] * self.reduction_factor < self.epochs:
            found.append(found[-1] * int(self.reduction_factor))
        return [rung for rung in found if rung < self.epochs]

    def order(self, trials: Sequence[FrozenTrial], rung: int, ranking: Ranking) -> list[int]:
        """Numbers of the trials that have been at `rung` (in epochs) and did not fail, the best first."""
        here = [t for t in trials if rung in t.intermediate_values and t.state != TrialState.FAIL]
        return [here[i].number for i in ranking.order(here, [rung] * len(here))]

    def passing(self, trials: Sequence[FrozenTrial], rung: int, ranking: Ranking) -> list[int]:
        """Numbers of the trials that may go on beyond `rung`, the best first."""
        order = self.order(trials, rung, ranking)
        return order[: len(order) // int(self.reduction_factor)]

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial pauses here."""
        step = trial.last_step
        if step not in self.rungs:
            return False
        ranking = self.ranking or Ranking.of(study)
        return trial.number not in self.passing(all_trials(study), step, ranking)


@dataclass(frozen=True)
class Promoter:
    """Chooses the paused trial that goes on next.

    Args:
        pruner: its settings.
        budget: of the study.
        trials: how many are drawn at most (a grid may hold fewer than the budget names); None is open.
        ranking: how trials are judged.
        lease_of: the lease of a trial by its number.
    """

    pruner: PromotionPruner
    budget: Budget
    trials: int | None
    ranking: Ranking
    lease_of: Callable[[int], Lease | None]

    def affords(self, trials: Sequence[FrozenTrial], rung: int, number: int) -> bool:
        """Whether the share lets the running trial `number`, which has just reached `rung`, go on."""
        others = [t for t in trials if t.number != number]
        # it is drawn already, though not among the others
        room = self._room(others, drawn=1) - rung
        return self._stretch(trials, rung) <= room

    def promotable(self, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
        """A paused trial that is now among the best of its rung; of the highest rung first."""
        waiting = {t.number: t for t in _waiting(trials)}
        room = self._room(trials) if waiting else 0.0
        for rung in reversed(self.pruner.rungs if waiting else []):
            if self._stretch(trials, rung) > room:
                continue
            for number in self.pruner.passing(trials, rung, self.ranking):
                found = waiting.get(number)
                if found is not None and found.last_step == rung:
                    return found
        return None

    def _room(self, trials: Sequence[FrozenTrial], drawn: int = 0) -> float:
        """Epochs that the share leaves beside what `trials` and those to be drawn take."""
        if self.trials is None:
            return float("inf")
        drawn += sum(t.state != TrialState.WAITING and not imported(t) for t in trials)
        to_draw = max(self.trials - drawn, 0) * self.pruner.min_resource
        return self._share() - to_draw - sum(self._planned(t)[0] for t in trials)

    def _stretch(self, trials: Sequence[FrozenTrial], rung: int) -> float:
        """Epochs from `rung` to the next; to the end where no trial gets there yet."""
        following = min(rung * self.pruner.reduction_factor, self.pruner.epochs)
        return (following if self._any_finishes(trials) else self.pruner.epochs) - rung

    def draws(self, trials: Sequence[FrozenTrial], spent: Spent) -> bool:
        """Whether new trials are still drawn, rather than paused ones trained to their end."""
        waiting = _waiting(trials)
        if not waiting:
            return True
        limits = self._limits()
        if self.trials is None and any(
            used >= _SHARE_OF_NEW_TRIALS * limit for used, limit in _used(spent, limits)
        ):
            return False
        # looked at before the waiting are put in order, which takes a second among thousands
        usable = any(self.ranking.allows(t) for t in waiting)
        if self._any_finishes(trials, usable=usable):
            return True
        first = self._best_first(waiting, trials)[0]
        if not self._needed(first, trials):
            return True
        # one trial must be able to reach its end
        need = self._need(first)
        return all(
            used + 2 * need[unit] <= limit
            for unit, (used, limit) in enumerate(_used(spent, limits))
            if limit < float("inf")
        )

    def finishing(self, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
        """The best paused trial whose remaining epochs fit into what the study may use, or None."""
        waiting = self._best_first(_waiting(trials), trials)
        if not waiting:
            return None
        if self._needed(waiting[0], trials):
            return waiting[0]
        epochs, seconds = self._limits()
        epochs = min(epochs, self._share())
        if epochs == seconds == float("inf"):
            return None
        planned = [self._planned(t) for t in trials]
        left = (epochs - sum(p[0] for p in planned), seconds - sum(p[1] for p in planned))
        for trial in waiting:
            need = self._need(trial)
            if need[0] <= left[0] and need[1] <= left[1]:
                return trial
        return None

    def _limits(self) -> tuple[float, float]:
        """Most epochs and device-seconds of the study; infinite where none is set."""
        most = self.budget.epochs, self.budget.seconds_limit
        return tuple(float("inf") if limit is None else float(limit) for limit in most)  # type: ignore[return-value]

    def _share(self) -> float:
        """Epochs that the share allows; infinite for an open number of trials."""
        if self.trials is None:
            return float("inf")
        full = max(self.pruner.cost_share * self.trials, _FULL_TRIALS)
        return full * self.pruner.epochs

    def _needed(self, first: FrozenTrial, trials: Sequence[FrozenTrial]) -> bool:
        """Whether nothing would come of the study unless `first`, the best that waits, gets to its end."""
        return not self._any_finishes(trials, usable=self.ranking.allows(first))

    def _any_finishes(self, trials: Sequence[FrozenTrial], *, usable: bool = False) -> bool:
        """Whether a trial has reached its end, or is on a way there without another pause.

        The user's own configuration always does: with it alone at its end nothing could have beaten it.

        Args:
            trials: of the study.
            usable: one that ended beyond the constraints does not count, as it is no result.
        """
        others = [t for t in trials if not t.user_attrs.get(IS_BASELINE)]
        ended = [t for t in others if t.state == TrialState.COMPLETE and not imported(t)]
        if any(not usable or all(gap <= 0 for gap in violations_of(t)) for t in ended):
            return True
        running = [t for t in others if t.state == TrialState.RUNNING and not paused(t)]
        leases = [self.lease_of(t.number) for t in running]
        last = max(self.pruner.rungs, default=0)
        return any(lease and (lease.to_the_end or lease.epochs >= last) for lease in leases)

    def _best_first(
        self, waiting: Sequence[FrozenTrial], trials: Sequence[FrozenTrial]
    ) -> list[FrozenTrial]:
        """The waiting trials, each pair as it stood, among all trials, at the last rung that both reached."""
        places: dict[int, dict[int, int]] = {}
        for rung in self.pruner.rungs if len(waiting) > 1 else ():
            order = self.pruner.order(trials, rung, self.ranking)
            places[rung] = {number: place for place, number in enumerate(order)}

        def compare(one: FrozenTrial, other: FrozenTrial) -> int:
            for there in reversed(places.values()):
                if one.number in there and other.number in there:
                    return there[one.number] - there[other.number]
            return one.number - other.number

        return sorted(waiting, key=cmp_to_key(compare))

    def _need(self, trial: FrozenTrial) -> tuple[float, float]:
        """Epochs and (from its pace so far) device-seconds that the trial still takes."""
        lease = self.lease_of(trial.number) or Lease()
        left = max(self.pruner.epochs - lease.epochs, 0)
        return float(left), left * lease.seconds / max(lease.epochs, 1)

    def _planned(self, trial: FrozenTrial) -> tuple[float, float]:
        """What the trial has used, and will use until it ends or may pause."""
        spent = spent_by([trial], self.lease_of)
        lease = None if trial.state.is_finished() else self.lease_of(trial.number)
        if lease is None or paused(trial):
            return float(spent.epochs), spent.device_seconds
        stops = [rung for rung in self.pruner.rungs if rung > lease.epochs and not lease.to_the_end]
        epochs = float(max(min(stops, default=self.pruner.epochs), lease.epochs))
        return epochs, lease.seconds * epochs / max(lease.epochs, 1)


def _waiting(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [t for t in trials if t.state == TrialState.RUNNING and paused(t)]


def _used(spent: Spent, limits: tuple[float, float]) -> list[tuple[float, float]]:
    return list(zip((float(spent.epochs), spent.device_seconds), limits, strict=True))


def promoter_of(
    study: optuna.Study, budget: Budget, trials: int | None, lease_of: Callable[[int], Lease | None]
) -> Promoter | None:
    """The promoter of a study whose pruner pauses trials; None for any other."""
    pruner = study.pruner
    if not isinstance(pruner, PromotionPruner):
        return None
    return Promoter(pruner, budget, trials, pruner.ranking or Ranking.of(study), lease_of)
