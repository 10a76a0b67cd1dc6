"""The differentiable search as a step of a plan: one supernet trial, then the trial of what it found.

The supernet costs a little more than trial 0 for the same number of iterations and is trained for half of
them; the found network is smaller than trial 0's. Together they stay below two trainings.
"""

from __future__ import annotations

import logging
from typing import Any

from darts_core.autosearch.single import SingleTrials
from darts_core.autosearch.spec import SearchSpec
from darts_core.autosearch.trials import Row, Workshop
from darts_core.errors import JobError
from darts_core.study.results import best_row

__all__ = ["DifferentiableSearch"]

log = logging.getLogger("darts_core")


class DifferentiableSearch(SingleTrials):
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
        start, rows = self.begin()
        options = self.spec.algorithm_options
        base = {**start, self.setting: f"search:{options['base']}"}
        spec = self.shortened(float(options["supernet_share"]))
        supernet = self.single(spec, 1, base, "supernet", differentiable=dict(options))
        value = self._found(supernet)
        log.info("the supernet found %s=%s", self.setting, value)
        rows.append(self.single(self.spec, 2, {**start, self.setting: value}, "search"))
        self.workshop.account.spent_before = self.workshop.account.spent_seconds
        return best_row(rows, self.spec.goals)

    def _found(self, row: Row) -> Any:
        found = self.left_by(
            row,
            f"build the network with ResNet50(code=autosearch.config[{self.setting!r}]) or "
            "autosearch.searchable(model, input_shape)",
        )
        # older records do not say
        if not found.get("moved", True):
            raise JobError(
                f"The choices never moved: the supernet made {found.get('passes')} training steps, and the "
                f"alphas wait for warmup={found.get('warmup')} of them (or get no gradient); train it "
                "longer (max_iterations, supernet_share) or lower search_algorithm.warmup."
            )
        return found["value"]
