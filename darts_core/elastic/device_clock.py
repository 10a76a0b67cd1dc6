"""Times of plain networks and of single layers on one device, in the form that is deployed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from darts_core.latency import Timing, default_batch_sizes, device_name, measure_model
from darts_core.prune.cost import LayerCosts

__all__ = ["DeviceClock"]


class DeviceClock:
    """End-to-end times of networks.

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

    def layers(self) -> LayerCosts:
        """The clock of single layers."""
        return LayerCosts(self.device, runtime=self.runtime, folded=self.runtime == "onnx")

    def described(self) -> dict[str, Any]:
        """What the times are of."""
        return {"batch": self.batch, "runtime": self.runtime, "device": device_name(self.device)}

    def fits(self, saved: Mapping[str, Any]) -> bool:
        """Whether saved times are of this device and form."""
        return all(saved.get(key) == value for key, value in self.described().items())
