"""The search step on a CPU: the published modules, our plain and our batched path, in turns in one process.

    python -m benchmarks.step_cpu --threads 1 --rounds 9
    python -m benchmarks.step_cpu --space nasbench201 --sizes 32 16 --layers 1

The machine may be shared: all forms take turns, and what is stated is the ratio of the rival's time to ours
round by round, as median with 5 and 95 % quantiles, on the process's own clock (`--threads 1`) or the wall's.
Before anything is timed the batched path must agree with the plain one in fp64 to 1e-10: output, gradients of
the alphas and params, and running statistics. Peak memory is that of a process of its own, above what it
had before its first step.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.baselines.plain_darts import PlainStep
from benchmarks.baselines.published_modules import as_published
from darts_core.bench.results import command_line, write_results
from darts_core.search.captured import CapturedStep
from darts_core.spaces import get_space
from darts_core.strategies import FirstOrder, SearchSettings
from darts_core.supernet import Supernet

FORMS = ("published", "plain", "batched")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="darts")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 16, 8])
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--layers", type=int, default=4, help="cells, or cells a stage")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", default="benchmarks/results")
    return parser.parse_args()


def _supernet(options: argparse.Namespace) -> Supernet:
    torch.manual_seed(0)
    space = get_space(options.space)
    return Supernet(space, channels=options.channels, layers=options.layers).train()


def _batches(options: argparse.Namespace, side: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(options.batch, 3, side, side, generator=generator),
            torch.randint(10, (options.batch,), generator=generator),
        )
        for _ in range(2)
    ]


def _step(form: str, net: Supernet, batches: list[Any]) -> Callable[[], Any]:
    params, alpha = batches
    if form == "published":
        return PlainStep(as_published(net), (*params, *alpha))
    net.use_path(form)
    strategy = FirstOrder()
    strategy.setup(net, SearchSettings(), [])
    whole = CapturedStep(strategy, (params, alpha))
    return lambda: whole(params, alpha)


def _difference(net: Supernet, x: torch.Tensor) -> float:
    """Largest difference between plain and batched in fp64: output, gradients, statistics."""
    found = []
    for path in ("plain", "batched"):
        one = copy.deepcopy(net).double()
        one.use_path(path)
        out = one(x.double())
        out.square().mean().backward()
        with torch.no_grad():
            # params carry their gradients to where both paths have the same names
            for parameter in one.parameters():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad)
        alphas = {f"gradient of {k}": alpha.grad for k, alpha in one.named_alphas().items()}
        found.append({"output": out.detach(), **alphas, **one.state_dict()})
    plain, fast = found
    assert plain.keys() == fast.keys()
    return max(
        float((fast[name] - value).abs().max())
        for name, value in plain.items()
        if value is not None
    )


def _resident_mib(field: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if field in line) / 1024


def _memory(queue: Any, options: argparse.Namespace, side: int, form: str) -> None:
    torch.set_num_threads(options.threads)
    step = _step(form, _supernet(options), _batches(options, side))
    before = _resident_mib("VmRSS")
    for _ in range(2):
        step()
    queue.put(_resident_mib("VmHWM") - before)


def _peak_mib(options: argparse.Namespace, side: int, form: str) -> float:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_memory, args=(queue, options, side, form))
    process.start()
    peak = float(queue.get())
    process.join()
    return peak


def _timed(options: argparse.Namespace, side: int) -> dict[str, list[float]]:
    net, batches = _supernet(options), _batches(options, side)
    steps = {form: _step(form, copy.deepcopy(net), batches) for form in FORMS}
    clock = time.process_time if options.threads == 1 else time.perf_counter
    times: dict[str, list[float]] = {form: [] for form in FORMS}
    for round_ in range(options.rounds + 1):
        for form, step in steps.items():
            begin = clock()
            step()
            # the first round warms up
            if round_:
                times[form].append(1e3 * (clock() - begin))
    return times


def _quantiles(values: list[float]) -> list[float]:
    if len(values) < 2:
        return values * 3
    cuts = statistics.quantiles(values, n=20, method="inclusive")
    return [statistics.median(values), cuts[0], cuts[-1]]


def main() -> None:
    """Check, time and write."""
    options = _options()
    torch.set_num_threads(options.threads)
    rows = []
    for side in options.sizes:
        difference = _difference(_supernet(options), _batches(options, side)[0][0][:8])
        if difference > 1e-10:
            raise SystemExit(
                f"{side}x{side}: batched differs from plain by {difference:.1e} in fp64."
            )
        times = _timed(options, side)
        for form in FORMS:
            ratios = [a / b for a, b in zip(times["published"], times[form], strict=True)]
            ms, ratio = _quantiles(times[form]), _quantiles(ratios)
            row = {
                "space": options.space, "channels": options.channels, "layers": options.layers,
                "batch": options.batch, "size": side, "threads": options.threads, "form": form,
                "clock": "process" if options.threads == 1 else "wall", "n": options.rounds,
                "median_ms": ms[0], "q05_ms": ms[1], "q95_ms": ms[2], "times_faster": ratio[0],
                "times_faster_q05": ratio[1], "times_faster_q95": ratio[2],
                "peak_mib": _peak_mib(options, side, form), "fp64_difference": difference,
            }  # fmt: skip
            rows.append(row)
            print(
                f"{options.space} {side}x{side} {form:10s} {ms[0]:8.1f} ms [{ms[1]:.1f}, {ms[2]:.1f}]  "
                f"{ratio[0]:.2f}x [{ratio[1]:.2f}, {ratio[2]:.2f}]  {row['peak_mib']:.0f} MiB",
                flush=True,
            )
    name = f"{options.space}-{options.threads}-thread" + ("s" if options.threads > 1 else "")
    path = write_results(
        "step", rows, folder=options.results, name=name,
        command=command_line(without=("--results",)),
    )  # fmt: skip
    print(path)


if __name__ == "__main__":
    main()
