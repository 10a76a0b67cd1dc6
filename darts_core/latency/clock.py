"""End-to-end times of plain networks on one device, in the form that is deployed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from darts_core.copies import copy_of
from darts_core.latency.deployed import in_runtime, settle_seconds
from darts_core.latency.measure import default_batch_sizes, default_runtime, measure, measure_model
from darts_core.latency.steady import SteadyClock, in_turn_with
from darts_core.latency.timing import Timing
from darts_core.latency.turns import ratios_in_turn
from darts_core.modes import in_evaluation
from darts_core.sample_inputs import draw_inputs, number_format

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
        self.runtime = runtime or default_runtime(device)

    def __call__(self, network: nn.Module) -> Timing:
        """The time of one call."""
        rows = measure_model(
            network, self.input_shape, batch_sizes=(self.batch,), device=self.device,
            runtime=self.runtime, dtype=number_format(network), max_seconds=self.seconds,
            warmup_seconds=self.seconds / 2,
        )  # fmt: skip
        return rows[self.batch]

    def ready(self, network: nn.Module) -> Callable[[], Any]:
        """A function of nothing that runs a copy of the network, in its runtime, once.

        It is a copy because the network is the caller's: its mode and device stay.
        """
        kind = number_format(network)
        x = draw_inputs(self.input_shape, self.batch, device=self.device, dtype=kind)
        return in_runtime(in_evaluation(copy_of(network)).to(self.device), x, self.runtime)

    def ratios(
        self, networks: Sequence[nn.Module], reference: nn.Module, rounds: int
    ) -> list[list[float]]:
        """For each network its time over the reference's, once a round, in which all are sampled."""
        return ratios_in_turn(
            [self.ready(one) for one in networks], self.ready(reference), device=self.device,
            rounds=rounds, least=1, settle=settle_seconds(self.runtime),
        )  # fmt: skip

    def beside(self, reference: nn.Module, first: Timing) -> Callable[[nn.Module], Timing]:
        """A clock for comparisons with `reference`, whose time is `first`.

        Sampled in turn is what runs on a CPU as it was timed; a GPU keeps its pace.
        """
        if self.device.type == "cpu" and self.runtime in ("eager", "onnx"):
            return _Beside(self, reference, first)
        return SteadyClock(self, reference, first)


class _Beside:
    """The reference's time, times the ratio to it of samples taken in turn."""

    def __init__(self, clock: ModelClock, reference: nn.Module, first: Timing) -> None:
        self._clock, self._reference, self._first = clock, reference, first
        self._other: Callable[[], Any] | None = None

    def __call__(self, network: nn.Module) -> Timing:
        """The network's time."""
        if self._other is None:  # made ready once, as every network is compared with it
            self._other = self._clock.ready(self._reference)
        clock, first, call = self._clock, self._first, self._clock.ready(network)
        row = measure(
            call, device=clock.device, runtime=clock.runtime, batch=clock.batch,
            max_seconds=clock.seconds, warmup_seconds=clock.seconds / 2,
        )  # fmt: skip
        found = in_turn_with(
            self._other, first.median_ms, row, call, device=clock.device, seconds=clock.seconds
        )
        reason = row.flag_reason
        if first.flagged and not row.flagged:
            reason = f"the reference: {first.flag_reason}"
        return replace(found, flagged=row.flagged or first.flagged, flag_reason=reason)
