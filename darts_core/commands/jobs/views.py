"""The verbs that look at one version: show, logs."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from darts_core.autosearch.curves import trial_curves
from darts_core.commands.jobs.options import place_of
from darts_core.errors import JobError
from darts_core.report.job_details import (
    TAIL_LINES,
    log_path,
    resources_text,
    tail,
    version_details,
)
from darts_core.report.tables import clock, cost_text, neutral, render, short, zone
from darts_core.runlog import read_jsonl, read_mapping, write_text
from darts_core.store.jobs import Store
from darts_core.store.record import SCRIPT
from darts_core.store.version import Version
from darts_core.study.importance import row_importance
from darts_core.study.result_table import result_table
from darts_core.study.results import figure, objectives, read_rows

__all__ = ["result_table", "version_details"]

_LIMIT = 10
"""Results that `jobs show` prints where nobody says how many."""
# characters of a line that `jobs logs` prints; bytes of a log that it reads at a time, and that it keeps of a
# line which is longer than these
_LINE, _PART, _SHOWN = 2000, 2**20, 2**14


def run_show(store: Store, args: argparse.Namespace) -> int:
    """`jobs show`."""
    version = store.version(args.job)
    if args.trial:
        _refuse_unread(args, ("sort", "limit", "offset", "pictures", "html", "csv"), "one trial")
        return _show_trial(version, args)
    details = version_details(version)
    if details["kind"] != SCRIPT:
        return _show_stages(version, details, args)
    rows = read_rows(version.path)
    goals = objectives(version.path) if details["summary"] is not None else []
    columns, table = result_table(rows, goals, args.sort)
    offset = args.offset or 0
    page = table[offset : offset + (args.limit or _LIMIT)]
    shares = row_importance(rows, goals) if goals else {}
    if args.pictures:
        from darts_core.report.job_pictures import draw_all

        pictures = place_of(args.pictures, "--pictures", folder=True)
        curves = trial_curves(rows, goals[0]["metric"]) if goals else {}
        draw_all(rows, goals, shares, details["summary"], pictures, curves)
    if args.html:
        _write_page(version, args.html)
    if args.form != "text":
        extra = (
            {**details, "importance": shares, "total": len(table)} if args.form == "json" else None
        )
        print(render(columns, page, args.form, extra))
        if extra is None and len(page) < len(table):
            # JSON says how many there are; a file of commas has no place for it
            begin = " without --offset" if offset else ""
            told = f"{len(page)} of {len(table)} results; --limit {len(table)}{begin} prints all"
            print(f"darts-core: {told}", file=sys.stderr)
        return 0
    _print_details(details, shares)
    numbers = f"{offset + 1}-{offset + len(page)}" if page else "none"
    print(f"\nresults {numbers} of {len(table)} (* = your configuration)")
    print(render(columns, page))
    return 0


def _refuse_unread(args: argparse.Namespace, names: Sequence[str], what: str) -> None:
    """Nothing, unless an option is given that means nothing for what is shown.

    Raises:
        JobError: one is.
    """
    given = [f"--{name}" for name in names if getattr(args, name, None) is not None]
    given += ["--csv"] if "csv" in names and args.form == "csv" else []
    if given:
        raise JobError(f"{', '.join(given)} would not count for {what}; leave it out.")


def _write_page(version: Version, name: str) -> None:
    """One file that may be taken anywhere: of a multirun without links to the pages of its elements."""
    from darts_core.report.page import page
    from darts_core.report.versions import content_of

    target = place_of(name, "--html")
    write_text(target, page(content_of(version.path, curves=trial_curves)))


def _show_stages(version: Version, details: Mapping[str, Any], args: argparse.Namespace) -> int:
    """A pipeline's version: its commands, and what each stage has left."""
    more = "; its pictures are in darts-core report, or show --html FILE" if args.pictures else ""
    what = f"the stages of a pipeline, which {version.label} is{more}"
    _refuse_unread(args, ("sort", "limit", "offset", "pictures"), what)
    if args.html:
        _write_page(version, args.html)
    rows = details["stages"]
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    if args.form != "text":
        print(render(columns, rows, args.form, details if args.form == "json" else None))
        return 0
    _print_head(details)
    print("commands")
    for row in details["commands"]:
        words = " ".join(row["overrides"] or ())
        print(f"  {neutral(row['command'])} {row['state']}  {neutral(words, 500)}".rstrip())
        if row["message"]:
            print(f"    {neutral(row['message'], 1000)}")
    if details["log_tail"]:
        print("log        " + "\n           ".join(details["log_tail"]))
    print("\nstages")
    print(render(columns, rows))
    return 0


def _print_head(details: Mapping[str, Any]) -> None:
    message = neutral(details["message"] or "", 1000)
    print(f"{details['job']}/{details['version']}  {details['state']}  {message}".rstrip())
    print(f"kind       {neutral(details['kind'])}")
    print(f"parent     {short(details['parent'])}")
    if details["description"]:
        print(f"about      {neutral(details['description'], 1000)}")
    moments = f"{clock(details['started'])}   ended {clock(details['ended'])}"
    print(f"started    {moments}   (times of this machine, now {zone()})")
    print(f"folder     {neutral(details['folder'])}")


def _print_details(details: Mapping[str, Any], shares: Mapping[str, float]) -> None:
    _print_head(details)
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
    folders = [path for path in version.path.glob("*/trials/*") if path.name == trial_id]
    if not trial_id.isalnum() or not folders:
        raise JobError(f"{version.label} has no trial {trial_id[:40]!r}.")
    return folders[0]


def _show_trial(version: Version, args: argparse.Namespace) -> int:
    folder = _trial_folder(version, args.trial)
    names = ("result.json", "trial.json", "lease.json")
    path = next((folder / name for name in names if (folder / name).exists()), None)
    if path is None:
        raise JobError(f"The trial {args.trial} of {version.label} has left nothing to show yet.")
    row = read_mapping(path)
    row["iterations"] = [
        r for r in read_jsonl(folder / "reports.jsonl") if r.get("kind") == "iteration"
    ]
    if args.form == "json":
        print(render((), [], "json", extra={**row, "folder": str(folder)}))
        return 0
    for name, value in row.items():
        if name != "iterations":
            print(f"{neutral(name):20} {clock(value) if name == 'ended' else short(value)}")
    print(
        "\n".join(
            f"  {r.get('iteration')}: {short(r.get('metrics'))}" for r in row["iterations"][-20:]
        )
    )
    print("log:\n  " + "\n  ".join(tail(folder / "log.txt", TAIL_LINES)))
    return 0


def run_logs(store: Store, args: argparse.Namespace) -> int:
    """`jobs logs`."""
    version = store.version(args.job)
    path = log_path(version)
    if args.trial:
        path = _trial_folder(version, args.trial) / "log.txt"
        if version.kind != SCRIPT and not path.exists():
            raise JobError(
                f"The trial {args.trial} of {version.label} has no log of its own; see darts-core jobs logs "
                f"{version.label}."
            )
    offset = 0
    if args.tail is not None:
        # lines of 64 KiB on average: one without an end is not read whole
        most = 2**16 * max(16, args.tail)
        for line in tail(path, args.tail, most=most) if args.tail > 0 else ():
            print(line)
        offset = path.stat().st_size if path.exists() else 0
    while True:
        live = version.running() is not None
        if path.exists():
            with path.open("rb") as stream:
                stream.seek(offset)
                offset += _print_lines(stream, rest=not (args.follow and live))
            sys.stdout.flush()
        if not args.follow or not live:
            return 0
        time.sleep(0.2)


def _print_lines(stream: BinaryIO, *, rest: bool) -> int:
    """Print the lines from here on, each cut and made harmless; how many bytes they took.

    A part of the file is held at a time, whatever its size.

    Args:
        stream: a log, at the beginning of a line.
        rest: print what stands behind the last line end, too; else it waits for the end of its line.
    """
    held, read, pending = b"", 0, 0
    while chunk := stream.read(_PART):
        held, read, pending = held + chunk, read + len(chunk), pending + len(chunk)
        # behind a line end, so that no character is cut in two
        end = held.rfind(b"\n") + 1
        if not end and len(held) >= _PART:
            # the states of a progress bar; the last byte may be the first half of \r\n
            end = held.rfind(b"\r", 0, -1) + 1
            held = held if end else held[:_SHOWN]
        if end:
            _print_all(held[:end])
            held = held[end:]
            pending = len(held)
    if rest:
        _print_all(held)
        pending = 0
    return read - pending


def _print_all(lines: bytes) -> None:
    for line in lines.decode("utf-8", "replace").splitlines():
        print(neutral(line, _LINE))
