"""How long `darts-core jobs list` takes over many jobs of both kinds.

    python benchmarks/jobs_list.py --jobs 1000 --repeats 7

The jobs have ended, half of them pipelines and half searches of a script; each has a record, a message and a
summary, as real ones have. Measured are the whole command, the start of Python included, and the listing
alone in a process that is warm, in turn with `darts-core jobs template list`, which reads no job. On a busy
machine the clock says little: the processor's time and the load before are stated.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from darts_core.bench.results import command_line, write_results
from darts_core.cli import main as darts_core
from darts_core.store.claim import claim
from darts_core.store.jobs import Store
from darts_core.store.record import PIPELINE, SCRIPT, new_record
from darts_core.store.summary import write_summary


def make(root: Path, jobs: int) -> None:
    """So many jobs with one finished version each."""
    store = Store(root)
    for number in range(jobs):
        name = f"job{number:05d}"
        if number % 2:
            mine = claim(root, name, kind=PIPELINE, command="search", stamp="s",
                         details={"overrides": [f"seed={number}"], "mark": "m"})  # fmt: skip
            mine.finish("An architecture was found.")
            mine.release()
            version = mine.version
        else:
            store.create_job(name, f"number {number}", kind=SCRIPT)
            record = new_record(SCRIPT, commands={"autosearch": {"request": {"code": "/code"}}})
            with store.new_version(name, record):
                pass
            version = store.version(name)
            version.set_state("succeeded", message="Nothing beat your own configuration.")
        points = [0.5 + 0.01 * i for i in range(24)]
        write_summary(version, metric="accuracy", best=0.73, baseline=0.7, sparkline=points)


def _command(*words: str) -> tuple[float, float]:
    """Seconds by the clock and of the processor that one `darts-core jobs ...` takes."""
    begun, before = time.perf_counter(), os.times()
    done = subprocess.run([sys.executable, "-m", "darts_core.cli", "jobs", *words],
                          capture_output=True, check=True)  # fmt: skip
    assert done.stdout
    after = os.times()
    used = after.children_user + after.children_system
    return time.perf_counter() - begun, used - before.children_user - before.children_system


def _warm(root: Path) -> tuple[float, float]:
    begun, before = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        darts_core(["jobs", "--root", str(root), "list"])
    return time.perf_counter() - begun, time.process_time() - before


def _row(name: str, jobs: int, taken: list[tuple[float, float]]) -> dict[str, Any]:
    clock, processor = zip(*taken, strict=True)
    return {
        "name": name,
        "jobs": jobs,
        "median_seconds": round(statistics.median(clock), 4),
        "fastest_seconds": round(min(clock), 4),
        "slowest_seconds": round(max(clock), 4),
        "median_processor_seconds": round(statistics.median(processor), 4),
        "n": len(taken),
    }


def main() -> None:
    """Measure, print and store the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", default="benchmarks/results")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make(root, args.jobs)
        _warm(root)
        whole, start, warm = [], [], []
        for _ in range(args.repeats):
            whole.append(_command("--root", folder, "list"))
            start.append(_command("template", "list"))
            warm.append(_warm(root))
    rows = [
        _row("the whole command", args.jobs, whole),
        _row("a command that reads no job", 0, start),
        _row("the listing alone", args.jobs, warm),
    ]
    for row in rows:
        print(row)
    path = write_results(
        "jobs-list",
        rows,
        folder=args.out,
        command=command_line(without=("--out",)),
        notes={**vars(args), "load_before": load},
    )
    print(path)


if __name__ == "__main__":
    main()
