"""Runs a study's trials as a user's script: one process tree a trial, with its limits."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from darts_core.autosearch.process import BY_COMMAND, TrialProcess
from darts_core.autosearch.reports import Metrics
from darts_core.autosearch.spec import SearchSpec
from darts_core.autosearch.study_spec import judged
from darts_core.autosearch.trials import Row, StopWanted, Workshop
from darts_core.study.claim import Claim
from darts_core.study.runner import Decide

__all__ = ["ScriptRunner"]

_POLL_SECONDS = 0.02
_BUDGET_SECONDS = 0.2
# what a fully trained trial has at least for its result when the budget is spent, as it may hang
_RESULT_SECONDS = 600.0


class ScriptRunner:
    """One of the workers of a step; see `darts_core.study.runner.Runner`.

    Args:
        spec: the search.
        workshop: starts processes and turns their ends into rows.
        step: the step's name in rows.
        fixed: settings found by earlier steps, given to every trial.
        rungs: iterations after which a trial waits for the decision.
    """

    def __init__(
        self,
        spec: SearchSpec,
        workshop: Workshop,
        *,
        step: str,
        fixed: dict[str, Any],
        rungs: Sequence[int],
    ) -> None:
        self.spec, self.workshop, self.step = spec, workshop, step
        self.fixed, self.rungs = fixed, list(rungs)

    def run(self, claim: Claim, decide: Decide) -> tuple[str, Any]:
        """One sitting of a trial, tried again as often as the limits allow when it fails.

        Raises:
            StopWanted: the whole job is to stop; the trial can be gone on with.
        """
        retries = self.spec.limits.retries
        while True:
            row = self._sitting(claim, decide)
            if row["state"] != "failed" or retries <= 0:
                break
            retries -= 1
            self.workshop.keep(row, claim.folder)
            self.workshop.log(f"trial {row['trial_id']} is tried again ({retries} tries left)")
        # sittings whose worker was killed left no row, only the lease's seconds
        row["earlier_seconds"] = max(row["earlier_seconds"], round(claim.earlier_seconds, 4))
        claim.row = row
        if row["state"] == "killed":
            claim.row = {**row, "state": "failed"}
            self.workshop.keep({**row, "state": "cancelled"}, claim.folder)
            return "died", row["reason"]
        if row["state"] == "failed":
            return "raised", (row["reason"], None)
        if row["state"] == "stopped":
            return "pruned", row["reason"]
        values = {o.metric: row["values"][o.metric] for o in self.spec.objectives}
        return "returned", {**_numbers(row["metrics"]), **values}

    def close(self) -> None:
        """Nothing is held between trials."""

    def _sitting(self, claim: Claim, decide: Decide) -> Row:
        process = self.workshop.start(
            self.spec,
            claim.number,
            {**self.fixed, **claim.params},
            step=self.step,
            folder=claim.folder,
            is_baseline=claim.is_baseline,
            decisions=[] if claim.is_baseline else self.rungs,
        )
        looked, most = time.monotonic(), math.inf
        while process.outcome is None:
            if self.workshop.stop_wanted():
                self.workshop.cancel(process, "the job was stopped")
                row = self.workshop.collect(self.spec, process)
                if row["state"] == "done":  # it had ended before the stop reached it
                    return row
                self.workshop.keep(row, claim.folder)
                raise StopWanted
            with self.workshop.ending(self.spec, process):
                self._look_after(process, claim, decide)
                if time.monotonic() - looked > _BUDGET_SECONDS:
                    looked, over = time.monotonic(), claim.over()
                    if over:
                        most = min(most, self._most_seconds(process))
                    if over and process.seconds > most:
                        process.end_now("stopped", over)
                time.sleep(_POLL_SECONDS)
        return self.workshop.collect(self.spec, process)

    def _most_seconds(self, process: TrialProcess) -> float:
        """How long a trial may have run when the budget is spent: as long again, where its last iteration is
        reported and its result alone is left.
        """
        done = process.reader.reports.iterations
        if not done or done[-1][0] != self.spec.max_iterations:
            return 0.0
        return process.seconds + max(process.seconds, _RESULT_SECONDS)

    def _look_after(self, process: TrialProcess, claim: Claim, decide: Decide) -> None:
        for iteration, metrics in process.poll()["iterations"]:
            self.workshop.log_iteration(process.record["trial_id"], iteration, metrics)
            reason = decide(iteration - 1, judged(metrics, self.spec))
            # trial 0 is the measure of all others and always runs to its end
            if reason and not claim.is_baseline:
                early = f"early: not good enough at iteration {iteration}"
                process.ask_to_stop("stopped", reason if reason.startswith("the budget") else early)
            if iteration in self.rungs:
                (process.folder / "decided").write_text(str(iteration), encoding="utf-8")
        if (process.folder / "stop").exists() and process.outcome is None:
            process.ask_to_stop("stopped", BY_COMMAND)


def _numbers(metrics: Metrics) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if value is not None}
