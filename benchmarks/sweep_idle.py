"""How long the workers of a sweep idle: trials of very different length, with and without a barrier.

    python benchmarks/sweep_idle.py --trials 60 --short 1 --long 5 --workers 2

The trials sleep, alternately `short` and `long` seconds, so any worker time that is not spent in a
trial is the sweep's own: claiming, drawing, storing, waiting. Both ways run the same trials through
the same study code; batch-wise starts as many trials as there are workers and waits for all of them,
as sweepers do that launch batches of jobs. Time before the first trial begins (start of the worker
processes) is left out and stated.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darts_core.bench.results import command_line, write_results
from darts_core.runlog import read_json, write_json
from darts_core.study import TrialHandle, run_study

SPACE = {"x": {"low": 0.0, "high": 1.0}}


@dataclass(frozen=True)
class Sleep:
    """A trial that sleeps by its number's parity and writes down when."""

    short: float
    long: float
    reuse_process: bool = True

    def __call__(self, trial: TrialHandle) -> float:
        """The only parameter."""
        begin = time.time()
        time.sleep(self.long if trial.number % 2 else self.short)
        write_json(trial.folder / "span.json", {"begin": begin, "end": time.time()})
        return trial.params["x"]


def spans(folder: Path) -> list[tuple[float, float]]:
    """(begin, end) of every trial in `folder`."""
    found = [read_json(path) for path in sorted(folder.glob("trials/*/span.json"))]
    return [(span["begin"], span["end"]) for span in found]


def idle_share(times: list[tuple[float, float]], workers: int) -> float:
    """Share of worker time, from the first beginning to the last end, that lies in no trial."""
    wall = max(end for _, end in times) - min(begin for begin, _ in times)
    return 1 - sum(end - begin for begin, end in times) / (workers * wall)


def shared(objective: Sleep, trials: int, workers: int) -> dict[str, Any]:
    """One study whose workers take the next trial as soon as they are free."""
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        run_study(objective, SPACE, folder=folder, trials=trials, workers=workers, sampler="random")
        times = spans(Path(folder))
    return _row("shared study", times, workers, started)


def batch_wise(objective: Sleep, trials: int, workers: int) -> dict[str, Any]:
    """The same trials in batches of `workers`, with a barrier after each batch."""
    started = time.time()
    times: list[tuple[float, float]] = []

    def one(number: int) -> None:
        begin = time.time()
        time.sleep(objective.long if number % 2 else objective.short)
        times.append((begin, time.time()))

    for first in range(0, trials, workers):
        batch = range(first, min(first + workers, trials))
        threads = [threading.Thread(target=one, args=(number,)) for number in batch]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return _row("batch-wise", times, workers, started)


def _row(
    name: str, times: list[tuple[float, float]], workers: int, started: float
) -> dict[str, Any]:
    first = min(begin for begin, _ in times)
    return {
        "name": name,
        "trials": len(times),
        "idle_percent": round(100 * idle_share(times, workers), 2),
        "wall_seconds": round(max(end for _, end in times) - first, 2),
        "startup_seconds": round(first - started, 2),
    }


def main() -> None:
    """Run both ways, print and store the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--short", type=float, default=1.0)
    parser.add_argument("--long", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", default="benchmarks/results")
    args = parser.parse_args()
    objective = Sleep(args.short, args.long)
    rows = [
        shared(objective, args.trials, args.workers),
        batch_wise(objective, args.trials, args.workers),
    ]
    for row in rows:
        print(row)
    path = write_results(
        "sweep-idle",
        rows,
        folder=args.out,
        command=command_line(without=("--out",)),
        notes=vars(args),
    )
    print(path)


if __name__ == "__main__":
    main()
