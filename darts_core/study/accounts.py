"""What a study's trials have used together, and whether too many of them failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from optuna.trial import FrozenTrial, TrialState

from darts_core.errors import TuneError
from darts_core.study.budget import Spent
from darts_core.study.lease import Lease

__all__ = ["check_failures", "failure_summary", "imported", "spent_by"]

# a share of fewer trials says little
_FEW = 4


def imported(trial: FrozenTrial) -> bool:
    """Whether the trial is knowledge from another study, which costs nothing here."""
    return bool(trial.user_attrs.get("imported"))


def spent_by(trials: Sequence[FrozenTrial], lease_of: Callable[[int], Lease | None]) -> Spent:
    """Trials started, epochs and device-seconds of all own trials; running ones by their lease."""
    own = [t for t in trials if t.state != TrialState.WAITING and not imported(t)]
    epochs, seconds = 0, 0.0
    for trial in own:
        if trial.state.is_finished():
            epochs += int(trial.user_attrs.get("epochs", 0))
            seconds += float(trial.user_attrs.get("seconds", 0.0))
            continue
        lease = lease_of(trial.number)
        if lease is not None:
            epochs, seconds = epochs + lease.epochs, seconds + lease.seconds
    return Spent(len(own), epochs, seconds)


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


def check_failures(
    trials: Sequence[FrozenTrial], max_share: float, hopeless: int | None = None
) -> None:
    """Stop a study in which failure is the rule.

    Raises:
        TuneError: more than `max_share` of at least four ended trials failed, or the first
            `hopeless` ones all did.
    """
    done = [t for t in trials if t.state.is_finished() and not imported(t)]
    failed = sum(t.state == TrialState.FAIL for t in done)
    if hopeless is not None and failed == len(done) >= hopeless:
        raise TuneError(f"The first {failed} trials all failed: {failure_summary(trials)}")
    if len(done) >= _FEW and failed > max_share * len(done):
        raise TuneError(
            f"{failed} of {len(done)} trials failed, more than the allowed share of {max_share:g} "
            f"(tune.max_failure_share): {failure_summary(trials)}"
        )
