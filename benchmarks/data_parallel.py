"""What a second process gains: search, training and elastic training, one process and two in turns.

    python -m benchmarks.data_parallel

Two processes (gloo) of one thread each stay up for the whole run. In each round the first one alone takes an
epoch of steps while the second waits, then both take the steps of the same whole batches together, then the
first one alone takes them with two threads, as the other way to use two cores. Stated are milliseconds a
step: only training steps count, not evaluation, which the first process does alone. Ratios are taken within
a round.
"""

from __future__ import annotations

import argparse
import copy
import gc
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from darts_core.bench.results import write_results
from darts_core.data import DataBundle
from darts_core.distributed import Group, current_group, join_group
from darts_core.elastic import Sandwich, elastic
from darts_core.elastic.fit import fit_elastic
from darts_core.models.baselines import baseline
from darts_core.search import SearchConfig, search
from darts_core.search.distributed import search_distributed
from darts_core.spaces import get_space
from darts_core.strategies import FirstOrder
from darts_core.supernet import Supernet
from darts_core.testing import tiny_bundle
from darts_core.train import TrainConfig, fit

WAYS = ("one process", "two processes", "one process of two threads")


@dataclass(frozen=True)
class Case:
    """What is trained: `seconds` of an epoch of `steps` steps, in this group or alone."""

    name: str
    seconds: Callable[[Group | None], float]
    params: int
    steps: int


def searched(bundle: DataBundle, size: int, batch: int, steps: int) -> Case:
    """First-order search of NAS-Bench-201 cells on the path that the device has by default."""
    supernet = Supernet(
        get_space("nasbench201"), channels=size, layers=1, num_classes=3, in_channels=3
    )
    supernet.use_path("auto")
    config = SearchConfig(epochs=1, batch_size=batch, evaluate=False, alpha_learning_rate=3e-4)

    def seconds(group: Group | None) -> float:
        start = search if group is None else search_distributed
        return start(copy.deepcopy(supernet), FirstOrder(), bundle, config).seconds

    return Case("search", seconds, _size(supernet), steps)


def trained(bundle: DataBundle, size: int, batch: int, steps: int) -> Case:
    """Training of a residual network of three stages."""
    model, config = baseline("resnet14", 3, width=size), _recipe(batch)

    def seconds(group: Group | None) -> float:
        network = copy.deepcopy(model)
        return fit(
            network, bundle, config, select_on=None, verbose=False, group=group
        ).train_seconds

    return Case("training", seconds, _size(model), steps)


def shrunk(bundle: DataBundle, size: int, batch: int, steps: int) -> Case:
    """Elastic training of the same network: four sub-networks a step."""
    example = next(iter(bundle.batches("params", 2)))[0]
    net = elastic(baseline("resnet14", 3, width=size), example)
    config = _recipe(batch)

    def seconds(group: Group | None) -> float:
        made = copy.deepcopy(net)
        # no outputs are looked up: each round would find more of them
        fitted = fit_elastic(made, bundle, config, Sandwich(made, cache_mib=0.0, group=group))
        # of the steps alone: val is judged by the first process
        return sum(float(row["seconds"]) for row in fitted.history)

    return Case("elastic training", seconds, _size(net.model), steps)


def _recipe(batch: int) -> TrainConfig:
    return TrainConfig(epochs=1, batch_size=batch, drop_path=0.0)


def _size(model: nn.Module) -> int:
    return sum(param.numel() for param in model.parameters())


def compared(case: Case, group: Group, rounds: int) -> list[dict[str, Any]]:
    """One row a way; the first round warms up and does not count."""
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds + 1):
        for way in WAYS:
            gc.collect()
            dist.barrier()
            torch.manual_seed(number)
            torch.set_num_threads(2 if way == WAYS[2] else 1)
            took = 0.0
            if way == WAYS[1]:
                took = case.seconds(group)
            elif group.primary:
                took = _alone(case)
            torch.set_num_threads(1)
            if number:
                found[way].append(1000 * took / case.steps)
    dist.barrier()
    return [_row(case, way, found[way], found[WAYS[0]]) for way in WAYS]


def _alone(case: Case) -> float:
    """The first process's steps, which know nothing of the waiting one."""
    return case.seconds(Group.alone() if case.name == "elastic training" else None)


def _row(case: Case, way: str, own: list[float], one: list[float]) -> dict[str, Any]:
    ratios = [base / mine for base, mine in zip(one, own, strict=True)] if any(own) else [0.0]
    return {
        "case": case.name,
        "way": way,
        "step_ms": round(float(np.median(own)), 2),
        "step_ms_low": round(float(np.percentile(own, 25)), 2),
        "step_ms_high": round(float(np.percentile(own, 75)), 2),
        "times_as_fast": round(float(np.median(ratios)), 3),
        "times_as_fast_low": round(float(np.percentile(ratios, 25)), 3),
        "times_as_fast_high": round(float(np.percentile(ratios, 75)), 3),
        "n": len(own),
        "steps_a_round": case.steps,
        "params": case.params,
    }


def measured(args: argparse.Namespace) -> None:
    """In both processes: all cases of all sizes; the first one prints and writes."""
    join_group("gloo")
    group = current_group()
    assert group is not None
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for pixels, channels in args.sizes:
        # params and alpha hold two batches or more each for every step of both splits
        bundle = tiny_bundle(count=args.steps * args.batch * 4, size=pixels)
        bundle = _cut(bundle, args.steps * args.batch)
        for make in (searched, trained, shrunk):
            split = args.steps if make is searched else 2 * args.steps
            torch.manual_seed(0)
            case = make(bundle, channels, args.batch, split)
            for row in compared(case, group, args.rounds):
                rows.append({"pixels": pixels, "channels": channels, "batch": args.batch, **row})
                if group.primary:
                    print({key: row[key] for key in ("case", "way", "step_ms", "times_as_fast")})
    if group.primary:
        notes = {"threads_a_process": 1, "cores": len(os.sched_getaffinity(0))}
        command = f"python -m benchmarks.data_parallel {' '.join(sys.argv[1:])}".strip()
        print(write_results("data-parallel", rows, folder=args.out, command=command, notes=notes))
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # a worker thread of gloo must not meet the interpreter's end


def _cut(bundle: DataBundle, count: int) -> DataBundle:
    for split in ("params", "alpha"):
        bundle = bundle.take(split, count)
    return bundle


def _sizes(text: str) -> list[tuple[int, int]]:
    found = [part.split("x") for part in text.split(",")]
    return [(int(pixels), int(channels)) for pixels, channels in found]


def main() -> None:
    """Start the two processes, or be one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sizes", type=_sizes, default=_sizes("8x16,32x8"), help="PIXELSxCHANNELS,..."
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--steps", type=int, default=4, help="of a search a round; trainings: twice"
    )
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", default="benchmarks/results")
    args = parser.parse_args()
    if "RANK" in os.environ:
        measured(args)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *launcher, "-m", "benchmarks.data_parallel", *sys.argv[1:]]
    raise SystemExit(subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode)


if __name__ == "__main__":
    main()
