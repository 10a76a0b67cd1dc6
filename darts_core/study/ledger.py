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

import contextlib
import logging
import time
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from darts_core.errors import TuneError
from darts_core.runlog import write_yaml
from darts_core.study import records
from darts_core.study.accounts import Tally
from darts_core.study.artifacts import artifacts_of, kept_as
from darts_core.study.budget import Spent
from darts_core.study.claim import Claim
from darts_core.study.early import EarlyStopping
from darts_core.study.ending import read_ending, write_ending
from darts_core.study.lease import FileLeases, Lease, Leases, LeaseWatch, StoredLeases
from darts_core.study.optuna_private import numbered, set_attr, taken_up, told
from darts_core.study.promotion import PromotingStudy, promoter_of
from darts_core.study.propose import propose
from darts_core.study.pruners import make_pruner
from darts_core.study.records import IS_BASELINE, OUTSIDE, TrialRecord, meets, paused, record_of
from darts_core.study.samplers import Drawing, grid_size, make_sampler
from darts_core.study.space import suggest
from darts_core.study.spec import StudySpec
from darts_core.study.storage import in_books, open_storage, study_books
from darts_core.study.trial import outcome_values

__all__ = ["Ledger"]

log = logging.getLogger("darts_core")


class Ledger:
    """One worker's (or the sweeper's) access to a study."""

    def __init__(self, spec: StudySpec) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.spec = spec
        self.folder = spec.folder
        self.trials_folder = spec.trials_folder or self.folder / "trials"
        self.trials_folder.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        storage = open_storage(self.folder, spec.storage)
        self._watch = LeaseWatch(spec.stale_seconds)
        self.books = study_books(
            self.folder, spec.storage, spec.study_name, storage, self._watch.forgive
        )
        with self.books.held():
            self.study = self._open(storage)
            kept = kept_as(self.study, spec)
        self.leases: Leases = FileLeases(self.trial_folder)
        if spec.storage is not None:
            self.leases = StoredLeases(self.study)
        self._limit = self._trial_limit()
        self._promoter = promoter_of(self.study, self.spec.budget, self._limit, self.leases.read)
        self._early = EarlyStopping(spec, self.study, self._promoter, self.trials)
        self._artifacts = artifacts_of(spec.artifacts, kept)
        self._tally = Tally()
        self._tried_all = False

    def _open(self, storage: Any) -> PromotingStudy:
        pruner = make_pruner(self.spec.pruner, self.spec.ranking, self.spec.budget.epochs_per_trial)
        goals = self.spec.objectives.values()
        optuna.create_study(
            storage=storage,
            study_name=self.spec.study_name,
            directions=[optuna.study.StudyDirection[goal.upper()] for goal in goals],
            load_if_exists=True,
        )
        study = PromotingStudy(self.spec.study_name, storage, pruner=pruner)
        known = study.user_attrs.get("identity")
        if known is None:
            if self.spec.subject is not None:
                study.set_user_attr("subject", self.spec.subject)
            study.set_user_attr("identity", self.spec.identity())
        elif known != self.spec.identity():
            raise TuneError(self.spec.differs(known))
        self.spec.check_subject(study.user_attrs.get("subject"))
        return study

    def _trial_limit(self) -> int | None:
        limit = self.spec.budget.trials
        if self.spec.sampler["name"] == "grid" and not self.spec.distinct:
            # settings beside the grid, such as the user's own, take no point's place
            trials = self.study.real_trials()
            beside = [t for t in trials if OUTSIDE in t.user_attrs]
            size = grid_size(self.spec.space, trials) + len(beside)
            return size if limit is None else min(limit, size)
        return limit

    def trial_folder(self, number: int) -> Path:
        """Where a trial keeps its files."""
        name = self.spec.trial_name
        return self.trials_folder / (f"{number:04d}" if name is None else name(number))

    def trials(self) -> list[FrozenTrial]:
        """All trials as the storage has them now."""
        return self.books.run(self.study.real_trials)

    # -- claiming ---------------------------------------------------------------------------------

    def claim(self) -> Claim | None:
        """A trial to run: an interrupted one, a promoted one, a new one; None when nothing is left.

        Raises:
            TuneError: too large a share of the trials failed.
        """
        claim = self.books.run(self._claim)
        if claim is not None and claim.resumed and self._artifacts is not None:
            try:
                self._artifacts.fetch(claim.number, claim.folder)
            except BaseException:
                claim.release()
                raise
        return claim

    def _claim(self) -> Claim | None:
        with self.books.held():
            trials = self.trials()
            tally = self._tally.add(trials)
            tally.check_failures(trials, self.spec.max_failure_share, self.spec.hopeless)
            if self.spec.counts_epochs:
                tally.check_reported(self.spec.budget.epochs or 0, self.leases.read)
            left = [t for t in tally.running if not self._watch.alive(self.leases.read(t.number))]
            for frozen in left:
                taken = self._take_over(frozen)
                if taken is not None:
                    return self._start(*taken)
            if left:  # some of them may have been told
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
            number = min(tally.waiting, default=len(trials))
            if self.spec.distinct and not self._draw(number, trials):
                return None
            self.study.sampler = self._sampler(number)
            self.study.none_waits = not self.spec.distinct and not tally.waiting
            trial = self.study.ask()
            baseline = bool(trial.user_attrs.get(IS_BASELINE))
            lease = Lease(to_the_end=baseline, folder=str(self.trial_folder(trial.number)))
            self.leases.write(trial.number, lease)
        return self._start(trial, lease)

    def _draw(self, number: int, trials: list[FrozenTrial]) -> bool:
        """Enqueue a point that no trial has, unless one waits already; False when there is none."""
        waits = any(t.state == TrialState.WAITING for t in trials)
        if waits or self.spec.sampler["name"] == "grid":
            return True
        known = self.study.get_trials(deepcopy=False)
        seed = (self.spec.seed, number)
        params = propose(
            self.spec.space,
            self.study.directions,
            known,
            lambda again: self._sampler(number, again),
            seed=seed,
        )
        self._tried_all = params is None
        if params is not None:
            stored = {name: self.spec.space[name].encode(v) for name, v in params.items()}
            self.study.enqueue_trial(stored)
        return params is not None

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
        lease = (self.leases.read(found.number) or Lease()).successor()
        lease.to_the_end = to_the_end
        self.leases.write(found.number, lease)
        set_attr(self.study, found, records.PAUSED, "")
        log.info("trial %d goes on %s", found.number, "to its end" if to_the_end else "(promoted)")
        return taken_up(self.study, found), lease

    def _sampler(self, number: int, again: int = 0) -> Any:
        draw = Drawing(
            self.spec.seed,
            number,
            self.spec.space,
            self.spec.budget.trials,
            records.violations_of if self.spec.constraints else None,
            again,
        )
        return make_sampler(self.spec.sampler, draw)

    def _take_over(self, frozen: FrozenTrial) -> tuple[Trial, Lease] | None:
        """The trial of a worker that is gone, to go on with; None where it has ended, or waits."""
        old = self.leases.read(frozen.number)
        # wherever its worker wrote it
        folders = [self.trial_folder(frozen.number)]
        folders += [Path(old.folder)] if old is not None and old.folder else []
        result = read_ending(folders, frozen.number)
        if result is not None:
            self.leases.remove(frozen.number)
            self._tell(frozen.number, result)
            return None
        if paused(frozen):
            return None
        lease = old.successor() if old is not None else Lease()
        lease.to_the_end = lease.to_the_end or bool(frozen.user_attrs.get(IS_BASELINE))
        lease.folder = str(self.trial_folder(frozen.number))
        if lease.idle > self.spec.max_restarts:
            reason = f"its process died {lease.idle} times without reporting anything new"
            self._settle(frozen.number, lease, "fail", reason)
            return None
        self.leases.write(frozen.number, lease)
        log.info("trial %d was interrupted; it goes on from its checkpoint", frozen.number)
        # its worker may have gone before the sampler had settled its point
        self.study.sampler = self._sampler(frozen.number)
        return taken_up(self.study, frozen), lease

    def _start(self, trial: Trial, lease: Lease) -> Claim:
        try:
            return self._started(trial, lease)
        except BaseException:
            # a full disk, say: whoever comes next, this process too, may go on with the trial
            lease.start, lease.epochs_before = None, -1
            with contextlib.suppress(OSError):
                self.leases.write(trial.number, lease)
            raise

    def _started(self, trial: Trial, lease: Lease) -> Claim:
        attrs = trial.user_attrs
        if OUTSIDE in attrs:
            params = dict(attrs[OUTSIDE])
        else:
            self.study.sampler = self._sampler(trial.number)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                params = suggest(trial, self.spec.space)
        folder = self.trial_folder(trial.number)
        seed = self.spec.seed + trial.number
        about = {"number": trial.number, "trial_seed": seed, "params": params}
        write_yaml(folder / "config.yaml", about)
        claim = Claim(
            trial,
            folder,
            lease,
            self.leases,
            params,
            seed,
            is_baseline=bool(attrs.get(IS_BASELINE)),
            share=self.spec.device_share,
            since=time.monotonic(),
        )
        if self.spec.budget.bounds_running_trials:  # else no connection is made to ask
            claim.over = lambda: self.books.run(lambda: self.over(claim))
        claim.together = self.books.run
        return claim

    # -- while a trial runs -----------------------------------------------------------------------

    def report(self, claim: Claim, epoch: int, metrics: dict[str, float]) -> str | None:
        """Record an epoch; the reason why the trial should end here, or None.

        Raises:
            LeaseLost: another worker runs this trial now.
        """
        if self._artifacts is not None:
            claim.renew(epoch + 1)
            self._artifacts.keep(claim.number, claim.folder)

        def reported() -> str | None:
            if self._artifacts is None:
                claim.renew(epoch + 1)
            reason = self._early.reason(claim, epoch, metrics)
            if reason is not None or self._early.fully_trained(claim, epoch):
                return reason
            return self.over(claim)

        return self.books.run(reported)

    def over(self, claim: Claim) -> str | None:
        """The spent budget that ends a running trial, or None. The baseline always runs to its end."""
        if claim.is_baseline or not self.spec.budget.bounds_running_trials:
            return None
        return self.spec.budget.exhausted(self.spent(self.trials()), running=True)

    # -- ending -----------------------------------------------------------------------------------

    def complete(self, claim: Claim, outcome: Any) -> TrialRecord:
        """Record what the objective returned; a missing or NaN objective fails the trial by name."""
        try:
            values, metrics = outcome_values(outcome, self.spec.objectives)
            records.check_constrained(metrics, self.spec.constraints)
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
        if self._artifacts is not None:
            claim.renew()
            self._artifacts.keep(claim.number, claim.folder)
            self._artifacts.forget(claim.number)

        def ended() -> FrozenTrial:
            with self.books.held():
                claim.check()
                if state == "pruned" and claim.pauses:
                    set_attr(self.study, claim.trial, records.PAUSED, reason)
                    claim.release()
                    log.info("trial %d pauses, %s", claim.number, reason)
                    return numbered(self.study, claim.number)
                claim.lease.seconds = claim.seconds()
                rest = {"metrics": metrics, "values": values, "trace": trace, "row": claim.row}
                return self._settle(claim.number, claim.lease, state, reason, **rest)

        return self.record(self.books.run(ended))

    @in_books
    def end_paused(self) -> list[TrialRecord]:
        """End the trials that still wait, when nothing is left to run; the records of these."""
        with self.books.held():
            running = [t for t in self.trials() if t.state == TrialState.RUNNING]
            if not all(paused(t) for t in running):
                return []
            for trial in running:
                lease = self.leases.read(trial.number) or Lease()
                self._settle(trial.number, lease, "pruned", paused(trial))
        numbers = {trial.number for trial in running}
        return [self.record(t) for t in self.trials() if t.number in numbers]

    def _settle(
        self, number: int, lease: Lease, state: str, reason: str, **rest: Any
    ) -> FrozenTrial:
        """Close a trial with what `write_ending` takes."""
        result = write_ending(self.trial_folder(number), number, lease, state, reason, **rest)
        # in this order, so that a kill in between leaves no lease on a finished trial
        self.leases.remove(number)
        return self._tell(number, result)

    def _tell(self, number: int, result: dict[str, Any]) -> FrozenTrial:
        attrs = {
            "metrics": result["metrics"],
            "epochs": result["epochs"],
            "seconds": result["device_seconds"],
            "reason": result["reason"],
        }
        if self.spec.constraints and result["state"] == "complete":
            attrs["violations"] = meets(result["metrics"], self.spec.constraints)
        self.study.sampler = self._sampler(number)
        state = TrialState[result["state"].upper()]
        values = result["values"] if state == TrialState.COMPLETE else None
        try:
            return told(self.study, number, state, values, attrs)
        except UpdateFinishedTrialError:
            # told before, and the answer was lost with the connection
            return numbered(self.study, number)

    # -- looking ----------------------------------------------------------------------------------

    def spent(self, trials: list[FrozenTrial]) -> Spent:
        """What all trials have used, running ones included."""
        return self._tally.add(trials).spent(self.leases.read)

    def ended(self, trials: list[FrozenTrial] | None = None) -> str | None:
        """Why no further trial is started, or None."""
        return self._enough(self.spent(self.trials() if trials is None else trials))

    def _enough(self, spent: Spent) -> str | None:
        if self._limit is not None and spent.trials >= self._limit:
            return f"the budget of {self._limit} trials is spent"
        if self._tried_all:
            return "every configuration was tried"
        return self.spec.budget.exhausted(spent)

    @in_books
    def may_promote(self) -> bool:
        """Whether paused trials wait for what other workers' trials will report."""
        trials = self.trials()
        if self.spec.budget.exhausted(self.spent(trials), running=True) is not None:
            return False
        waits = [bool(paused(t)) for t in self._tally.running]
        return any(waits) and not all(waits)

    @in_books
    def unfinished(self) -> bool:
        """Whether a trial is still to be run or to be finished."""
        trials = self.trials()
        if self._tally.add(trials).running:
            return True
        return self.ended(trials) is None

    @in_books
    def held(self) -> list[int]:
        """Numbers of the trials that are left where live workers run them all, none where one can be claimed.

        Who waits here sees that a beat has stopped, and gives that lease up in the name of its worker.
        """
        if self.ended() is None:
            return []
        numbers = [t.number for t in self._tally.running]
        if all(self._watch.alive(self.leases.read(number)) for number in numbers):
            return numbers
        with self.books.held():
            self._watch.give_up(numbers, self.leases)
            return []

    def record(self, frozen: FrozenTrial) -> TrialRecord:
        """The record of a trial."""
        return record_of(frozen, self.spec.space, self.trial_folder(frozen.number))
