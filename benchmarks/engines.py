"""The same sweep on every engine: local workers, a Ray cluster of several nodes, submitit's processes, Slurm.

    python benchmarks/engines.py --trials 30 --workers 2

Each engine runs the same command of `darts-core tune` on real digits. The sampler is random and training
takes one thread, so that all engines must find the same values. What is looked at afterwards are the books:
every trial once, in one sitting, with every epoch once. Idle is the time of workers between the first
beginning and the last end that lies in no trial; start-up is the time before the first beginning. Engines
that are not installed are named and left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna

from benchmarks.slurm_node import slurm_node, why_not
from darts_core.bench.results import write_results
from darts_core.study.storage import open_storage

TRAINED = (
    "data=digits", "data.limit=200", "architecture=DARTS_V2", "train.layers=2", "train.channels=4",
    "train.batch_size=32", "train.epochs=3", "train.learning_rate=tag(log,interval(0.003,0.3))",
    "train.weight_decay=interval(0,0.01)", "hydra/sweeper/sampler=random", "hydra/sweeper/pruner=none",
)  # fmt: skip


@contextlib.contextmanager
def ray_cluster(nodes: int) -> Iterator[list[str]]:
    """Overrides for a head without processors and so many nodes of one each, on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_enable_metrics_collection", "0")
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=0, object_store_memory=80 * 2**20)
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20, include_dashboard=False)
        yield ["hydra/launcher=ray", f"hydra.launcher.address={cluster.address}"]
    finally:
        cluster.shutdown()


@contextlib.contextmanager
def on_slurm(cluster: str) -> Iterator[list[str]]:
    """Overrides for jobs in submitit's own processes, or on a Slurm of one node."""
    chosen = ["hydra/launcher=slurm", "hydra.launcher.minutes=60"]
    if cluster == "local":
        yield [*chosen, "hydra.launcher.cluster=local"]
        return
    with slurm_node():
        yield chosen


def places(workers: int) -> dict[str, Any]:
    """Name -> context manager of overrides, or the reason why it is left out."""
    return {
        "local workers": contextlib.nullcontext([]),
        f"Ray, {workers} nodes and a head": ray_cluster(workers),
        "submitit's processes": on_slurm("local"),
        "Slurm, one node": why_not() or on_slurm("slurm"),
    }


def sweep(overrides: list[str], trials: int, workers: int, out: Path) -> dict[str, Any]:
    """Run the command and look at its books; a row."""
    chosen = [*TRAINED, f"tune.trials={trials}", f"tune.workers={workers}", *overrides]
    command = ["tune", "-m", "hydra/sweeper=darts", *chosen]
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "darts_core.cli", *command, f"out={out}"],
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    if done.returncode:
        raise SystemExit(
            f"darts-core {' '.join(command)} ended with {done.returncode}:\n{done.stderr}"
        )
    ended = time.time()
    (folder,) = out.glob("*/V001/tune")
    known = optuna.load_study(study_name="tune", storage=open_storage(folder)).get_trials()
    results = [
        json.loads(p.read_text(encoding="utf-8"))
        for p in sorted(folder.glob("trials/*/result.json"))
    ]
    epochs = [
        [json.loads(line)["epoch"] for line in path.read_text(encoding="utf-8").splitlines()]
        for path in sorted(folder.glob("trials/*/metrics.jsonl"))
    ]
    begins = [t.datetime_start.timestamp() for t in known if t.datetime_start]
    ends = [t.datetime_complete.timestamp() for t in known if t.datetime_complete]
    used = sum(r["device_seconds"] for r in results)
    span = max(ends) - min(begins)
    return {
        "command": f"darts-core {' '.join(command)}",
        "trials": len(known),
        "complete": sum(t.state.name == "COMPLETE" for t in known),
        "trials_once": [r["number"] for r in results] == list(range(trials)),
        "sittings": sum(r["attempts"] for r in results),
        "epochs_once": all(found == list(range(3)) for found in epochs) and len(epochs) == trials,
        "best_value": max(r["values"][0] for r in results),
        "values": [r["values"][0] for r in results],
        "trial_seconds": round(used, 1),
        "span_seconds": round(span, 1),
        "idle_percent": round(100 * (1 - used / (workers * span)), 1),
        "startup_seconds": round(min(begins) - began, 1),
        "command_seconds": round(ended - began, 1),
    }


def main() -> None:
    """Run all engines, print and store the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", default="benchmarks/results")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    rows: list[dict[str, Any]] = []
    for name, place in places(args.workers).items():
        if isinstance(place, str):
            print(f"{name}: left out ({place})")
            continue
        with place as overrides, tempfile.TemporaryDirectory() as out:
            row = {"name": name, **sweep(overrides, args.trials, args.workers, Path(out))}
        row["values_as_local"] = row["values"] == (rows or [row])[0]["values"]
        rows.append(row)
        print({k: v for k, v in row.items() if k not in ("values", "command")}, flush=True)
    path = write_results(
        "engines",
        rows,
        folder=args.out,
        device=f"{platform.machine()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores",
        command=f"python benchmarks/engines.py {' '.join(sys.argv[1:])}".strip(),
        notes={
            "trials": args.trials,
            "workers": args.workers,
            "trial": "3 epochs of DARTS_V2, 2 layers, 4 channels, on 200 digits; one thread",
            "seconds": "of workers that share the named cores with each other and with other work",
        },
    )
    print(path)


if __name__ == "__main__":
    main()
