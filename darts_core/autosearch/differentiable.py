"""The differentiable search as a step of a plan: one supernet trial, then the trial of what it found.

The supernet costs a little more than trial 0 for the same number of iterations and is trained for half of
them; the found network is smaller than trial 0's. Together they stay below two trainings.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any

from darts_core.autosearch.costs import seconds_of
from darts_core.autosearch.driver import warn
from darts_core.autosearch.spec import SearchSpec
from darts_core.autosearch.step import Step
from darts_core.autosearch.trials import Workshop
from darts_core.errors import JobError, ResumeError
from darts_core.runlog import read_json
from darts_core.study.results import best_row

__all__ = ["DifferentiableSearch"]

log = logging.getLogger("darts_core")
Row = dict[str, Any]


class DifferentiableSearch(Step):
    """A step in which a supernet finds the setting that names the architecture."""

    def __init__(self, spec: SearchSpec, workshop: Workshop, **options: Any) -> None:
        super().__init__(spec, workshop, **options)
        self.setting = str(spec.algorithm_options["setting"])

    def run(self) -> Row | None:
        """Run the step; returns the best trial's row (the found network's, or the starting point's).

        Raises:
            StopWanted: a stop was asked for.
            JobError: the supernet's trial failed or named no architecture.
        """
        rows = list(self.known)
        start = dict(self.known[0]["config"]) if self.known else {}
        if self.first is not None:
            start = {**self.fixed, **self.first}
            rows.append(self._trial(0, start, "search", is_baseline=self.is_baseline))
            warn(rows[-1:], self.spec.goals)
            if self.is_baseline and rows[-1]["state"] in ("done", "stopped"):
                self.workshop.account.unit_seconds = float(rows[-1]["time_total_s"])
        options = self.spec.algorithm_options
        base = {**start, self.setting: f"search:{options['base']}"}
        supernet = self._trial(1, base, "supernet", differentiable=dict(options))
        value = self._found(supernet)
        log.info("the supernet found %s=%s", self.setting, value)
        rows.append(self._trial(2, {**start, self.setting: value}, "search"))
        self.workshop.account.spent_before = self.workshop.account.spent_seconds
        return best_row(rows, self.spec.goals)

    def _trial(self, number: int, configuration: Row, phase: str, **extra: Any) -> Row:
        """The row of an earlier start of this version, or a fresh run."""
        for row in self.workshop.known_rows(self.step, phase):
            if row["number"] == number and row.get("done") and row["state"] != "cancelled":
                self.workshop.account.spent_seconds += seconds_of(row)
                return row
        spec = self.spec
        if phase == "supernet" and spec.max_iterations is not None:
            share = float(spec.algorithm_options["supernet_share"])
            # a trial ends at the call after its last iteration, hence one less
            limit = max(1, math.ceil(share * spec.max_iterations) - 1)
            spec = replace(spec, max_iterations=limit)
        return self.workshop.run_one(
            spec, number, configuration, step=self.step, phase=phase, **extra
        )

    def _found(self, row: Row) -> Any:
        folder = self.workshop.version / "autosearch" / "trials" / row["trial_id"]
        try:
            found = read_json(folder / "architecture.json")
            value = found["value"]
        except (ResumeError, KeyError, TypeError):
            raise JobError(
                f"The supernet's trial {row['trial_id']} ({row['state']}: {row['reason'] or 'done'}) named "
                "no architecture; build the network with ResNet50(code=autosearch.config"
                f"[{self.setting!r}]) or autosearch.searchable(model, input_shape); see its log.txt."
            ) from None
        # older records do not say
        if not found.get("moved", True):
            raise JobError(
                f"The choices never moved: the supernet made {found.get('passes')} training steps, and the "
                f"alphas wait for warmup={found.get('warmup')} of them (or get no gradient); train it "
                "longer (max_iterations, supernet_share) or lower search_algorithm.warmup."
            )
        return value
