"""One step of a plan as a study: the user's own configuration first, then the proposals, several at once."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from darts_core.autosearch.costs import seconds_of
from darts_core.autosearch.elsewhere import JobThere, ScriptTrials
from darts_core.autosearch.known_rows import left_behind, template
from darts_core.autosearch.networks import WEIGHTS
from darts_core.autosearch.script_runner import ScriptRunner
from darts_core.autosearch.spec import SearchSpec
from darts_core.autosearch.step import Step
from darts_core.autosearch.study_spec import budget_of, study_of
from darts_core.autosearch.trials import Row, StopWanted, Workshop, trial_id
from darts_core.errors import JobError, TuneError
from darts_core.store.code import model_file
from darts_core.study.accounts import imported
from darts_core.study.engines import Elsewhere, run_trials
from darts_core.study.judge import doubts
from darts_core.study.ledger import Ledger
from darts_core.study.propose import point_key
from darts_core.study.pruners import make_pruner, rungs_of
from darts_core.study.records import TrialRecord
from darts_core.study.results import (
    best_row,
    read_rows,
    row_values,
    search_rows,
    trials_folder,
)
from darts_core.study.spec import StudySpec
from darts_core.study.study import open_study
from darts_core.study.worker import work

__all__ = ["Search", "prune_models", "warn"]

_POLL_SECONDS = 0.02

log = logging.getLogger("darts_core")


class Search(Step):
    """A step in which an algorithm proposes settings."""

    def __init__(self, spec: SearchSpec, workshop: Workshop, **options: Any) -> None:
        super().__init__(spec, workshop, **options)
        self.note = ""
        self._ending = threading.Lock()

    @property
    def rows(self) -> list[Row]:
        """The ended trials of this step."""
        rows = self.workshop.known_rows(self.step)
        return [r for r in rows if r.get("done") and r["state"] != "cancelled"]

    def run(self) -> Row | None:
        """Run the step to its end; returns the best trial's row, or None when none was usable.

        Raises:
            StopWanted: a stop was asked for.
            JobError: the user's code fails always.
        """
        account = self.workshop.account
        self._forget_a_journal_that_knows_more()
        ledger = open_study(self._study(), known=self._known_trials())
        if self.first is not None and not any(r["number"] == 0 for r in self.rows):
            # trial 0 runs alone: its time is the unit of cost
            self._work(ledger.spec, workers=1, limit=1)
            warn(self.rows, self.goals)
        self._measure_unit()
        account.spent_seconds = account.spent_before + sum(map(seconds_of, self.rows))
        if self._trials() > 0:
            self._work(self._study(), workers=self._at_once())
            self.note = Ledger(self._study()).ended() or ""
            if self.note and "trials is spent" not in self.note:
                log.info("%s: %s", self.step, self.note)
        account.spent_before += sum(map(seconds_of, self.rows))
        account.spent_seconds = account.spent_before
        return best_row([*self.known, *self.rows], self.goals)

    def _forget_a_journal_that_knows_more(self) -> None:
        """Begin the books anew from the rows where a trial that they call ended has lost its result: the
        trials' folders are the truth, and that trial is run again.
        """
        study = self._study()
        if not study.folder.is_dir():
            return
        trials = [t for t in Ledger(study).trials() if t.state.is_finished() and not imported(t)]
        lost = sorted({t.number for t in trials} - {row["number"] for row in self.rows})
        if lost:
            log.warning("%s: the result of trial %s is lost; it is run again", self.step, lost[0])
            shutil.rmtree(study.folder)

    def _study(self) -> StudySpec:
        return study_of(
            self.spec,
            budget_of(self.spec, max(1, self._trials()), self.workshop.account),
            folder=self.workshop.version / "autosearch" / "studies" / self.step,
            trials_folder=trials_folder(self.workshop.version),
            # a worker elsewhere is sent it
            trial_name=partial(trial_id, self.workshop.mark, self.step, "search", self.spec.seed),
            first=self.first,
            is_baseline=self.is_baseline,
            proven=self._proven(),
        )

    def _proven(self) -> bool:
        """Whether a trial of another step succeeded: the code works, and what fails here are settings."""
        rows = search_rows(read_rows(self.workshop.version))
        return any(row.get("step") != self.step and row["state"] == "done" for row in rows)

    def _known_trials(self) -> list[Any]:
        """What the study's journal does not know: the starting point, and trials of before journals."""
        found = [template(row, self.spec, self.workshop.version, known=True) for row in self.known]
        return [
            *found,
            *left_behind(self.workshop.known_rows(self.step), self.spec, self.workshop.version),
        ]

    def _trials(self) -> int:
        """All trials of the step, trial 0 included. A finite space holds trial 0's own point already."""
        first, points = int(self.first is not None), self.spec.points
        if points is None:
            return first + self.spec.num_samples
        starts = [row["config"] for row in self.known] + ([self.first] if self.first else [])
        inside = {point_key(self._own(start)) for start in starts if self.spec.contains(start)}
        return first + min(self.spec.trial_count(), points - len(inside))

    def _own(self, configuration: Row) -> Row:
        """The part of a configuration that this search decides."""
        return {d.name: configuration.get(d.name) for d in self.spec.dimensions}

    def _measure_unit(self) -> None:
        account = self.workshop.account
        rows = self.rows if not account.unit_seconds else []
        for row in rows:
            if row.get("is_baseline") and row["state"] in ("done", "stopped"):
                account.unit_seconds = float(row["time_total_s"])
                left = self._trials() - len(rows)
                log.info(
                    "one training takes %.1f s; at most %d more trials in this step",
                    account.unit_seconds,
                    left,
                )
        if self.is_baseline and self.spec.limits.trainings and not account.unit_seconds:
            log.warning(
                "the budget of %g trainings does not count: the trial of your own configuration did not end "
                "well, so nobody knows what a training takes; a budget of minutes counts all the same",
                self.spec.limits.trainings,
            )

    def _at_once(self) -> int:
        """How many trials run at a time; said where the budget makes them fewer than was asked for."""
        most = self.spec.at_once(self.workshop.account.trainings())
        # a step that is done, as in a job that goes on, runs none
        if most < min(self.spec.max_concurrent, self._trials() - len(self.rows)):
            log.info(
                "%s: trials run %d at a time, not %d, so that the budget of %g trainings does not end all of "
                "them half-way",
                self.step,
                most,
                self.spec.max_concurrent,
                self.spec.limits.trainings,
            )
        return most

    def _work(self, study: StudySpec, *, workers: int, limit: int | None = None) -> None:
        """Run trials in as many threads as run at once; each thread looks after one process tree."""
        if self.workshop.place is not None:
            self._work_elsewhere(study, self.workshop.place, workers, limit)
            return
        errors: list[BaseException] = []

        def worker() -> None:
            runner = ScriptRunner(
                self.spec, self.workshop, step=self.step, fixed=self.fixed, rungs=_rungs(study)
            )
            try:
                work(study, runner, on_trial=self._ended, limit=limit, say=False)
            except BaseException as error:  # raised again below, in the thread that waits
                errors.append(error)
                self.workshop.aborted.set()

        threads = [threading.Thread(target=worker, name=f"trials-{i}") for i in range(workers)]
        try:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                self.workshop.tick()
                time.sleep(_POLL_SECONDS)
        finally:
            # after Ctrl-C too: whoever still runs ends its trial and lets go of it
            self.workshop.aborted.set()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            self.workshop.aborted.clear()
        self._raise(errors)

    def _work_elsewhere(
        self, study: StudySpec, place: Elsewhere, workers: int, limit: int | None
    ) -> None:
        """Run trials on the nodes of a cluster, each as the job's own machine would."""
        if limit is not None:
            study = replace(study, budget=replace(study.budget, trials=limit))
        job = JobThere.of(self.workshop, place)
        trials = ScriptTrials(job, self.spec, self.step, self.fixed, tuple(_rungs(study)))
        ended, look = self._ended, self.workshop.look
        try:
            # makes its own runner, in the place of an objective
            objective: Any = trials
            run_trials(Ledger(study), objective, workers, place, on_trial=ended, look=look)
        except TuneError as error:
            self._raise([error])

    def _raise(self, errors: Sequence[BaseException]) -> None:
        """The error that ended the step; what the other workers say of the stop is its consequence."""
        for error in sorted(errors, key=lambda e: isinstance(e, StopWanted)):
            if isinstance(error, TuneError):
                rows = self.rows
                failed = [row for row in rows if row["state"] == "failed"]
                folder = (
                    trials_folder(self.workshop.version) / failed[-1]["trial_id"]
                    if failed
                    else None
                )
                more = f"; see {folder / 'log.txt'}" if folder else ""
                # a resumed version would end at once with the same sentence
                anew = " They stay counted: mend the cause, then make another version (jobs new-version)."
                hint = anew if failed and len(failed) == len(rows) else ""
                raise JobError(f"{str(error).rstrip('.')}{more}.{hint}") from error
            raise error

    def _ended(self, record: TrialRecord) -> None:
        if self.spec.save_model_count is not None:
            with self._ending:
                prune_models(self.workshop, self.rows, self.goals, self.spec.save_model_count)


def _rungs(study: StudySpec) -> list[int]:
    """Iterations after which a trial waits for the decision."""
    return list(rungs_of(make_pruner(study.pruner, epochs=study.budget.epochs_per_trial)))


def warn(rows: Sequence[Row], goals: Sequence[Row]) -> None:
    """Say after trial 0, before the budget is spent, that its figures mean nothing, if so."""
    done = [row for row in rows if row["state"] == "done"]
    doubt = doubts(done, done[0] if done else None, goals)
    if doubt:
        log.warning("after trial 0: %s The search goes on; stop it with jobs stop.", doubt)


def prune_models(workshop: Workshop, rows: Sequence[Row], goals: Sequence[Row], keep: int) -> None:
    """Delete reported model files of all but the `keep` best trials.

    Only what really lies in the trial's own output folder is touched.
    """
    left = [row for row in rows if row_values(row, goals) is not None]
    best: set[str] = set()
    while left and len(best) < keep:
        row = best_row(left, goals)
        if row is None:
            break
        best.add(row["trial_id"])
        left = [r for r in left if r["trial_id"] != row["trial_id"]]
    for row in rows:
        if row["trial_id"] in best:
            continue
        folder = trials_folder(workshop.version) / row["trial_id"]
        (folder / WEIGHTS).unlink(missing_ok=True)
        path = model_file(folder, row.get("model_path"))
        if path is None:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
