"""The books of a study: who may run which trial, what it reported, how it ended. Exactly once each.

Every change of a trial's state happens under one lock of the study folder, in an order that a kill
between any two steps leaves something the next opener can finish:

* claim: ask Optuna for a trial (it is then RUNNING), write the lease. RUNNING without a live lease
  means its worker is gone: the next claim takes that trial over, under its number and in its folder.
* finish: write `result.json`, remove the lease, tell Optuna. RUNNING with a `result.json` means the
  telling is missing: the next claim does it and runs nothing.
* pause (at a rung, see `promotion`): mark the trial, give up the lease. A marked trial without a live
  lease waits: a claim may go on with it, and what still waits when nothing is left to do is ended.
"""

from __future__ import annotations

import logging
import time
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from darts_core.errors import TuneError
from darts_core.runlog import read_json, write_json, write_yaml
from darts_core.study.accounts import check_failures, spent_by
from darts_core.study.budget import Spent
from darts_core.study.claim import LEASE_FILE, Claim
from darts_core.study.lease import Lease, LeaseWatch
from darts_core.study.promotion import PAUSED, PromotingStudy, paused, promoter_of
from darts_core.study.records import TrialRecord, meets, record_of
from darts_core.study.samplers import Drawing, grid_size, make_pruner, make_sampler
from darts_core.study.space import suggest
from darts_core.study.spec import StudySpec
from darts_core.study.storage import FileLock, open_storage
from darts_core.study.trial import outcome_values

__all__ = ["Ledger"]

log = logging.getLogger("darts_core")


class Ledger:
    """One worker's (or the sweeper's) access to a study."""

    def __init__(self, spec: StudySpec) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.spec = spec
        self.folder = spec.folder
        self.trials_folder = self.folder / "trials"
        self.trials_folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / "study.lock")
        self._watch = LeaseWatch(spec.stale_seconds)
        with self._lock.held():
            self.study = self._open()
        self._limit = self._trial_limit()
        self._promoter = promoter_of(self.study, self.spec.budget, self._limit, self._lease)

    def _open(self) -> PromotingStudy:
        pruner = make_pruner(
            self.spec.pruner, len(self.spec.objectives), self.spec.budget.epochs_per_trial
        )
        goals = self.spec.objectives.values()
        storage = open_storage(self.folder, self.spec.storage)
        optuna.create_study(
            storage=storage,
            study_name=self.spec.study_name,
            directions=[optuna.study.StudyDirection[goal.upper()] for goal in goals],
            load_if_exists=True,
        )
        study = PromotingStudy(self.spec.study_name, storage, pruner=pruner)
        known = study.user_attrs.get("identity")
        if known is None:
            study.set_user_attr("identity", self.spec.identity())
        elif known != self.spec.identity():
            raise TuneError(self.spec.differs(known))
        return study

    def _trial_limit(self) -> int | None:
        limit = self.spec.budget.trials
        if self.spec.sampler["name"] == "grid":
            size = grid_size(self.spec.space)
            return size if limit is None else min(limit, size)
        return limit

    def trial_folder(self, number: int) -> Path:
        """Where a trial keeps its files."""
        return self.trials_folder / f"{number:04d}"

    def trials(self) -> list[FrozenTrial]:
        """All trials as the storage has them now."""
        return self.study.real_trials()

    def _lease(self, number: int) -> Lease | None:
        return Lease.read(self._lease_path(number))

    # -- claiming ---------------------------------------------------------------------------------

    def claim(self) -> Claim | None:
        """A trial to run: an interrupted one, a promoted one, a new one; None when nothing is left.

        Raises:
            TuneError: too large a share of the trials failed.
        """
        with self._lock.held():
            trials = self.trials()
            check_failures(trials, self.spec.max_failure_share)
            for frozen in trials:
                if frozen.state == TrialState.RUNNING:
                    taken = self._take_over(frozen)
                    if taken is not None:
                        return self._start(*taken)
            trials = self.trials()
            spent = self.spent(trials)
            if self.spec.budget.exhausted(spent, running=True) is not None:
                return None
            taken = self._promoted(trials, spent)
            if taken is not None:
                return self._start(*taken)
            if self._enough(spent) is not None:
                return None
            # grid and fixed parameters are settled by the sampler that is set while asking
            self.study.sampler = self._sampler(self._next_number(trials))
            trial = self.study.ask()
            lease = Lease()
            lease.write(self._lease_path(trial.number))
        return self._start(trial, lease)

    def _promoted(self, trials: list[FrozenTrial], spent: Spent) -> tuple[Trial, Lease] | None:
        """A paused trial that goes on: beyond its rung, or to its end when no new one is drawn."""
        if self._promoter is None:
            return None
        found, to_the_end = self._promoter.promotable(trials), False
        if found is None:
            if self._enough(spent) is None and self._promoter.draws(trials, spent):
                return None
            found, to_the_end = self._promoter.finishing(trials), True
        if found is None:
            return None
        lease = (self._lease(found.number) or Lease()).successor()
        lease.to_the_end = to_the_end
        lease.write(self._lease_path(found.number))
        self.study._storage.set_trial_user_attr(found._trial_id, PAUSED, "")
        log.info("trial %d goes on %s", found.number, "to its end" if to_the_end else "(promoted)")
        return Trial(self.study, found._trial_id), lease

    def _next_number(self, trials: list[FrozenTrial]) -> int:
        waiting = [t.number for t in trials if t.state == TrialState.WAITING]
        return min(waiting, default=len(trials))

    def _sampler(self, number: int) -> Any:
        draw = Drawing(
            self.spec.seed,
            number,
            self.spec.space,
            self.spec.budget.trials,
            _violations if self.spec.constraints else None,
        )
        return make_sampler(self.spec.sampler, draw)

    def _take_over(self, frozen: FrozenTrial) -> tuple[Trial, Lease] | None:
        path = self._lease_path(frozen.number)
        old = Lease.read(path)
        if self._watch.alive(old):
            return None
        result = self.trial_folder(frozen.number) / "result.json"
        if result.is_file():
            path.unlink(missing_ok=True)
            self._tell(frozen.number, read_json(result))
            return None
        if paused(frozen):
            return None
        lease = old.successor() if old is not None else Lease()
        if lease.idle > self.spec.max_restarts:
            reason = f"its process died {lease.idle} times without reporting anything new"
            self._settle(frozen.number, lease, "fail", reason, {}, None)
            return None
        lease.write(path)
        log.info("trial %d was interrupted; it goes on from its checkpoint", frozen.number)
        return Trial(self.study, frozen._trial_id), lease

    def _start(self, trial: Trial, lease: Lease) -> Claim:
        self.study.sampler = self._sampler(trial.number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            params = suggest(trial, self.spec.space)
        folder = self.trial_folder(trial.number)
        seed = self.spec.seed + trial.number
        about = {"number": trial.number, "trial_seed": seed, "params": params}
        write_yaml(folder / "config.yaml", about)
        return Claim(trial, folder, lease, params, seed, time.monotonic())

    def _lease_path(self, number: int) -> Path:
        return self.trial_folder(number) / LEASE_FILE

    # -- while a trial runs -----------------------------------------------------------------------

    def report(self, claim: Claim, epoch: int, metrics: dict[str, float]) -> str | None:
        """Record an epoch; the reason why the trial should end here, or None.

        Raises:
            LeaseLost: another worker runs this trial now.
        """
        claim.renew(epoch + 1)
        reason = self._pruned(claim, epoch, metrics)
        if reason is None and self.spec.budget.bounds_running_trials:
            reason = self.spec.budget.exhausted(self.spent(self.trials()), running=True)
        return reason

    def _pruned(self, claim: Claim, epoch: int, metrics: dict[str, float]) -> str | None:
        if len(self.spec.objectives) > 1:
            return None
        name = next(iter(self.spec.objectives))
        if name not in metrics:
            return None
        # Optuna counts epochs done, and ignores (with a warning) a step reported twice
        known = self.study._storage.get_trial(claim.trial._trial_id).intermediate_values
        if epoch + 1 not in known:
            claim.trial.report(metrics[name], epoch + 1)
        if epoch + 1 < max(known, default=0):
            return None
        if epoch + 1 == self.spec.budget.epochs_per_trial:
            # nothing is left to save: what is fully trained counts as such, also on a rung
            return None
        if not claim.lease.to_the_end and self._stops(claim, epoch + 1):
            claim.pauses = self._promoter is not None
            return f"pruned after epoch {epoch + 1} with {name} {metrics[name]:.6g}"
        return None

    def _stops(self, claim: Claim, epochs: int) -> bool:
        if claim.trial.should_prune():
            return True
        if self._promoter is None or epochs not in self._promoter.pruner.rungs:
            return False
        return not self._promoter.affords(self.trials(), epochs, claim.number)

    # -- ending -----------------------------------------------------------------------------------

    def complete(self, claim: Claim, outcome: Any) -> TrialRecord:
        """Record what the objective returned; a missing or NaN objective fails the trial by name."""
        try:
            values, metrics = outcome_values(outcome, self.spec.objectives)
            meets(metrics, self.spec.constraints)
        except TuneError as error:
            return self.end(claim, "fail", str(error))
        return self.end(claim, "complete", "finished", metrics, values)

    def end(
        self,
        claim: Claim,
        state: str,
        reason: str,
        metrics: dict[str, float] | None = None,
        values: list[float] | None = None,
        trace: str | None = None,
    ) -> TrialRecord:
        """Close a claimed trial in `state` (complete, pruned, fail); a pausing one waits instead.

        Raises:
            LeaseLost: another worker runs this trial now.
        """
        with self._lock.held():
            claim.renew()
            if state == "pruned" and claim.pauses:
                self.study._storage.set_trial_user_attr(claim.trial._trial_id, PAUSED, reason)
                claim.release()
                log.info("trial %d pauses, %s", claim.number, reason)
                return self.record(self.trials()[claim.number])
            claim.lease.seconds = claim.seconds()
            self._settle(claim.number, claim.lease, state, reason, metrics or {}, values, trace)
        return self.record(self.trials()[claim.number])

    def end_paused(self) -> list[TrialRecord]:
        """End the trials that still wait, when nothing is left to run; the records of these."""
        with self._lock.held():
            running = [t for t in self.trials() if t.state == TrialState.RUNNING]
            if not all(paused(t) for t in running):
                return []
            for trial in running:
                lease = self._lease(trial.number) or Lease()
                self._settle(trial.number, lease, "pruned", paused(trial), {}, None)
        numbers = {trial.number for trial in running}
        return [self.record(t) for t in self.trials() if t.number in numbers]

    def _settle(
        self,
        number: int,
        lease: Lease,
        state: str,
        reason: str,
        metrics: dict[str, float],
        values: list[float] | None,
        trace: str | None = None,
    ) -> None:
        result = {
            "schema_version": 1,
            "number": number,
            "state": state,
            "reason": reason,
            "metrics": metrics,
            "values": values,
            "epochs": lease.epochs,
            "device_seconds": lease.seconds,
            "attempts": lease.attempt,
            "traceback": trace,
        }
        write_json(self.trial_folder(number) / "result.json", result)
        # in this order, so that a kill in between leaves no lease on a finished trial
        self._lease_path(number).unlink(missing_ok=True)
        self._tell(number, result)

    def _tell(self, number: int, result: dict[str, Any]) -> None:
        frozen = self.trials()[number]
        storage = self.study._storage
        attrs = {
            "metrics": result["metrics"],
            "epochs": result["epochs"],
            "seconds": result["device_seconds"],
            "reason": result["reason"],
        }
        if self.spec.constraints and result["state"] == "complete":
            attrs["violations"] = meets(result["metrics"], self.spec.constraints)
        for key, value in attrs.items():
            storage.set_trial_user_attr(frozen._trial_id, key, value)
        self.study.sampler = self._sampler(number)
        state = TrialState[result["state"].upper()]
        values = result["values"] if state == TrialState.COMPLETE else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.study.tell(number, values, state=state)

    # -- looking ----------------------------------------------------------------------------------

    def spent(self, trials: list[FrozenTrial]) -> Spent:
        """What all trials have used, running ones included."""
        return spent_by(trials, self._lease)

    def ended(self, trials: list[FrozenTrial]) -> str | None:
        """Why no further trial is started, or None."""
        return self._enough(self.spent(trials))

    def _enough(self, spent: Spent) -> str | None:
        if self._limit is not None and spent.trials >= self._limit:
            return f"the budget of {self._limit} trials is spent"
        return self.spec.budget.exhausted(spent)

    def may_promote(self) -> bool:
        """Whether paused trials wait for what other workers' trials will report."""
        trials = self.trials()
        if self.spec.budget.exhausted(self.spent(trials), running=True) is not None:
            return False
        waits = [bool(paused(t)) for t in trials if t.state == TrialState.RUNNING]
        return any(waits) and not all(waits)

    def unfinished(self) -> bool:
        """Whether a trial is still to be run or to be finished."""
        trials = self.trials()
        if any(t.state == TrialState.RUNNING for t in trials):
            return True
        return self.ended(trials) is None

    def record(self, frozen: FrozenTrial) -> TrialRecord:
        """The record of a trial."""
        feasible = all(v <= 0 for v in frozen.user_attrs.get("violations", ()))
        folder = self.trial_folder(frozen.number)
        return record_of(frozen, self.spec.space, folder, feasible)


def _violations(trial: FrozenTrial) -> list[float]:
    return list(trial.user_attrs.get("violations", [0.0]))
