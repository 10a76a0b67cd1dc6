"""The same sweep on every engine: local workers, PostgreSQL, a Ray cluster, submitit's processes, Slurm.

    python -m benchmarks.engines --trials 30 --workers 2 --rounds 2

Each engine runs the same command of `darts-core tune` on real digits, round after round; over PostgreSQL one
command a worker, each with a folder of its own and nothing in common but the database. The sampler is
random and training takes one thread, so that all engines must find the same values. What is looked at
afterwards are the books: every trial once, in one sitting, with every epoch once. Idle is the time of workers
between the first beginning and the last end that lies in no trial; start-up is the time before the first
beginning. The cost is the processor time of the command and of all that serves it meanwhile (nodes, daemons,
server), by a control group. Engines that are not installed are named and left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from benchmarks import postgresql, slurm_node
from benchmarks.processor_account import processor_account
from darts_core.bench.results import command_line, write_results
from darts_core.runlog import processor_name
from darts_core.study.storage import open_storage

EPOCHS = 9
TRAINED = (
    "data=digits", "data.limit=200", "architecture=DARTS_V2", "train.layers=2", "train.channels=4",
    "train.batch_size=32", f"train.epochs={EPOCHS}", "train.learning_rate=tag(log,interval(0.003,0.3))",
    "train.weight_decay=interval(0,0.01)", "hydra/sweeper/sampler=random", "hydra/sweeper/pruner=none",
)  # fmt: skip
STUDY = "tune"


@dataclass(frozen=True)
class Place:
    """Where a sweep runs: what its command says of it, how many such commands, and the books' URL if any."""

    overrides: tuple[str, ...] = ()
    commands: int = 1
    url: str | None = None


@contextlib.contextmanager
def ray_cluster(nodes: int) -> Iterator[Place]:
    """A head without processors and so many nodes of one each, on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_enable_metrics_collection", "0")
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=0, object_store_memory=80 * 2**20)
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20, include_dashboard=False)
        yield Place(("hydra/launcher=ray", f"hydra.launcher.address={cluster.address}"))
    finally:
        cluster.shutdown()


@contextlib.contextmanager
def on_slurm(cluster: str) -> Iterator[Place]:
    """Jobs in submitit's own processes, or on a Slurm of one node."""
    chosen = ("hydra/launcher=slurm", "hydra.launcher.minutes=60")
    if cluster == "local":
        yield Place((*chosen, "hydra.launcher.cluster=local"))
        return
    with slurm_node.slurm_node():
        yield Place(chosen)


@contextlib.contextmanager
def over_postgresql(workers: int) -> Iterator[Place]:
    """A command a worker; they have a database in common, and no folder."""
    with postgresql.postgresql_server(fsync="on") as server:
        named = f"hydra.sweeper.study_name={STUDY}"
        yield Place((f"hydra.sweeper.storage={server.url}", named), workers, server.url)


@contextlib.contextmanager
def here() -> Iterator[Place]:
    """This machine's own workers."""
    yield Place()


def places(workers: int) -> dict[str, Any]:
    """Name -> what makes the context manager of a place, or the reason why it is left out."""
    return {
        "local workers": here,
        f"PostgreSQL, {workers} commands": (
            postgresql.why_not() or (lambda: over_postgresql(workers))
        ),
        f"Ray, {workers} nodes and a head": lambda: ray_cluster(workers),
        "submitit's processes": lambda: on_slurm("local"),
        "Slurm, one node": slurm_node.why_not() or (lambda: on_slurm("slurm")),
    }


def run_commands(command: Sequence[str], outs: Sequence[Path]) -> None:
    """Run the command once for each folder, all at the same time."""
    program = [sys.executable, "-m", "darts_core.cli", *command]
    running = [
        subprocess.Popen(
            [*program, f"out={out}"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, encoding="utf-8",
        )
        for out in outs
    ]  # fmt: skip
    for process in running:
        said = process.communicate()[1]
        if process.returncode:
            raise SystemExit(
                f"darts-core {' '.join(command)} ended with {process.returncode}:\n{said}"
            )


def books(outs: Sequence[Path], url: str | None, trials: int, workers: int) -> dict[str, Any]:
    """What stands in them, and how the workers' time went."""
    folders = [found for out in outs for found in out.glob("*/V001/tune")]
    known = optuna.load_study(study_name=STUDY, storage=open_storage(folders[0], url)).get_trials()
    paths = [path for folder in folders for path in folder.glob("trials/*/result.json")]
    results = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    results.sort(key=lambda result: result["number"])
    epochs: Counter[tuple[str, int]] = Counter()
    for path in (path for folder in folders for path in folder.glob("trials/*/metrics.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            epochs[path.parent.name, json.loads(line)["epoch"]] += 1
    # the books' device-seconds are shares of a core that workers have in common; these are the clock's
    times = [
        (t.datetime_start.timestamp(), t.datetime_complete.timestamp())
        for t in known
        if t.datetime_start and t.datetime_complete
    ]
    seconds = [end - begin for begin, end in times]
    states = Counter(trial.state.name.lower() for trial in known)
    ran = Counter(result["number"] for result in results)
    first, last = min(begin for begin, _ in times), max(end for _, end in times)
    span = last - first
    return {
        "trials": len(known),
        **{state: states[state] for state in ("complete", "fail", "pruned")},
        "lost": sum(ran[number] == 0 for number in range(trials)),
        "run_twice": sum(count > 1 for count in ran.values()),
        "sittings": sum(result["attempts"] for result in results),
        "epochs_once": len(epochs) == trials * EPOCHS and set(epochs.values()) == {1},
        "values": [result["values"][0] for result in results],
        "trial_seconds": round(sum(seconds), 1),
        "trial_seconds_median": round(statistics.median(seconds), 2),
        "trial_seconds_spread": [round(q, 2) for q in (min(seconds), max(seconds))],
        "span_seconds": round(span, 1),
        "idle_percent": round(100 * (1 - sum(seconds) / (workers * span)), 1),
        "began": first,
    }


def sweep(
    place: Place, trials: int, workers: int, out: Path, used: Callable[[], float] | None
) -> dict[str, Any]:
    """Run it once and look at its books; a row."""
    each = f"tune.workers={workers // place.commands}"
    command = ["tune", "-m", "hydra/sweeper=darts", *TRAINED, f"tune.trials={trials}", each]
    command += place.overrides
    outs = [out / str(index) for index in range(place.commands)]
    began, before = time.time(), used() if used else 0.0
    run_commands(command, outs)
    ended, after = time.time(), used() if used else 0.0
    found = books(outs, place.url, trials, workers)
    startup = found.pop("began") - began
    shown = " ".join(command).replace(postgresql.PASSWORD, "***")
    return {
        "command": f"darts-core {shown}",
        "commands": place.commands,
        **found,
        "startup_seconds": round(startup, 1),
        "command_seconds": round(ended - began, 1),
        "processor_seconds": round(after - before, 1) if used else None,
        "processor_seconds_a_trial": round((after - before) / trials, 2) if used else None,
    }


def main() -> None:
    """Run all engines, print and store the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", default="benchmarks/results")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    rows: list[dict[str, Any]] = []
    with processor_account() as used:
        for round_ in range(args.rounds):
            for name, place in places(args.workers).items():
                if isinstance(place, str):
                    print(f"{name}: left out ({place})")
                    continue
                with place() as chosen, tempfile.TemporaryDirectory() as out:
                    row = sweep(chosen, args.trials, args.workers, Path(out), used)
                row = {"name": name, "round": round_, **row}
                row["values_as_local"] = row["values"] == (rows or [row])[0]["values"]
                rows.append(row)
                print({k: v for k, v in row.items() if k not in ("values", "command")}, flush=True)
    path = write_results(
        "engines",
        rows,
        folder=args.out,
        device=f"{processor_name()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores",
        command=command_line(without=("--out",)),
        notes={
            "trials": args.trials,
            "workers": args.workers,
            "rounds": args.rounds,
            "trial": f"{EPOCHS} epochs of DARTS_V2, 2 layers, 4 channels, on 200 digits; one thread",
            "seconds": "of workers that share the named cores with each other and with other work",
            "processor_seconds": "of the command and of all that serves it meanwhile; a cluster's or "
            "server's own start and end are not in them",
        },
    )
    print(path)


if __name__ == "__main__":
    main()
