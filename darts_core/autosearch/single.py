"""Steps that run a few trials one after another, each for a purpose of its own."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from darts_core.autosearch.closing import ARCHITECTURE
from darts_core.autosearch.costs import seconds_of
from darts_core.autosearch.driver import warn
from darts_core.autosearch.networks import WEIGHTS
from darts_core.autosearch.spec import SearchSpec
from darts_core.autosearch.step import Step
from darts_core.autosearch.trials import Row
from darts_core.errors import JobError, ResumeError
from darts_core.runlog import read_json
from darts_core.study.results import trials_folder

__all__ = ["SingleTrials"]


class SingleTrials(Step):
    """A step whose trials run one by one; those of an earlier start of the version are taken as they are.

    One that failed and left nothing is run again where the step cannot go on without what it leaves.
    """

    # whether the step begins with the network of the user's own trial
    from_own_network = False

    def begin(self) -> tuple[Row, list[Row]]:
        """The user's own configuration, and the rows so far: with its trial, where it is to be run here."""
        rows = list(self.known)
        start = dict(self.known[0]["config"]) if self.known else {}
        if self.first is not None:
            start = {**self.fixed, **self.first}
            rows.append(self.single(self.spec, 0, start, "search", is_baseline=self.is_baseline))
            warn(rows[-1:], self.spec.goals)
            if self.is_baseline and rows[-1]["state"] in ("done", "stopped"):
                self.workshop.account.unit_seconds = float(rows[-1]["time_total_s"])
        return start, rows

    def single(
        self, spec: SearchSpec, number: int, configuration: Row, phase: str, **extra: object
    ) -> Row:
        """The row of an earlier start of this version, or a fresh run."""
        left, account = self._left(spec, number, phase), self.workshop.account
        for row in self.workshop.known_rows(self.step, phase):
            if row["number"] != number or not row.get("done") or row["state"] == "cancelled":
                continue
            if row["state"] != "failed" or left is None or left.is_file():
                account.spent_seconds += seconds_of(row)
                return row
        if left is not None:
            # of an attempt that was cut off
            left.unlink(missing_ok=True)
        before = account.spent_seconds
        row = self.workshop.run_one(
            spec, number, configuration, step=self.step, phase=phase, **extra
        )
        # the attempts of earlier starts too
        account.spent_seconds = before + seconds_of(row)
        return row

    def shortened(self, share: float) -> SearchSpec:
        """The search with trials of a share of its iterations."""
        if self.spec.max_iterations is None:
            return self.spec
        # a trial ends at the call after its last iteration, hence one less
        limit = max(1, math.ceil(share * self.spec.max_iterations) - 1)
        return replace(self.spec, max_iterations=limit)

    def _left(self, spec: SearchSpec, number: int, phase: str) -> Path | None:
        """The file that a trial has to leave for the step to go on; None for any other trial."""
        if phase != "supernet" and not (self.from_own_network and number == 0):
            return None
        name = self.workshop.trial_id(self.step, phase, number, spec.seed)
        found = ARCHITECTURE if phase == "supernet" else WEIGHTS
        return trials_folder(self.workshop.version) / name / found

    def left_by(self, row: Row, otherwise: str) -> Row:
        """What a trial's network named at its end.

        Raises:
            JobError: it named nothing; the sentence ends with `otherwise`.
        """
        folder = trials_folder(self.workshop.version) / row["trial_id"]
        try:
            found = read_json(folder / ARCHITECTURE)
            return {**found, "value": found["value"]}
        except (ResumeError, KeyError, TypeError):
            raise JobError(
                f"The supernet's trial {row['trial_id']} ({row['state']}: {row['reason'] or 'done'}) named "
                f"no architecture; {otherwise}; see its log.txt."
            ) from None
