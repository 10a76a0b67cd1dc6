"""End-to-end times of plain networks on one device, in the form that is deployed."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from darts_core.latency.deployed import in_runtime
from darts_core.latency.measure import default_batch_sizes, measure_model
from darts_core.latency.steady import SteadyClock
from darts_core.latency.timing import Timing
from darts_core.latency.turns import in_turn
from darts_core.sample_inputs import draw_inputs

__all__ = ["ModelClock"]


class ModelClock:
    """Times networks in memory.

    Args:
        input_shape: of one example.
        device: where they run.
        batch: examples a call; the device's throughput batch by default.
        runtime: "onnx", "eager", "compile" or "graph"; by default ONNX Runtime on a CPU, a CUDA graph on
            a GPU.
        seconds: longest time for one timing.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        device: torch.device,
        *,
        batch: int | None = None,
        runtime: str | None = None,
        seconds: float = 1.0,
    ) -> None:
        self.input_shape, self.device, self.seconds = tuple(input_shape), device, seconds
        self.batch = batch or max(default_batch_sizes(device))
        self.runtime = runtime or ("graph" if device.type == "cuda" else "onnx")

    def __call__(self, network: nn.Module) -> Timing:
        """The time of one call."""
        rows = measure_model(
            network, self.input_shape, batch_sizes=(self.batch,), device=self.device,
            runtime=self.runtime, max_seconds=self.seconds, warmup_seconds=self.seconds / 2,
        )  # fmt: skip
        return rows[self.batch]

    def ratios(self, network: nn.Module, reference: nn.Module, rounds: int) -> list[float]:
        """The network's time over the reference's, once a round, in which both are sampled."""
        x = draw_inputs(self.input_shape, self.batch, device=self.device)
        calls = [
            # copies, as both are the caller's: their mode and device stay
            in_runtime(copy.deepcopy(one).eval().to(self.device), x, self.runtime)
            for one in (network, reference)
        ]
        pairs = in_turn(*calls, device=self.device, rounds=rounds, least=1)
        return [own / its for own, its in pairs]

    def beside(self, reference: nn.Module, first: Timing) -> SteadyClock:
        """A clock for comparisons with `reference`, whose time is `first`.

        Sampled in turn is what runs on a CPU as it was timed; a GPU keeps its pace.
        """
        plain = self.device.type == "cpu" and self.runtime in ("eager", "onnx")
        return SteadyClock(self, reference, first, self.ratios if plain else None)
