"""The rows of a space's latency table, timed in groups and each alone; do they rank networks alike?

    OMP_NUM_THREADS=1 python -m benchmarks.latency_rows      # some 5 minutes of one core

Every row of the table is timed twice within one run, group by group: as `latency.rows` does, and alone, over
five rounds of 0.05 s in turn with what is taken off it, each after a pause. Then random networks are
timed end to end twice, in turn with a hand-designed network and by the processor time of their one thread,
so that other work on the machine moves neither ranks nor ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from darts_core.architecture import Architecture
from darts_core.bench.results import write_results
from darts_core.latency import choice_cost, device_name
from darts_core.latency import rows as grouped
from darts_core.latency.check import spearman
from darts_core.latency.deployed import in_runtime, without_norms
from darts_core.latency.table import LatencyTable, open_table
from darts_core.latency.turns import in_turn
from darts_core.models.baselines import baseline
from darts_core.spaces import ChoiceSpace, get_space
from darts_core.supernet import build

CPU, BATCH = torch.device("cpu"), 32
SIZES = {"channels": 16, "layers": 1, "num_classes": 10, "in_channels": 1}
ROUNDS, SECONDS = 5, 0.05


def make(architecture: Architecture) -> nn.Module:
    """The plain network."""
    return build(architecture, **SIZES)


def alone(subject: Any) -> float:
    """Milliseconds of one row, timed by itself."""
    base, module, x = subject.forms("onnx", CPU)
    before, after = in_runtime(base, x, "onnx"), in_runtime(module, x, "onnx")
    pairs = in_turn(before, after, rounds=ROUNDS, seconds=SECONDS)
    return max(statistics.median(b - a for a, b in pairs), 1e-4)


class Ways:
    """Both tables, filled in turns, and the processor seconds of each."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, float]] = {"in groups": {}, "alone": {}}
        self.seconds = dict.fromkeys(self.rows, 0.0)

    def fill(self, wanted: Mapping[str, Any]) -> None:
        """Every row of `wanted`, both ways."""
        groups = grouped.groups_of(wanted, "onnx", CPU, torch.float32)
        while True:
            started = time.process_time()
            group = next(groups, None)
            if group is None:
                return
            found, _ = grouped.time_group(
                group, CPU, seconds=grouped.ROUND_SECONDS, settle=torch.get_num_threads() > 1
            )
            done = time.process_time()
            for key in found:
                self.rows["alone"][key] = alone(wanted[key])
            self.rows["in groups"] |= found
            self.seconds["in groups"] += done - started
            self.seconds["alone"] += time.process_time() - done
            print(f"{len(self.rows['alone'])} of {len(wanted)} rows", flush=True)


def model_of(space: ChoiceSpace, fill: Any) -> choice_cost.ChoiceCost:
    """The cost model of a table that `fill` fills."""

    def given(table: LatencyTable, wanted: Mapping[str, Any], **_: Any) -> None:
        table.rows |= fill(wanted)

    choice_cost.fill_table = given
    table = open_table(None, CPU, "onnx", torch.float32)
    sample = torch.randn(2, 1, 8, 8)
    return choice_cost.choice_latency_model(space, make, sample, table, batch=BATCH, device=CPU)


def measured(networks: list[Architecture]) -> list[list[float]]:
    """Two times each network's time over ResNet-8's."""
    x = torch.randn(BATCH, 1, 8, 8)

    def call(network: nn.Module) -> Any:
        return in_runtime(without_norms(network.eval(), x), x, "onnx")

    rival, found = call(baseline("resnet8", 10, 1, 16)), []
    for _ in range(2):
        ratios = []
        for architecture in networks:
            own = call(make(architecture))
            pairs = in_turn(rival, own, rounds=3, seconds=SECONDS, clock=time.thread_time)
            ratios.append(statistics.median(b / a for a, b in pairs))
        found.append(ratios)
    return found


def main() -> None:
    """Parse the command line, time, write the results file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--space", default="convnet")
    parser.add_argument("--networks", type=int, default=48)
    parser.add_argument("--note", default="", help="of the machine's state, for the results file")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    space, ways = get_space(args.space), Ways()
    if not isinstance(space, ChoiceSpace):
        raise SystemExit(f"{args.space} is no space of choices")
    grouped.FOREIGN_CORES = 1e9  # both ways beside the same other work

    def both(wanted: Mapping[str, Any]) -> dict[str, float]:
        ways.fill(wanted)
        return ways.rows["in groups"]

    models = {
        "in groups": model_of(space, both),
        "alone": model_of(space, lambda _: ways.rows["alone"]),
    }
    rng, drawn = np.random.default_rng(5), {}
    while len(drawn) < args.networks:
        architecture = space.random(rng)
        drawn.setdefault(repr(make(architecture)), architecture)
    networks = list(drawn.values())
    first, again = measured(networks)
    truth = [(a + b) / 2 for a, b in zip(first, again, strict=True)]
    rows: list[dict[str, Any]] = [
        {"what": "way", "name": name, "rows": len(ways.rows[name]),
         "processor_seconds": ways.seconds[name],
         "spearman_with_measured": spearman([model.sum_of(a) for a in networks], truth)}
        for name, model in models.items()
    ]  # fmt: skip
    ratios = [ways.rows["in groups"][k] / ms for k, ms in ways.rows["alone"].items() if ms > 5e-3]
    q05, median, q95 = (float(q) for q in np.quantile(ratios, [0.05, 0.5, 0.95]))
    rows.append({"what": "agreement", "rows_above_5_us": len(ratios), "in_groups_over_alone": median,
                 "q05": q05, "q95": q95, "test_retest": spearman(first, again)})  # fmt: skip
    path = write_results(
        "latency-rows", rows, device=device_name(CPU), folder=args.out,
        command=f"python -m benchmarks.latency_rows --space {args.space} --networks {args.networks}",
        notes={"threads": torch.get_num_threads(), "batch": BATCH, "state_of_the_machine": args.note,
               "measured": "over ResNet-8 in turn, by the processor time of one thread"},
    )  # fmt: skip
    for row in rows:
        print(row)
    print(path)


if __name__ == "__main__":
    main()
