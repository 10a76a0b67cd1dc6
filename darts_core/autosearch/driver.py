"""One search: ask the algorithm, run trials, let the scheduler stop some, tell the results back."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from darts_core.autosearch.algorithms import create_algorithm, key
from darts_core.autosearch.ledger import seconds_of
from darts_core.autosearch.process import BY_COMMAND, TrialProcess
from darts_core.autosearch.reports import Metrics, ReportReader
from darts_core.autosearch.schedulers import create_scheduler
from darts_core.autosearch.spec import SearchSpec
from darts_core.autosearch.trials import StopWanted, Workshop
from darts_core.errors import JobError
from darts_core.store.code import model_file
from darts_core.study.results import best_row, row_values

__all__ = ["Search", "prune_models"]

_POLL_SECONDS = 0.02
_HOPELESS = 3  # this many failed trials with no success: the code is broken, not the settings
log = logging.getLogger("darts_core")

Row = dict[str, Any]


class Search:
    """One step of a plan.

    Args:
        spec: what to search.
        workshop: where trials run.
        fixed: settings found by earlier steps, given to every trial.
        step: the step's name in rows.
        first: the configuration to run before all proposals (trial 0), if any.
        is_hers: whether `first` is the user's own configuration, the baseline of the whole job.
        known: rows of an earlier step that belong to this space too (its starting point).
    """

    def __init__(
        self,
        spec: SearchSpec,
        workshop: Workshop,
        *,
        fixed: dict[str, Any] | None = None,
        step: str | None = None,
        first: dict[str, Any] | None = None,
        is_hers: bool = False,
        known: Sequence[Row] = (),
    ) -> None:
        self.spec = spec
        self.workshop = workshop
        self.fixed = dict(fixed or {})
        self.step = step or spec.name
        self.first = first
        self.is_hers = is_hers
        self.known = list(known)
        self.goals = [asdict(o) for o in spec.objectives]
        self.rows: list[Row] = []
        self.note = ""
        self._scheduler = create_scheduler(spec)
        self._tickets: dict[str, Any] = {}
        self._retried: dict[str, int] = {}

    def run(self) -> Row | None:
        """Run the search to its end; returns the best trial's row, or None when none was usable.

        Raises:
            StopWanted: a stop was asked for.
            JobError: the user's code fails always.
        """
        cut_off = self._resume()
        salt = len(self.rows)
        self._algorithm = create_algorithm(self.spec, salt=salt)
        for row in [*self.known, *self.rows]:
            self._algorithm.load(row["config"], row_values(row, self.goals))
            self._remember(row)
        for row in cut_off:
            # same folder, same checkpoint: the trial goes on where it was cut off
            self._launch(row["number"], row["config"], bool(row.get("is_baseline")), None)
        if self.first is not None and not any(r["number"] == 0 for r in [*self.rows, *cut_off]):
            self._launch(0, {**self.fixed, **self.first}, self.is_hers, None)
        # trial 0 runs alone: its time is the unit of cost
        while any(p.record.get("is_baseline") for p in self.workshop.running):
            self._turn()
        self._measure_unit()
        while self._may_launch() or self.workshop.running:
            while self._may_launch() and self._propose():
                pass
            if not self.workshop.running:
                break
            self._turn()
        return best_row([*self.known, *self.rows], self.goals)

    def _resume(self) -> list[Row]:
        """Take finished rows of an earlier run; returns the ones that were cut off."""
        cut_off = []
        for row in self.workshop.known_rows(self.step):
            if row.get("done") and row["state"] != "cancelled":
                self.rows.append(row)
                self.workshop.ledger.spent_seconds += seconds_of(row)
            else:
                cut_off.append(row)
        return cut_off

    def _measure_unit(self) -> None:
        ledger = self.workshop.ledger
        for row in self.rows:
            if (
                row.get("is_baseline")
                and row["state"] in ("done", "stopped")
                and not ledger.unit_seconds
            ):
                ledger.unit_seconds = float(row["time_total_s"])
                log.info(
                    "one training takes %.1f s; at most %d more trials, about %.1f trainings",
                    ledger.unit_seconds,
                    self._left(),
                    1.0 + self._left(),
                )

    def _left(self) -> int:
        asked = [r["number"] for r in self.rows]
        asked += [p.record["number"] for p in self.workshop.running]
        return max(0, self._wanted() - sum(number > 0 for number in asked))

    def _wanted(self) -> int:
        """Proposals to run besides trial 0. A finite space holds trial 0's own point already."""
        points = self.spec.points
        if points is None:
            return self.spec.num_samples
        starts = [row["config"] for row in self.known] + ([self.first] if self.first else [])
        inside = {key(start) for start in map(self._own, starts) if self.spec.contains(start)}
        return min(self.spec.trial_count(), points - len(inside))

    def _own(self, configuration: Row) -> Row:
        """The part of a configuration that this search decides."""
        return {d.name: configuration.get(d.name) for d in self.spec.dimensions}

    def _may_launch(self) -> bool:
        if self.note or self._left() <= 0 or len(self.workshop.running) >= self.spec.max_concurrent:
            return False
        spent = self.workshop.ledger.exhausted(self.spec, self.workshop.running_seconds())
        if spent:
            self.note = spent
            log.info("%s: %s", self.step, spent)
        return not spent

    def _propose(self) -> bool:
        asked = self._algorithm.ask()
        if asked is None:
            self.note = "every configuration was tried"
            return False
        ticket, configuration = asked
        taken = [r["number"] for r in self.rows] + [
            p.record["number"] for p in self.workshop.running
        ]
        number = max([*taken, 0]) + 1
        self._launch(number, {**self.fixed, **configuration}, False, ticket)
        return True

    def _launch(self, number: int, configuration: Row, is_baseline: bool, ticket: Any) -> None:
        process = self.workshop.start(
            self.spec,
            number,
            configuration,
            step=self.step,
            is_baseline=is_baseline,
            decisions=[] if is_baseline else list(self._scheduler.decision_points),
        )
        if ticket is not None:
            self._tickets[process.record["trial_id"]] = ticket

    def _turn(self) -> None:
        """One round over the running trials."""
        if self.workshop.stop_wanted():
            self.workshop.end_all(self.spec, "the job was stopped")
            raise StopWanted
        over = self.workshop.ledger.exhausted(self.spec, self.workshop.running_seconds())
        for process in list(self.workshop.running):
            self._look_after(process)
            if over and not process.record.get("is_baseline"):
                process.end_now("stopped", over)
            if process.outcome is not None:
                self._collect(process)
        time.sleep(_POLL_SECONDS)

    def _look_after(self, process: TrialProcess) -> None:
        trial_id = process.record["trial_id"]
        for iteration, metrics in process.poll()["iterations"]:
            log.debug("trial %s iteration %d: %s", trial_id, iteration, metrics)
            bad = self._decide(trial_id, iteration, metrics)
            # trial 0 is the measure of all others and always runs to its end
            if bad and not process.record.get("is_baseline"):
                process.ask_to_stop("stopped", f"early: not good enough at iteration {iteration}")
            if iteration in self._scheduler.decision_points:
                (process.folder / "decided").write_text(str(iteration), encoding="utf-8")
        command = process.folder / "stop"
        if command.exists() and process.outcome is None:
            process.ask_to_stop("stopped", BY_COMMAND)

    def _decide(self, trial_id: str, iteration: int, metrics: Metrics) -> bool:
        """Tell the scheduler an iteration; whether the trial should end."""
        goal = self.spec.objectives[0]
        if goal.metric not in metrics:
            return False
        value = metrics[goal.metric]
        # a value that is no number (NaN) is worse than any
        score = -math.inf
        if value is not None:
            score = value if goal.mode == "max" else -value
        return self._scheduler.decide(trial_id, iteration, score)

    def _remember(self, row: Row) -> None:
        """Tell the scheduler the iterations of a trial of an earlier start or step."""
        folder = self.workshop.version / "autosearch" / "trials" / row["trial_id"]
        for iteration, metrics in ReportReader(folder / "reports.jsonl").new_iterations():
            self._decide(row["trial_id"], iteration, metrics)

    def _collect(self, process: TrialProcess) -> None:
        trial_id = process.record["trial_id"]
        row = self.workshop.collect(self.spec, process)
        retry = self._retried.get(trial_id, 0)
        if row["state"] == "failed" and retry < self.spec.limits.retries:
            self._retried[trial_id] = retry + 1
            log.info(
                "trial %s is tried again (%d of %d)", trial_id, retry + 1, self.spec.limits.retries
            )
            ticket = self._tickets.pop(trial_id, None)
            self._launch(row["number"], row["config"], bool(row.get("is_baseline")), ticket)
            return
        self.rows.append(row)
        values = row_values(row, self.goals)
        ticket = self._tickets.pop(trial_id, None)
        if ticket is not None:
            self._algorithm.tell(ticket, values)
        else:
            self._algorithm.load(row["config"], values)
        if self.spec.save_model_count is not None:
            prune_models(self.workshop, self.rows, self.goals, self.spec.save_model_count)
        failed = [r for r in self.rows if r["state"] == "failed"]
        if len(failed) >= _HOPELESS and len(failed) == len(self.rows):
            self.workshop.end_all(self.spec, "every trial failed")
            raise JobError(
                f"The first {len(failed)} trials all failed ({failed[-1]['reason']}); see "
                f"{process.folder / 'log.txt'}."
            )


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
        folder = workshop.version / "autosearch" / "trials" / row["trial_id"]
        path = model_file(folder, row.get("model_path"))
        if path is None:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
