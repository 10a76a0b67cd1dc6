"""The verbs that only look: list, show, logs."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darts_core.errors import JobError
from darts_core.report.job_details import TAIL_LINES, resources_text, tail, version_details
from darts_core.report.tables import clock, cost_text, neutral, render, short, span
from darts_core.runlog import read_json, read_jsonl
from darts_core.store.index import index_rows
from darts_core.store.jobs import LIVE, STATES, JobStore, Version
from darts_core.study.importance import row_importance
from darts_core.study.result_table import result_table
from darts_core.study.results import figure, objectives, read_rows

__all__ = ["result_table", "version_details"]


def run_list(store: JobStore, args: argparse.Namespace) -> int:
    """`jobs list`."""
    for state in args.state or []:
        if state not in STATES:
            raise JobError(f"Unknown state {state!r}; use one of {', '.join(STATES)}.")
    rows = index_rows(store)
    table = _version_rows(rows) if args.versions else _job_rows(rows)
    if args.state:
        table = [row for row in table if row["state"] in args.state]
    if args.search:
        wanted = args.search.lower()
        table = [r for r in table if wanted in f"{r['name']} {r['description']}".lower()]

    def order(row: Mapping[str, Any]) -> tuple[bool, Any]:
        value = row[args.sort]
        return (value is None, value if value is not None else 0)

    table.sort(key=order, reverse=args.reverse)
    columns: tuple[str, ...] = (
        "name",
        "state",
        "versions",
        "duration",
        "created",
        "metric",
        "value",
        "description",
        "message",
    )
    if args.versions:
        columns = ("name", "version", "parent", *columns[1:2], *columns[3:])
    if args.form == "text":
        table = [
            {**r, "created": clock(r["created"]), "duration": span(r["duration"])} for r in table
        ]
    print(render(columns, table, args.form))
    return 0


def _duration(row: Mapping[str, Any]) -> float | None:
    if row["started"] is None:
        return None
    end = row["ended"] if row["ended"] is not None else time.time()
    return float(end) - float(row["started"])


def _version_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "name": row["job"], "versions": 1, "duration": _duration(row)} for row in rows]


def _job_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a job: state, time and value of its newest version."""
    newest: dict[str, dict[str, Any]] = {}
    for row in rows:
        count = newest.get(row["job"], {}).get("versions", 0) + 1
        newest[row["job"]] = {
            **row,
            "name": row["job"],
            "versions": count,
            "duration": _duration(row),
        }
    return list(newest.values())


def run_show(store: JobStore, args: argparse.Namespace) -> int:
    """`jobs show`."""
    version = store.version(args.job)
    if args.trial:
        return _show_trial(version, args)
    details = version_details(version)
    rows = read_rows(version.path)
    goals = objectives(version.path) if details["summary"] is not None else []
    columns, table = result_table(rows, goals, args.sort)
    page = table[max(0, args.offset) : max(0, args.offset) + max(1, args.limit)]
    shares = row_importance(rows, goals) if goals else {}
    if args.pictures or args.html:
        from darts_core.report.job_page import draw_all, write_page

        folder = Path(args.pictures) if args.pictures else version.path / "autosearch" / "pictures"
        pictures = draw_all(rows, goals, shares, details["summary"], folder)
        if args.html:
            write_page(Path(args.html), details, columns, table, shares, pictures)
    if args.form != "text":
        extra = (
            {**details, "importance": shares, "total": len(table)} if args.form == "json" else None
        )
        print(render(columns, page, args.form, extra))
        return 0
    _print_details(details, shares)
    print(
        f"\nresults {args.offset + 1}-{args.offset + len(page)} of {len(table)} (* = your configuration)"
    )
    print(render(columns, page))
    return 0


def _print_details(details: Mapping[str, Any], shares: Mapping[str, float]) -> None:
    print(
        f"{details['job']}/{details['version']}  {details['state']}  {neutral(details['message'] or '')}"
    )
    print(f"parent     {short(details['parent'])}")
    print(f"started    {clock(details['started'])}   ended {clock(details['ended'])}")
    print(f"folder     {neutral(details['folder'])}")
    for name, value in details["parameters"].items():
        if value:
            print(f"  {name:12} {short(value)}")
    for name, value in (details["configuration"] or {}).items():
        if value not in (None, {}, []):
            print(f"  {name:12} {short(value)}")
    if details["resources"]:
        print(f"resources  {resources_text(details)}")
    if details["summary"] is not None:
        found = details["summary"]
        print(f"cost       {cost_text(found['cost'])}")
        print(f"trials     {short(found['trials'])}")
        print(f"verdict    {neutral(found['verdict'], 1000)}")
        for name, sides in found["test"].items():
            print(f"  {neutral(name)}: {_sides(sides)}")
    if shares:
        print("importance " + ", ".join(f"{neutral(k)} {v:.0%}" for k, v in shares.items()))
    if details["log_tail"]:
        print("log        " + "\n           ".join(details["log_tail"]))


def _sides(sides: Mapping[str, Mapping[str, Any]]) -> str:
    """The winner's and the user's figure of a test metric, each with its spread."""
    names = {"best": "best", "baseline": "yours"}
    return ", ".join(
        f"{names.get(side, neutral(side))} {figure(sides[side])} (n={sides[side]['n']})"
        for side in sorted(sides, reverse=True)
    )


def _trial_folder(version: Version, trial_id: str) -> Path:
    folder = version.path / "autosearch" / "trials" / trial_id
    if not trial_id.isalnum() or not folder.is_dir():
        raise JobError(f"{version.job}/{version.name} has no trial {trial_id[:40]!r}.")
    return folder


def _show_trial(version: Version, args: argparse.Namespace) -> int:
    folder = _trial_folder(version, args.trial)
    done = folder / "result.json"
    row = read_json(done if done.exists() else folder / "trial.json")
    row["iterations"] = [
        r for r in read_jsonl(folder / "reports.jsonl") if r.get("kind") == "iteration"
    ]
    if args.form == "json":
        print(render((), [], "json", extra={**row, "folder": str(folder)}))
        return 0
    for name, value in row.items():
        if name != "iterations":
            print(f"{neutral(name):20} {short(value)}")
    print(
        "\n".join(
            f"  {r.get('iteration')}: {short(r.get('metrics'))}" for r in row["iterations"][-20:]
        )
    )
    print("log:\n  " + "\n  ".join(tail(folder / "log.txt", TAIL_LINES)))
    return 0


def run_logs(store: JobStore, args: argparse.Namespace) -> int:
    """`jobs logs`."""
    version = store.version(args.job)
    path = version.path / "job.log"
    if args.trial:
        path = _trial_folder(version, args.trial) / "log.txt"
    lines = tail(path, args.tail) if args.tail else None
    offset = 0
    if lines is not None:
        print("\n".join(lines))
        offset = path.stat().st_size if path.exists() else 0
    while True:
        live = version.state() in LIVE
        if path.exists():
            with path.open("rb") as stream:
                stream.seek(offset)
                # whole lines only, so that no character is cut in two
                chunk = stream.read()
                end = len(chunk) if not (args.follow and live) else chunk.rfind(b"\n") + 1
            offset += end
            for line in chunk[:end].decode("utf-8", "replace").splitlines():
                print(neutral(line, 2000))
            sys.stdout.flush()
        if not args.follow or not live:
            return 0
        time.sleep(0.2)
