"""What a study's trials have used together, and whether too many of them failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from optuna.trial import FrozenTrial, TrialState

from darts_core.errors import TuneError
from darts_core.study.budget import Spent
from darts_core.study.lease import Lease
from darts_core.study.records import PAUSED

__all__ = ["Tally", "failure_summary", "imported", "spent_by"]

# a share of fewer trials says little
_FEW = 4


def imported(trial: FrozenTrial) -> bool:
    """Whether the trial is knowledge from another study, which costs nothing here."""
    return bool(trial.user_attrs.get("imported"))


class Tally:
    """What trials add up to. A trial that has ended never changes: each is looked at once after its end."""

    def __init__(self) -> None:
        self.open: list[FrozenTrial] = []
        self.done = self.failed = 0
        self._known = self._own = self._epochs = 0
        self._seconds = 0.0

    def add(self, trials: Sequence[FrozenTrial]) -> Tally:
        """Take in a study's trials as they are now, in the order of their numbers; self."""
        again = [trials[t.number] for t in self.open]
        new, self._known = trials[self._known :], len(trials)
        self.open = []
        for trial in (*again, *new):
            if not trial.state.is_finished():
                self.open.append(trial)
            elif not imported(trial):
                self.done += 1
                self.failed += trial.state == TrialState.FAIL
                self._epochs += int(trial.user_attrs.get("epochs", 0))
                self._seconds += float(trial.user_attrs.get("seconds", 0.0))
        return self

    @property
    def waiting(self) -> list[int]:
        """Numbers of the trials that were put in to be tried next."""
        return [t.number for t in self.open if t.state == TrialState.WAITING]

    @property
    def running(self) -> list[FrozenTrial]:
        """Those that have begun and not ended."""
        return [t for t in self.open if t.state == TrialState.RUNNING]

    def spent(self, lease_of: Callable[[int], Lease | None]) -> Spent:
        """Trials started, epochs and device-seconds of all own trials; running ones by their lease."""
        running = [t for t in self.running if not imported(t)]
        leases = [lease for t in running if (lease := lease_of(t.number)) is not None]
        return Spent(
            self.done + len(running),
            self._epochs + sum(lease.epochs for lease in leases),
            self._seconds + sum(lease.seconds for lease in leases),
        )

    def check_failures(
        self,
        trials: Sequence[FrozenTrial],
        max_share: float,
        hopeless: int | None = None,
    ) -> None:
        """Stop a study in which failure is the rule.

        A trial that waits at a rung, or has gone on from one, counts as one that did not fail: most of a
        study's trials get no further, and are ended with the study alone.

        Raises:
            TuneError: more than `max_share` of at least four such and ended trials failed, or the first
                `hopeless` ones all did.
        """
        tried = self.done + sum(PAUSED in t.user_attrs for t in self.running)
        if hopeless is not None and self.failed == tried >= hopeless:
            raise TuneError(f"The first {self.failed} trials all failed: {failure_summary(trials)}")
        if tried >= _FEW and self.failed > max_share * tried:
            raise TuneError(
                f"{self.failed} of {tried} trials failed, more than max_failure_share={max_share:g} "
                f"allows: {failure_summary(trials)}. They stay counted: mend the cause, then move the "
                "study's folder away or use another version= (of a database, give another study_name)."
            )

    def check_reported(self, epochs: int, lease_of: Callable[[int], Lease | None]) -> None:
        """Stop a study that a budget of `epochs` would never end, as its trials report none.

        Reports of running trials are in their leases: the storage keeps those alone that a pruner judges.

        Raises:
            TuneError: at least four have ended without a failure, and no trial has reported an epoch.
        """
        whole = self.done - self.failed
        if whole >= _FEW and not self._epochs and not self.spent(lease_of).epochs:
            raise TuneError(
                f"The budget epochs={epochs} counts reported epochs, and none of the {whole} trials that "
                "ended without an error has reported one, so it would never be spent. Report each epoch "
                "(TrialHandle.report), or give a budget in trials or device_seconds; these trials stay "
                "counted."
            )


def spent_by(trials: Sequence[FrozenTrial], lease_of: Callable[[int], Lease | None]) -> Spent:
    """See `Tally.spent`; of any trials."""
    return Tally().add(trials).spent(lease_of)


def failure_summary(trials: Sequence[FrozenTrial]) -> str:
    """The reasons of failed trials, each with the numbers of the trials it ended."""
    reasons: dict[str, list[int]] = {}
    for trial in trials:
        if trial.state == TrialState.FAIL:
            reasons.setdefault(str(trial.user_attrs.get("reason")), []).append(trial.number)
    return "; ".join(
        f"trial{'s' if len(n) > 1 else ''} {', '.join(map(str, n))}: {reason.removesuffix('.')}"
        for reason, n in reasons.items()
    )
