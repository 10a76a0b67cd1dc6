"""What a search leaves: architecture.yaml, its rank in a tabular benchmark, result.json."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

import numpy as np

from darts_core.bench.tabular import TabularBenchmark
from darts_core.bench.tabular_read import open_table
from darts_core.errors import ArchitectureError, ConfigError
from darts_core.metric import Metric
from darts_core.runlog import RunFolder
from darts_core.search import SearchResult
from darts_core.settings import Search
from darts_core.spaces import SearchSpace
from darts_core.spaces.confidence import NEAR_TIE, Decision, decisions
from darts_core.stages.doubt import doubtful
from darts_core.stages.schema import SearchStage

__all__ = ["confidence", "lookup_table", "rank", "write_result"]

log = logging.getLogger("darts_core")


def lookup_table(node: Search) -> TabularBenchmark | None:
    """The table that the result is looked up in; opened before any work, so that a wrong path costs none.

    Raises:
        DataError: the table cannot be read.
    """
    if not node.tabular:
        return None
    table = open_table(node.tabular)
    table.column(node.tabular_data)
    return table


def rank(table: TabularBenchmark | None, found: SearchResult, node: Search) -> dict[str, Any]:
    """Accuracy, regret and rank in the table; a line in the log when it does not hold the architecture."""
    if table is None:
        return {}
    try:
        row = table.lookup(found.architecture, node.tabular_data)
    except ArchitectureError as error:
        log.warning("not looked up: %s", error)
        return {}
    log.info("rank %d of %d in %s, regret %.4f", row.rank, row.total, table.name, row.regret)
    return {"tabular": {"table": table.name, **row.to_dict()}}


def confidence(space: SearchSpace, found: SearchResult) -> dict[str, Any]:
    """How clear each choice is, and a warning about near-ties; nothing where weights did not choose."""
    weights = {kind: np.asarray(w) for kind, w in found.weights.items()}
    try:
        if space.discretize(weights) != found.architecture:
            return {}
    except ConfigError:  # the space has changed since, or nothing was logged
        return {}
    made = decisions(space, weights)
    ties = [one for one in made if one.confidence < NEAR_TIE]
    facts: dict[str, Any] = {"confidence": [asdict(one) for one in made]}
    if ties:
        places = ", ".join(_place(one) for one in ties)
        message = (
            f"{len(ties)} of {len(made)} choices are near-ties (the best weight leads its rival by less "
            f"than {NEAR_TIE:.0%}): {places}"
        )
        log.warning(message)
        facts["warnings"] = [{"name": "near-ties", "message": f"{message}."}]
    return facts


def _place(one: Decision) -> str:
    edge = "" if one.edge is None else f" {one.edge[0]}-{one.edge[1]}"
    return f"{one.kind}{edge} {one.choice}"


def write_result(
    run: RunFolder, found: SearchResult, config: SearchStage, metric: Metric, **facts: Any
) -> dict[str, Any]:
    """Write architecture.yaml and result.json; the latter's content."""
    guards = [asdict(finding) for finding in found.findings]
    doubt = [asdict(one) for one in found.doubts]
    notes = {"guards": guards, "doubt": doubt, "confidence": facts.get("confidence")}
    extra = {key: value for key, value in notes.items() if value}
    found.architecture.to_yaml(run.path / "architecture.yaml", seed=config.seed, **extra)
    log.info("found %s", found.architecture.text())
    if doubt:
        log.warning(
            "DOUBTFUL: the guards doubt every architecture of this search; the least doubted one is "
            "returned: %s",
            doubtful({"doubt": doubt}),
        )
    run.finish(
        architecture=found.architecture.to_dict(),
        text=found.architecture.text(),
        **{f"val_{metric.name}": found.val},
        metric=metric.to_dict(),
        device_seconds=found.seconds,
        steps=found.steps,
        guards=guards,
        doubt=doubt,
        epoch=found.epoch,
        stopped=found.stopped,
        seed=config.seed,
        **facts,
    )
    return run.result()
