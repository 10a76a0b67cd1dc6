"""What the live page bears: jobs, versions of one job and trials of one version, in steps of ten.

    python -m benchmarks.web_scale --jobs 100 1000 10000 --versions 10 100 1000 --trials 100 1000 10000

At each step a server of its own answers the page that shows them: anew after each change (one job is edited,
a trial ends), and again without a change. Stated are the bytes of the page, milliseconds of the server's
processor an answer (the mean; what else runs on the machine does not stretch it), the clock's median, and the
resident memory at the end. A trial has ten reports.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.jobs_list import make
from benchmarks.web_page import Search, Served
from darts_core.bench.results import command_line, write_results
from darts_core.store.jobs import Store
from darts_core.store.record import SCRIPT, new_record

ITERATIONS = 10


def answers(served: Served, path: str, times: int, change: Callable[[int], None]) -> dict[str, Any]:
    """So many answers, each after a change; milliseconds and KiB."""
    taken, size, before = [], 0, served.processor_seconds
    for turn in range(times):
        change(turn)
        seconds, size = asyncio.run(served.get(path))
        taken.append(1000 * seconds)
    used = 1000 * (served.processor_seconds - before) / times
    return {
        "processor_ms": round(used, 1),
        "clock_ms": round(statistics.median(taken), 1),
        "slowest_clock_ms": round(max(taken), 1),
        "page_kib": round(size / 1024, 1),
        "n": times,
    }


def step(root: Path, path: str, change: Callable[[int], None], repeats: int) -> dict[str, Any]:
    """Both kinds of answers of a fresh server; the first one is not counted."""
    served = Served(root)
    try:
        asyncio.run(served.get(path))
        anew = answers(served, path, repeats, change)
        again = answers(served, path, 10 * repeats, lambda _: None)
        return {"anew": anew, "again": again, "mib": round(served.mib, 1)}
    finally:
        served.end()


def jobs(count: int, root: Path, repeats: int) -> dict[str, Any]:
    """A store of so many jobs."""
    make(root, count)
    store = Store(root)
    return step(root, "/", lambda turn: store.edit_job("job00000", f"edited {turn}"), repeats)


def versions(count: int, root: Path, repeats: int) -> dict[str, Any]:
    """A job of so many versions."""
    store = Store(root)
    store.create_job("deep", kind=SCRIPT)
    for number in range(count):
        command = {"state": "succeeded", "request": {}, "started": 1.0, "ended": 2.0}
        record = new_record(SCRIPT, commands={"autosearch": command}, parent=f"V{number:03d}")
        with store.new_version("deep", record):
            pass
    return step(root, "/jobs/deep", lambda turn: store.edit_job("deep", f"edited {turn}"), repeats)


def trials(count: int, root: Path, repeats: int) -> dict[str, Any]:
    """A running search with so many ended trials."""
    search = Search(root, count, ITERATIONS)

    def change(_: int) -> None:
        search.report(1)
        search.finish()

    return step(root, "/jobs/busy/V001", change, repeats)


WAYS: dict[str, Callable[[int, Path, int], dict[str, Any]]] = {
    "jobs": jobs,
    "versions": versions,
    "trials": trials,
}


def main() -> None:
    """Measure, print and store the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, nargs="*", default=[100, 1000, 10000])
    parser.add_argument("--versions", type=int, nargs="*", default=[10, 100, 1000])
    parser.add_argument("--trials", type=int, nargs="*", default=[100, 1000, 10000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", default="benchmarks/results")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name, way in WAYS.items():
        for count in getattr(args, name):
            with tempfile.TemporaryDirectory() as folder:
                rows.append({"of": name, "count": count, **way(count, Path(folder), args.repeats)})
            print(rows[-1], flush=True)
    notes = {
        "processor_ms": "means of the server's process",
        "files": "in memory where TMPDIR is",
        "iterations": ITERATIONS,
    }
    command = command_line(without=("--out",))
    print(write_results("web-scale", rows, folder=args.out, notes=notes, command=command))


if __name__ == "__main__":
    main()
