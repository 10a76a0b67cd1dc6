"""Rows of a list of versions or jobs, whatever kind they are."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from darts_core.errors import JobError
from darts_core.report.job_summary import seen_summary
from darts_core.store.jobs import Store
from darts_core.store.record import STATES
from darts_core.store.version import Version

__all__ = ["SORTS", "newest_rows", "picked", "version_rows"]

SORTS = ("name", "created", "state", "duration", "value")


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
        "device": _device(command),
        "metric": known.get("metric"),
        "value": known.get("best"),
        "baseline": known.get("baseline"),
        "course": known.get("sparkline") or [],
    }


def _device(command: Mapping[str, Any]) -> str | None:
    """Where a command computes, as its request or its overrides say; None where they do not."""
    request = command.get("request")
    if isinstance(request, Mapping) and isinstance(request.get("devices"), (list, tuple)):
        return ", ".join(str(device) for device in request["devices"])
    words = [str(word).lstrip("+") for word in command.get("overrides") or ()]
    return next((w.partition("=")[2] for w in words if w.startswith("device=")), None)


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


def newest_rows(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a job: state, time and value of its newest version."""
    newest: dict[str, dict[str, Any]] = {}
    for row in rows:
        count = newest.get(row["job"], {}).get("versions", 0) + 1
        newest[row["job"]] = {**row, "versions": count}
    return list(newest.values())


def picked(
    rows: Iterable[dict[str, Any]],
    *,
    states: Sequence[str] = (),
    kinds: Sequence[str] = (),
    search: str = "",
    sort: str = "name",
    reverse: bool = False,
) -> list[dict[str, Any]]:
    """The rows of these states and kinds whose name or descriptions hold `search`, sorted.

    Raises:
        JobError: a state or a column to sort by is unknown.
    """
    for state in states:
        if state not in STATES:
            raise JobError(f"Unknown state {state!r}; use one of {', '.join(STATES)}.")
    if sort not in SORTS:
        raise JobError(f"There is no sorting by {sort!r}; use one of {', '.join(SORTS)}.")
    wanted = search.lower()
    table = [
        row
        for row in rows
        if (not states or row["state"] in states)
        and (not kinds or row["kind"] in kinds)
        and wanted in f"{row['name']} {row['description']} {row['version_description']}".lower()
    ]

    # what has no value yet comes last in either order
    known = [row for row in table if row[sort] is not None]
    known.sort(key=lambda row: row[sort], reverse=reverse)
    return known + [row for row in table if row[sort] is None]
