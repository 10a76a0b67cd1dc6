"""What a search leaves: architecture.yaml, its rank in a tabular benchmark, result.json."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from darts_core.bench.tabular import TabularBenchmark, open_table
from darts_core.errors import ArchitectureError
from darts_core.runlog import RunFolder
from darts_core.search import SearchResult
from darts_core.settings import Search
from darts_core.stages.schema import SearchStage

__all__ = ["lookup_table", "rank", "write_result"]

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


def write_result(
    run: RunFolder, found: SearchResult, config: SearchStage, **facts: Any
) -> dict[str, Any]:
    """Write architecture.yaml and result.json; the latter's content."""
    guards = [asdict(finding) for finding in found.findings]
    extra = {"guards": guards} if guards else {}
    found.architecture.to_yaml(run.path / "architecture.yaml", seed=config.seed, **extra)
    log.info("found %s", found.architecture.text())
    run.finish(
        architecture=found.architecture.to_dict(),
        text=found.architecture.text(),
        val_accuracy=found.val_accuracy,
        device_seconds=found.seconds,
        steps=found.steps,
        guards=guards,
        stopped=found.stopped,
        seed=config.seed,
        **facts,
    )
    return run.result()
