"""One row a version: what a list and the tree of a job's versions say of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from darts_core.errors import JobError
from darts_core.report.job_summary import seen_summary
from darts_core.store.jobs import Store
from darts_core.store.version import Version

__all__ = ["version_rows"]


def _row(version: Version, record: Mapping[str, Any], description: str) -> dict[str, Any]:
    """What the list says of one version."""
    commands: list[tuple[str, dict[str, Any]]] = list(record["commands"].items())
    name, command = commands[-1] if commands else ("", {})
    state = version.state_of(name, command)
    known = seen_summary(version, state)
    return {
        "name": version.job,
        "job": version.job,
        "version": version.name,
        "versions": 1,
        "kind": record["kind"],
        "command": name,
        "state": state,
        "description": description,
        "version_description": version.description,
        "parent": record.get("parent"),
        "created": record.get("created"),
        "started": command.get("started"),
        "ended": command.get("ended"),
        "duration": _duration(command, state),
        "message": command.get("message"),
        "metric": known.get("metric"),
        "value": known.get("best"),
        "baseline": known.get("baseline"),
        "course": known.get("sparkline") or [],
    }


def _duration(command: Mapping[str, Any], state: str) -> float | None:
    started, ended = command.get("started"), command.get("ended")
    if not isinstance(started, (int, float)) or (ended is None and state == "interrupted"):
        return None
    return max(0.0, float(time.time() if ended is None else ended) - float(started))


def version_rows(store: Store, job: str | None = None) -> Iterator[dict[str, Any]]:
    """One row a version, sorted by job and age; what is deleted meanwhile is left out."""
    for _, known, versions in store.items(job):
        for version, record in versions:
            with contextlib.suppress(JobError):
                yield _row(version, record, str(known.get("description") or ""))
