"""A battery of bad inputs through the real commands, counted: `python -m benchmarks.bad_inputs`.

Each setting outside of what it declares and each reader with hostile files, a case a process, two at a
time (about 20 minutes on two idle cores). The counts go to `benchmarks/results/`, with what went wrong.
"""

from __future__ import annotations

import argparse
import collections
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from darts_core.bench.results import write_results

ROOT = Path(__file__).resolve().parent.parent
RUNNER = ROOT / "tests" / "battery" / "battery_run.py"
WRONG = ("defect", "accepted", "hang", "no sentence")


def run(
    folder: Path, *, processes: int = 2, every: int = 1, groups: str = ""
) -> list[dict[str, Any]]:
    """The rows of all cases, run by so many processes at a time.

    Args:
        folder: receives the rows, and the cases' files while they run.
        processes: at a time.
        every: take only each so many-th case.
        groups: a regular expression that the names of the groups fit.
    """
    options = [str(processes), str(folder), str(every), groups]
    words = [[str(part), *options] for part in range(processes)]
    running = [subprocess.Popen([sys.executable, str(RUNNER), *part]) for part in words]
    if any(process.wait() for process in running):
        raise RuntimeError("a process of the battery failed; its message stands above")
    found = [(folder / f"{part}.json").read_text(encoding="utf-8") for part in range(processes)]
    return [row for text in found for row in json.loads(text)]


def counted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a group: cases, refused, done, and each way to be wrong."""
    groups: dict[str, collections.Counter[str]] = {}
    for row in rows:
        count = groups.setdefault(row["group"], collections.Counter())
        count.update(("cases", row["verdict"]))
        count["left a folder"] += bool(row["left"])
    kinds = ("cases", "refused", "done", *WRONG, "left a folder")
    return [
        {"group": group, **{kind: count[kind] for kind in kinds}} for group, count in groups.items()
    ]


def main() -> int:
    """Run the battery and write its counts; status 1 when something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="only each so many-th case")
    parser.add_argument("--groups", default="", help="only groups that this expression fits")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="keep the rows of single cases here")
    args = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = run(folder, processes=args.processes, every=args.every, groups=args.groups)
    wrong = [row for row in rows if row["verdict"] in WRONG or row["left"]]
    notes = {
        "cases": len(rows), "every": args.every, "groups": args.groups,
        "seconds": round(time.monotonic() - started),
        "wrong": [{k: row[k] for k in ("name", "verdict", "status", "left", "output")} for row in wrong],
    }  # fmt: skip
    path = write_results("bad-inputs", counted(rows), notes=notes)
    print(f"{len(rows)} cases, {len(wrong)} wrong: {path}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
