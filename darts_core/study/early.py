"""Whether a running trial ends at a report: what is kept of the report, and what the pruner says.

What is kept is written before the pruner is asked, so that a kill in between leaves no judged step
without it; the books themselves are in `darts_core.study.ledger`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from optuna.trial import FrozenTrial

from darts_core.study.claim import Claim
from darts_core.study.optuna_private import set_attr, set_value, stored
from darts_core.study.promotion import Promoter, PromotingStudy
from darts_core.study.pruners import rungs_of
from darts_core.study.ranking import reported_at
from darts_core.study.spec import StudySpec

__all__ = ["EarlyStopping"]

log = logging.getLogger("darts_core")


class EarlyStopping:
    """Judges the reports of one worker's trials.

    Args:
        spec: the study's description.
        study: where reports are kept.
        promoter: of trials that pause at rungs; None where a stopped trial has ended.
        trials: all trials as the storage has them now.
    """

    def __init__(
        self,
        spec: StudySpec,
        study: PromotingStudy,
        promoter: Promoter | None,
        trials: Callable[[], list[FrozenTrial]],
    ) -> None:
        self.spec, self.study, self.promoter, self.trials = spec, study, promoter, trials
        self._said = self._said_of_rungs = False

    def reason(self, claim: Claim, epoch: int, metrics: dict[str, float]) -> str | None:
        """Keep the report after epoch `epoch` (from 0); why the trial ends or pauses here, or None."""
        ranking = self.spec.ranking
        if len(ranking.goals) > 1 and self.spec.pruner["name"] == "none":
            return None
        name = ranking.first
        if name not in metrics:
            self._missing(epoch, [name], "no trial is stopped early by such a report")
            return None
        # Optuna counts epochs done
        known = stored(self.study, claim.trial).intermediate_values
        self._passed_over(max(known, default=0), epoch)
        if epoch + 1 not in known:
            self._note(claim, known, epoch, metrics)
            set_value(self.study, claim.trial, epoch + 1, metrics[name])
        if epoch + 1 < max(known, default=0):
            return None
        if self.fully_trained(claim, epoch):
            return None
        if not claim.lease.to_the_end and self._stops(claim, epoch + 1):
            claim.pauses = self.promoter is not None
            shown = " and ".join(
                f"{name} {metrics[name]:.6g}" for name in ranking.goals if name in metrics
            )
            return f"pruned after epoch {epoch + 1} with {shown}"
        return None

    def fully_trained(self, claim: Claim, epoch: int) -> bool:
        """Whether `epoch` is the trial's last one, after its own number of epochs where that is searched.

        Nothing is left to save then: neither a rung nor a spent budget ends the trial.
        """
        own = claim.params.get(self.spec.epochs_setting or "")
        length = int(own) if isinstance(own, (int, float)) else self.spec.budget.epochs_per_trial
        return epoch + 1 == length

    def _note(
        self, claim: Claim, known: Mapping[int, float], epoch: int, metrics: Mapping[str, float]
    ) -> None:
        """Keep what objectives and constraints are judged by, at a trial's first report from a rung on.

        Before the curve's own value, so that a kill in between leaves no judged step without it.
        """
        ranking, before = self.spec.ranking, max(known, default=0)
        rungs = rungs_of(self.study.pruner)
        if ranking.plain or not any(before < rung <= epoch + 1 for rung in rungs):
            return
        noted = ranking.noted(metrics)
        lacking = [n for n in self.spec.wanted if n not in noted]
        self._missing(epoch, lacking, "trials are judged there without")
        set_attr(self.study, claim.trial, reported_at(epoch + 1), noted)

    def _missing(self, epoch: int, names: list[str], so: str) -> None:
        """Say once what reports lack to judge trials by."""
        if names and not self._said and self.spec.pruner["name"] != "none":
            self._said = True
            what = ", ".join(names)
            log.warning("the report after epoch %d holds no %s: %s", epoch + 1, what, so)

    def _passed_over(self, before: int, epoch: int) -> None:
        """Say once that a trial cannot pause at a rung that lies between two of its reports."""
        rungs = self.promoter.pruner.rungs if self.promoter is not None else ()
        passed = [rung for rung in rungs if before < rung < epoch + 1]
        if passed and not self._said_of_rungs:
            self._said_of_rungs = True
            log.warning(
                "a trial reported after epoch %d and not after %s, where asha would judge it: no trial is "
                "stopped by such reports; report each epoch, or set the pruner's min_resource and "
                "reduction_factor to the epochs that are reported, or its promote to false",
                epoch + 1,
                ", ".join(map(str, passed)),
            )

    def _stops(self, claim: Claim, epochs: int) -> bool:
        frozen = stored(self.study, claim.trial)
        if self.study.pruner.prune(self.study, frozen):
            return True
        if self.promoter is None or epochs not in self.promoter.pruner.rungs:
            return False
        return not self.promoter.affords(self.trials(), epochs, claim.number)
