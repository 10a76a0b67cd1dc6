"""`jobs list`: jobs or versions of every kind, one row each."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from darts_core.errors import JobError
from darts_core.report.job_summary import seen_summary
from darts_core.report.tables import clock, render, span, sparkline
from darts_core.store.jobs import Store
from darts_core.store.record import STATES
from darts_core.store.version import Version

__all__ = ["run_list", "version_rows"]

_COLUMNS = ("name", "kind", "state", "versions", "duration", "created", "metric", "value", "baseline",
            "course", "description", "message")  # fmt: skip


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


def _newest(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a job: state, time and value of its newest version."""
    newest: dict[str, dict[str, Any]] = {}
    for row in rows:
        count = newest.get(row["job"], {}).get("versions", 0) + 1
        newest[row["job"]] = {**row, "versions": count}
    return list(newest.values())


def run_list(store: Store, args: argparse.Namespace) -> int:
    """`jobs list`."""
    for state in args.state or []:
        if state not in STATES:
            raise JobError(f"Unknown state {state!r}; use one of {', '.join(STATES)}.")
    rows = version_rows(store)
    table = list(rows) if args.versions else _newest(rows)
    if args.state:
        table = [row for row in table if row["state"] in args.state]
    if args.kind:
        table = [row for row in table if row["kind"] in args.kind]
    if args.search:
        wanted = args.search.lower()
        table = [r for r in table if wanted in f"{r['name']} {r['description']}".lower()]

    def order(row: Mapping[str, Any]) -> tuple[bool, Any]:
        value = row[args.sort]
        return (value is None, value if value is not None else 0)

    table.sort(key=order, reverse=args.reverse)
    columns: tuple[str, ...] = _COLUMNS
    if args.versions:
        columns = ("name", "version", "parent", "kind", "command", "state", *_COLUMNS[4:])
    if args.form == "text":
        table = [
            {
                **row,
                "created": clock(row["created"]),
                "duration": span(row["duration"]),
                "course": sparkline(row["course"]),
            }
            for row in table
        ]
    print(render(columns, table, args.form))
    return 0
