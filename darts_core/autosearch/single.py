"""Steps that run a few trials one after another, each for a purpose of its own."""

from __future__ import annotations

from darts_core.autosearch.costs import seconds_of
from darts_core.autosearch.driver import warn
from darts_core.autosearch.spec import SearchSpec
from darts_core.autosearch.step import Step
from darts_core.autosearch.trials import Row
from darts_core.errors import JobError, ResumeError
from darts_core.runlog import read_json

__all__ = ["SingleTrials"]


class SingleTrials(Step):
    """A step whose trials run one by one; those of an earlier start of the version are taken as they are."""

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
        for row in self.workshop.known_rows(self.step, phase):
            if row["number"] == number and row.get("done") and row["state"] != "cancelled":
                self.workshop.account.spent_seconds += seconds_of(row)
                return row
        return self.workshop.run_one(
            spec, number, configuration, step=self.step, phase=phase, **extra
        )

    def left_by(self, row: Row, otherwise: str) -> Row:
        """What a trial's network named at its end (`architecture.json`).

        Raises:
            JobError: it named nothing; the sentence ends with `otherwise`.
        """
        folder = self.workshop.version / "autosearch" / "trials" / row["trial_id"]
        try:
            found = read_json(folder / "architecture.json")
            return {**found, "value": found["value"]}
        except (ResumeError, KeyError, TypeError):
            raise JobError(
                f"The supernet's trial {row['trial_id']} ({row['state']}: {row['reason'] or 'done'}) named "
                f"no architecture; {otherwise}; see its log.txt."
            ) from None
