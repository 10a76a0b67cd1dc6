"""Many workers of one study under a PostgreSQL server with few connections: do the books stay exact?

    python -m benchmarks.connections --processes 64 --threads 200 --trials 400

First so many worker processes, as `tune` starts them, then so many workers in threads of one process, each
with books of its own. Connections are counted in the server (`pg_stat_activity`), five times a second, over
one connection that is open from the start.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.postgresql import Server, postgresql_server, why_not
from darts_core.bench.results import command_line, write_results
from darts_core.study.budget import Budget
from darts_core.study.launch import run_workers
from darts_core.study.ledger import Ledger
from darts_core.study.runner import CallableRunner
from darts_core.study.spec import StudySpec
from darts_core.study.study import open_study
from darts_core.study.worker import work

SPACE = {"x": {"low": 0.0, "high": 1.0}}
_COUNT = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"


def trial(handle: Any) -> float:
    """Notes its run, rests and reports twice."""
    with (handle.folder / "runs").open("a", encoding="utf-8") as stream:
        stream.write("run\n")
    for epoch in range(2):
        time.sleep(0.2)
        handle.report(epoch, val_accuracy=handle.params["x"])
    return float(handle.params["x"])


class Watch:
    """The most connections that the server had at once, the watching one included."""

    def __init__(self, server: Server) -> None:
        self.most, self._stop = 0, threading.Event()
        self._connection = psycopg.connect(server.url.replace("+psycopg", ""), autocommit=True)
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._connection.close()

    def _look(self) -> None:
        while not self._stop.wait(0.2):
            row = self._connection.execute(_COUNT).fetchone()
            self.most = max(self.most, row[0] if row else 0)


def in_processes(ledger: Ledger, count: int) -> None:
    """Workers in processes."""
    run_workers(ledger, trial, count)


def in_threads(ledger: Ledger, count: int) -> None:
    """Workers in threads, each with books of its own."""
    errors: list[BaseException] = []

    def body() -> None:
        try:
            work(ledger.spec, CallableRunner(trial, ledger.spec.wanted), say=False)
        except BaseException as error:  # raised below
            errors.append(error)

    threads = [threading.Thread(target=body) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def measured(server: Server, way: Any, count: int, trials: int, folder: Path) -> dict[str, Any]:
    """One study: its connections, its time, and whether each trial ran once."""
    spec = StudySpec.make(
        SPACE, Budget(trials=trials), folder=folder, sampler="random", pruner="none", storage=server.url
    )  # fmt: skip
    ledger = open_study(spec)
    started = time.monotonic()
    with Watch(server) as watch:
        way(ledger, count)
    seconds = time.monotonic() - started
    found = Ledger(spec).trials()
    states = Counter(t.state.name for t in found)
    runs = [len((ledger.trial_folder(t.number) / "runs").read_text("utf-8").split()) for t in found]
    numbers = [t.number for t in found]
    return {
        "way": way.__doc__.rstrip("."), "workers": count, "trials": trials, "most_connections": watch.most,
        "seconds": round(seconds, 1), "books_exact": numbers == list(range(trials)) and set(runs) == {1},
        "states": dict(states),
    }  # fmt: skip


def main() -> None:
    """Run both ways, print and store the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", type=int, default=64)
    parser.add_argument("--threads", type=int, default=200)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--room", type=int, default=100, help="max_connections of the server")
    parser.add_argument("--out", default="benchmarks/results")
    args = parser.parse_args()
    if (reason := why_not()) is not None:
        raise SystemExit(f"left out: {reason}")
    rows: list[dict[str, Any]] = []
    ways = (("processes", in_processes, args.processes), ("threads", in_threads, args.threads))
    with (
        tempfile.TemporaryDirectory() as folder,
        postgresql_server(max_connections=str(args.room)) as server,
    ):
        for name, way, count in ways:
            if not count:
                continue
            rows.append(measured(server, way, count, args.trials, Path(folder) / name))
            print(rows[-1], flush=True)
            # after each way: the next one may take long
            path = write_results(
                "connections",
                rows,
                folder=args.out,
                name=f"{args.processes}-processes-{args.threads}-threads",
                command=command_line(without=("--out",)),
                notes={
                    "max_connections": args.room,
                    "trial": "0.4 s, two reports",
                    "sampler": "random",
                },
            )
            print(path)


if __name__ == "__main__":
    main()
