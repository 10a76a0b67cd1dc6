"""The elastic search as a step of a plan: one elastic training of the user's network, a trial a point."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

from darts_core.autosearch.elastic_network import JUDGED
from darts_core.autosearch.networks import WEIGHTS
from darts_core.autosearch.single import SingleTrials
from darts_core.autosearch.trials import Row
from darts_core.errors import JobError
from darts_core.study.ray_cluster import RayCluster
from darts_core.study.results import best_row

__all__ = ["ElasticSearch"]

log = logging.getLogger("darts_core")


class ElasticSearch(SingleTrials):
    """A step in which one training gives a network for each of several latencies.

    The user's own network is trained (trial 0), then trained on as an elastic one, which leaves a sub-network
    a budget; each is judged by the script itself, in a trial that does not train it, or a little.
    """

    from_own_network = True

    def run(self) -> Row | None:
        """Run the step; returns the best trial's row (a sub-network's, or the starting point's).

        Raises:
            StopWanted: a stop was asked for.
            JobError: the user's own trial left no network, or the elastic one no sub-networks.
        """
        if isinstance(self.workshop.place, RayCluster):
            raise JobError(
                "An elastic search hands networks from trial to trial, in a folder that Ray's nodes do not "
                "see; run it on Slurm (--slurm) or on this machine."
            )
        start, rows = self.begin()
        options = dict(self.spec.algorithm_options)
        setting = str(options["setting"])
        weights = self.workshop.version / "autosearch" / "trials" / rows[0]["trial_id"] / WEIGHTS
        if not weights.is_file():
            raise JobError(
                f"The trial {rows[0]['trial_id']} ({rows[0]['state']}: {rows[0]['reason'] or 'done'}) left "
                "no network; give yours to autosearch.elastic(model, input_shape); see its log.txt."
            )
        trained = self.single(
            self.shortened(float(options["elastic_share"])), 1, {**start, setting: "elastic"}, "supernet",
            elastic={**options, "start": str(weights)},
        )  # fmt: skip
        found = self.left_by(
            trained, "train with autosearch.backward(loss_of, x, y) after autosearch.elastic"
        )
        judged = replace(self.spec, max_iterations=max(1, int(options["fine_tuning"])))
        points: list[dict[str, Any]] = json.loads(found["value"])
        for number, point in enumerate(points, start=2):
            log.info(
                "sub-network %s: about %.0f%% of the time, found by %s",
                point["value"], 100 * point["predicted_share"], point["found_by"],
            )  # fmt: skip
            given = {**start, setting: point["value"]}
            tuned = {"fine_tuning": options["fine_tuning"]}
            rows.append(self._complete(self.single(judged, number, given, "search", elastic=tuned)))
        self.workshop.account.spent_before = self.workshop.account.spent_seconds
        return best_row(rows, self.spec.goals)

    def _complete(self, row: Row) -> Row:
        """A point's row, done where its trial ended as it was meant to: judged, or after its iterations."""
        if row["state"] == "stopped" and str(row["reason"]).startswith((JUDGED, "max_iterations")):
            row = {**row, "state": "done"}
            self.workshop.keep(row)
        return row
