"""What a list shows of a version, worked out from its folders: best value, baseline, the way there."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darts_core.errors import DartsError, JobError
from darts_core.report.elements import best_element, elements, labels
from darts_core.report.read import StageRun, judged_stages, read_stages
from darts_core.report.rows import finite
from darts_core.runlog import read_json
from darts_core.store.record import LIVE, SCRIPT
from darts_core.store.summary import read_summary, write_summary
from darts_core.store.version import Version

__all__ = ["seen_summary", "stage_facts", "summarize"]

_FACTS = (
    "best_value", "params", "macs", "latency_before_ms", "latency_after_ms", "points", "device_seconds",
)  # fmt: skip


def stage_facts(folder: str | Path) -> list[dict[str, Any]]:
    """One row a stage (of each element of a multirun): its state and the figures of its result."""
    parts = elements(folder)
    rows = [_facts(stage) for stage in read_stages(Path(folder))]
    for part, label in zip(parts, labels(parts), strict=True):
        for stage in read_stages(part):
            facts = _facts(stage)
            rows.append({"stage": f"{part.name}/{facts.pop('stage')}", "overrides": label, **facts})
    return rows


def _facts(stage: StageRun) -> dict[str, Any]:
    facts = {key: stage.number(key) for key in (*stage.metric.file_keys, *_FACTS)}
    return {
        "stage": stage.name,
        "finished": stage.finished,
        "epochs": len(stage.metrics) or None,
        **{key: value for key, value in facts.items() if value is not None},
    }


def _pipeline(version: Version) -> dict[str, Any]:
    """The last stage that says how good its network is; its epochs are the way there."""
    found: dict[str, Any] = {}
    place = best_element(version.path)
    for stage in judged_stages(place):
        tested, on_val = stage.metric.file_keys
        values = [v for row in stage.metrics if (v := finite(row.get(on_val))) is not None]
        finals = {key: v for key in (tested, on_val) if (v := stage.number(key)) is not None}
        if values and not finals:
            finals = {on_val: max(values, key=stage.metric.rating)}
        for metric, best in list(finals.items())[:1]:
            # an export has no epochs of its own: those of the training stay the way there
            course = values or found.get("sparkline") or [best]
            found = {"metric": metric, "best": best, "sparkline": course}
    rows = _mapping(place / "bench" / "results.json").get("rows")
    for row in rows if isinstance(rows, list) else ():
        if (
            str(found.get("metric")).startswith("test_")
            and isinstance(row, Mapping)
            and row.get("baseline")
        ):
            # the first one, as the page takes it: behind it are its forms of lower precision
            found["baseline"] = finite(row.get("accuracy_mean"))
            break
    return found


def _mapping(path: Path) -> dict[str, Any]:
    with contextlib.suppress(DartsError, OSError):
        content = read_json(path)
        return content if isinstance(content, dict) else {}
    return {}


def _trials(version: Version) -> dict[str, Any]:
    """The best trial's first objective, the user's own value, and every trial's in its order."""
    # a list that finds its summaries needs none of it
    from darts_core.study.results import best_row, objectives, read_rows, row_values, search_rows

    try:
        goals = objectives(version.path)
    except JobError:
        return {}
    rows = search_rows(read_rows(version.path))
    values = [(row, found[0]) for row in rows if (found := row_values(row, goals)) is not None]
    best = best_row(rows, goals)
    chosen = row_values(best, goals) if best is not None else None
    own = [value for row, value in values if row.get("is_baseline")]
    return {
        "metric": goals[0]["metric"],
        "best": chosen[0] if chosen else None,
        "baseline": own[0] if own else None,
        "sparkline": [value for _, value in values],
    }


def summarize(version: Version) -> dict[str, Any]:
    """Work a version's summary out and write it; returns it.

    Raises:
        JobError: the version is gone.
    """
    facts = _trials(version) if version.kind == SCRIPT else _pipeline(version)
    return write_summary(version, **facts)


def seen_summary(version: Version, state: str) -> dict[str, Any]:
    """The summary for a list: the one kept, worked out again while it may have changed."""
    kept = read_summary(version)
    if kept is not None and kept.get("state") == state and state not in LIVE:
        return kept
    try:
        return summarize(version)
    except OSError:
        # a store that may only be read
        return kept or {}
