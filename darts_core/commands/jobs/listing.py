"""`jobs list`: jobs or versions of every kind, one row each."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from darts_core.errors import JobError
from darts_core.report.tables import clock, render, span, sparkline
from darts_core.report.version_rows import version_rows
from darts_core.store.jobs import Store
from darts_core.store.record import STATES

__all__ = ["run_list"]

_COLUMNS = ("name", "kind", "state", "versions", "duration", "created", "metric", "value", "baseline",
            "course", "description", "message")  # fmt: skip


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
        known = ("name", "description", "version_description")
        table = [r for r in table if wanted in " ".join(str(r[k]) for k in known).lower()]

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
                "description": (args.versions and row["version_description"]) or row["description"],
            }
            for row in table
        ]
    print(render(columns, table, args.form))
    return 0
