"""What an elastic step costs beside plain ones: time, and peak memory of tensors and of whole processes.

*Time*: one process takes elastic steps, another takes plain steps of the same sub-networks, each once before
it is timed. They take turns. *Tensors* is what torch's own record of allocations holds at its highest, as
`torch.cuda.max_memory_allocated` would say on a GPU: params, gradients, momenta, activations, the teacher and
what it said; the same every time. *Process* is the largest resident memory of a process that does nothing
else (`ru_maxrss`), with libraries, data, and what the allocator and oneDNN keep; it differs from run to run.
"""

from __future__ import annotations

import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import cycle, islice
from multiprocessing import get_context
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.elastic_case import Case
from darts_core.elastic import Sandwich, elastic
from darts_core.train import load_model

MIB = 2**20
KINDS = ("plain", "elastic")
# batch size, steps, pairs
SIZES = ((64, 40, 3), (256, 15, 3))


def step_cost(case: Case, rounds: int = 20) -> dict[str, Any]:
    """Elastic steps and the plain steps of their sub-networks, in turn; the ratio of each pair."""
    found: list[tuple[float, float]] = []
    with _pool() as ours, _pool() as plain:
        for turn in range(rounds + 2):
            first, second = ours.submit(_elastic_seconds, case, turn).result()
            apart = plain.submit(_plain_seconds, case, turn).result()
            if turn >= 2:
                found.append((first / apart, second / apart))
    return {
        "ratio_teacher_asked": spread([asked for asked, _ in found]),
        "ratio_teacher_looked_up": spread([looked_up for _, looked_up in found]),
    }


def _elastic_seconds(case: Case, turn: int) -> tuple[float, float]:
    """One step with the teacher asked, and the same step with its answers looked up."""
    training = _here(case, "elastic")
    x, y = training.first
    moved, sandwich = x + 1e-3 * turn, training.sandwich
    assert sandwich is not None
    found = []
    for _ in range(2):
        sandwich.step = turn
        started = time.perf_counter()
        sandwich.backward(moved, lambda output: nn.functional.cross_entropy(output, y))
        found.append(time.perf_counter() - started)
        training.model.zero_grad()
    return found[0], found[1]


def _plain_seconds(case: Case, turn: int) -> float:
    """The steps of that turn's sub-networks, each a network of its own that has run before."""
    training = _here(case, "elastic")
    (x, y), sandwich = training.first, training.sandwich
    assert sandwich is not None
    assert training.net is not None
    sandwich.step, total = turn, 0.0
    for choices in sandwich.choices():
        model = training.net.cut(choices).train()
        for seen in (False, True):
            started = time.perf_counter()
            nn.functional.cross_entropy(model(x + 1e-3 * turn), y).backward()
            total += seen * (time.perf_counter() - started)
    return total


def spread(values: list[float]) -> dict[str, Any]:
    """Median, standard deviation and number."""
    return {
        "median": statistics.median(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        "n": len(values),
    }


def memory(case: Case) -> dict[str, Any]:
    """Both looks at training the base of `case` on, in MiB, with the ratios to plain steps."""
    return {"sizes": [_of_size(case, *size) for size in SIZES]}


def _of_size(case: Case, batch: int, steps: int, pairs: int) -> dict[str, Any]:
    tensors = {kind: _alone(_tensors, case, kind, batch, 3) for kind in KINDS}
    processes: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(pairs):
        for kind in KINDS:
            processes[kind].append(_alone(_process, case, kind, batch, steps))
    return {
        "batch_size": batch,
        "steps": steps,
        "tensors_mib": tensors,
        "tensors_ratio": tensors["elastic"] / tensors["plain"],
        "process_mib": processes,
        "process_ratio": _ratios(processes["elastic"], processes["plain"]),
    }


def _ratios(ours: list[float], plain: list[float]) -> dict[str, Any]:
    return spread([a / b for a, b in zip(ours, plain, strict=True)])


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def _alone(work: Any, *arguments: Any) -> float:
    """`work` in a process of its own, whose memory nothing else has touched."""
    with _pool() as pool:
        return float(pool.submit(work, *arguments).result())


class _Training:
    """The base and eight batches, loaded; `start` makes what a training needs, `step` takes one step."""

    def __init__(self, case: Case, kind: str, batch: int) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(case.seed)
        self.model, _ = load_model(case.base() / "model.pt")
        self.model.requires_grad_(True).train()
        batches = [(x.clone(), y) for x, y in islice(case.bundle().batches("params", batch), 8)]
        self.first, self.batches = batches[0], cycle(batches)
        self.net = elastic(self.model, self.first[0]) if kind != "plain" else None
        self.seed = case.seed

    def start(self) -> None:
        """Teacher and optimizer."""
        self.sandwich = Sandwich(self.net, seed=self.seed) if self.net is not None else None
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)

    def step(self) -> None:
        """One step, and that of the optimizer."""
        x, y = next(self.batches)

        def loss_of(output: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(output, y)

        self.optimizer.zero_grad()
        if self.sandwich is None:
            loss_of(self.model(x)).backward()
        else:
            self.sandwich.backward(x, loss_of)
        self.optimizer.step()


@cache
def _here(case: Case, kind: str) -> _Training:
    """That of this process."""
    training = _Training(case, kind, SIZES[0][0])
    training.start()
    return training


def _tensors(case: Case, kind: str, batch: int, steps: int) -> float:
    """The most bytes of tensors that are alive at once, in MiB: the network's own and all made since."""
    training = _Training(case, kind, batch)
    own = sum(v.numel() * v.element_size() for v in training.model.state_dict().values())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        training.start()
        for _ in range(steps):
            training.step()
    record = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = most = 0
    for event in sorted(record, key=lambda e: e.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return (own + most) / MIB


def _process(case: Case, kind: str, batch: int, steps: int) -> float:
    """The largest resident memory of this process, in MiB."""
    training = _Training(case, kind, batch)
    training.start()
    for _ in range(steps):
        training.step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
