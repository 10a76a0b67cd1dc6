"""`jobs list`: jobs or versions of every kind, one row each."""

from __future__ import annotations

import argparse
import sys

from darts_core.report.job_rows import newest_rows, picked, version_rows
from darts_core.report.tables import clock, neutral, render, span, sparkline
from darts_core.store.jobs import Store

__all__ = ["run_list"]

_COLUMNS = ("name", "kind", "state", "versions", "duration", "created", "metric", "value", "baseline",
            "course", "description", "message")  # fmt: skip


def run_list(store: Store, args: argparse.Namespace) -> int:
    """`jobs list`."""
    rows = version_rows(store)
    table = picked(
        rows if args.versions else newest_rows(rows),
        states=args.state or (),
        kinds=args.kind or (),
        search=args.search or "",
        sort=args.sort,
        reverse=args.reverse,
    )
    # a mistyped one, or another working folder, looks like one without jobs
    if not store.root.is_dir():
        root = neutral(store.root, 4000)
        print(f"There is no folder {root}, so it holds no jobs (see --root).", file=sys.stderr)
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
