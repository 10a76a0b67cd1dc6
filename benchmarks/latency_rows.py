"""The rows of a space's latency table, timed in groups and each alone; do they rank networks alike?

    OMP_NUM_THREADS=1 python -m benchmarks.latency_rows      # some 5 minutes of one core, 8 of two

Every row of the table is timed twice within one run, group by group: as `latency.rows` does, and alone, over
five rounds of 0.05 s in turn with what is taken off it, each after a pause; with more than one thread also in
groups whose sessions spin for long after a call, each after a long pause. Then random networks are timed end
to end twice, in turn with a hand-designed network; one thread by its processor time, so that other work on
the machine moves neither ranks nor ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from darts_core.architecture import Architecture
from darts_core.bench.results import write_results
from darts_core.latency import choice_cost, deployed, device_name
from darts_core.latency import rows as grouped
from darts_core.latency.check import spearman
from darts_core.latency.deployed import in_runtime, without_norms
from darts_core.latency.samples import SETTLE_SECONDS
from darts_core.latency.table import LatencyTable, open_table
from darts_core.latency.turns import in_turn, ratios_in_turn
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
    """The tables, filled in turns, and what each took: the clock's seconds and the processor's."""

    def __init__(self) -> None:
        # name -> microseconds for which sessions spin after a call, seconds before another one is sampled
        self._grouped = {"in groups": (deployed.SPIN_MICROSECONDS, deployed.settle_seconds("onnx"))}
        if torch.get_num_threads() > 1:
            self._grouped["long pauses"] = (50_000, SETTLE_SECONDS)
        self.rows: dict[str, dict[str, float]] = {name: {} for name in (*self._grouped, "alone")}
        self.seconds = {name: np.zeros(2) for name in self.rows}

    def fill(self, wanted: Mapping[str, Any]) -> None:
        """Every row of `wanted`, all ways."""
        made = {
            name: grouped.groups_of(wanted, "onnx", CPU, torch.float32) for name in self._grouped
        }
        while len(self.rows["alone"]) < len(wanted):
            for name, groups in made.items():
                with self._counted(name):
                    found = self._timed(groups, *self._grouped[name])
                self.rows[name] |= found
            with self._counted("alone"):
                self.rows["alone"] |= {key: alone(wanted[key]) for key in found}
            print(f"{len(self.rows['alone'])} of {len(wanted)} rows", flush=True)

    def _timed(self, groups: Iterator[grouped.Group], spin: int, pause: float) -> dict[str, float]:
        deployed.SPIN_MICROSECONDS = spin
        pause = pause if torch.get_num_threads() > 1 else 0.0
        return grouped.time_group(next(groups), CPU, seconds=grouped.ROUND_SECONDS, settle=pause)[0]

    @contextlib.contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        before = np.array([time.monotonic(), time.process_time()])
        yield
        self.seconds[name] += np.array([time.monotonic(), time.process_time()]) - before


def model_of(space: ChoiceSpace, fill: Any) -> choice_cost.ChoiceCost:
    """The cost model of a table that `fill` fills."""

    def given(table: LatencyTable, wanted: Mapping[str, Any], **_: Any) -> None:
        table.rows |= fill(wanted)

    choice_cost.fill_table = given
    table = open_table(None, CPU, "onnx", torch.float32)
    sample = torch.randn(2, 1, 8, 8)
    return choice_cost.choice_latency_model(space, make, sample, table, batch=BATCH, device=CPU)


def agreement(rows: Mapping[str, float], alone: Mapping[str, float]) -> dict[str, float]:
    """Ratios of the rows above 5 microseconds: 5 % quantile, median, 95 % quantile."""
    ratios = [rows[key] / ms for key, ms in alone.items() if ms > 5e-3]
    q05, median, q95 = (float(q) for q in np.quantile(ratios, [0.05, 0.5, 0.95]))
    return {"rows": len(ratios), "median": median, "q05": q05, "q95": q95}


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
            [pairs] = ratios_in_turn([own], rival, rounds=3, seconds=SECONDS)
            ratios.append(statistics.median(pairs))
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

    models = {"in groups": model_of(space, both)}
    for way in list(ways.rows)[1:]:
        models[way] = model_of(space, lambda _, way=way: ways.rows[way])
    rng, drawn = np.random.default_rng(5), {}
    while len(drawn) < args.networks:
        architecture = space.random(rng)
        drawn.setdefault(repr(make(architecture)), architecture)
    networks = list(drawn.values())
    first, again = measured(networks)
    truth = [(a + b) / 2 for a, b in zip(first, again, strict=True)]
    rows: list[dict[str, Any]] = [
        {"what": "way", "name": name, "rows": len(ways.rows[name]),
         "seconds": ways.seconds[name][0], "processor_seconds": ways.seconds[name][1],
         "spearman_with_measured": spearman([model.sum_of(a) for a in networks], truth)}
        for name, model in models.items()
    ]  # fmt: skip
    rows.append({"what": "agreement", "test_retest": spearman(first, again)} | {
        f"{way} over alone": agreement(ways.rows[way], ways.rows["alone"])
        for way in models if way != "alone"
    })  # fmt: skip
    path = write_results(
        "latency-rows", rows, device=device_name(CPU), folder=args.out,
        command=f"python -m benchmarks.latency_rows --space {args.space} --networks {args.networks}",
        notes={"threads": torch.get_num_threads(), "batch": BATCH, "state_of_the_machine": args.note,
               "measured": "over ResNet-8 in turn, one thread by its processor time"},
    )  # fmt: skip
    for row in rows:
        print(row)
    print(path)


if __name__ == "__main__":
    main()
