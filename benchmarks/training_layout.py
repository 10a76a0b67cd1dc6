"""A training step with channels last in memory against one with channels first, in turns in one process.

    python -m benchmarks.training_layout --threads 1 --rounds 15
    python -m benchmarks.training_layout --device cuda --precision bf16 --rounds 50

What is stated is the ratio of the two, round by round: median, standard deviation, smallest and largest.
`elastic` is a step of four sub-networks of resnet20 with the teacher asked.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.architecture import Architecture
from darts_core.bench.results import command_line, write_results
from darts_core.device import require_device, wait_for
from darts_core.elastic import Sandwich, elastic
from darts_core.layout import in_layout, input_in_layout
from darts_core.models.baselines import baseline
from darts_core.supernet import build

NETWORKS = ("resnet20", "resnet18", "mobilenetv2", "DARTS_V2", "elastic")
LAYOUTS = {"first": torch.contiguous_format, "last": torch.channels_last}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--results", default="benchmarks/results")
    return parser.parse_args()


def _network(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "DARTS_V2":
        return build(Architecture.named("DARTS_V2"), num_classes=10, channels=16, layers=8)
    return baseline("resnet20" if name == "elastic" else name, 10)


def _step(
    name: str, layout: torch.memory_format, x: Tensor, y: Tensor, low: bool
) -> Callable[[int], None]:
    """What takes step k of a training of its own."""
    model = _network(name).to(x.device)
    net = elastic(model, x) if name == "elastic" else None
    sandwich = Sandwich(net, cache_mib=0) if net is not None else None
    model, x = in_layout(model.train(), layout), input_in_layout(x, layout)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def loss_of(output: Any) -> Tensor:
        return nn.functional.cross_entropy(output[0] if isinstance(output, tuple) else output, y)

    def step(count: int) -> None:
        optimizer.zero_grad()
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=low):
            if sandwich is not None:
                sandwich.step = count
                sandwich.backward(x, loss_of)
            else:
                loss_of(model(x)).backward()
        optimizer.step()

    return step


def _times(name: str, options: argparse.Namespace) -> dict[str, list[float]]:
    device = require_device(options.device)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(options.batch, 3, options.size, options.size, generator=generator).to(device)
    y = torch.randint(10, (options.batch,), generator=generator).to(device)
    steps = {k: _step(name, v, x, y, options.precision == "bf16") for k, v in LAYOUTS.items()}
    times: dict[str, list[float]] = {k: [] for k in LAYOUTS}
    for round_ in range(-2, options.rounds):
        for layout, step in steps.items():
            step(round_ + 2)  # a sub-network's shapes are compiled when they are met first
            wait_for(device)
            begin = time.perf_counter()
            step(round_ + 2)
            wait_for(device)
            if round_ >= 0:
                times[layout].append(1e3 * (time.perf_counter() - begin))
    return times


def main() -> None:
    """Time and write."""
    options = _options()
    torch.set_num_threads(options.threads)
    rows = []
    for name in options.networks:
        times = _times(name, options)
        ratios = [a / b for a, b in zip(times["last"], times["first"], strict=True)]
        row = {
            "network": name, "batch": options.batch, "size": options.size, "precision": options.precision,
            "threads": options.threads, "n": options.rounds,
            "channels_first_ms": statistics.median(times["first"]),
            "channels_last_ms": statistics.median(times["last"]),
            "ratio": statistics.median(ratios), "ratio_std": statistics.stdev(ratios),
            "ratio_min": min(ratios), "ratio_max": max(ratios),
        }  # fmt: skip
        rows.append(row)
        first, last = row["channels_first_ms"], row["channels_last_ms"]
        print(
            f"{name:12s} {first:8.1f} ms, channels last {last:8.1f} ms: "
            f"{row['ratio']:.2f} (sd {row['ratio_std']:.2f})",
            flush=True,
        )
    path = write_results(
        "training-layout", rows, folder=options.results, name=options.precision,
        command=command_line(without=("--results",)),
    )  # fmt: skip
    print(path)


if __name__ == "__main__":
    main()
