"""Times of plain networks and of single layers on one device, in the form that is deployed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from darts_core.latency import device_name
from darts_core.latency.clock import ModelClock
from darts_core.latency.device import versions
from darts_core.prune.cost import LayerCosts

__all__ = ["DeviceClock"]

_TOLD_LATER = ("threads", "versions")


class DeviceClock(ModelClock):
    """End-to-end times of networks, and the clock of their layers."""

    def layers(self) -> LayerCosts:
        """The clock of single layers."""
        return LayerCosts(self.device, runtime=self.runtime, folded=self.runtime == "onnx")

    def described(self) -> dict[str, Any]:
        """What the times are of."""
        threads = torch.get_num_threads() if self.device.type == "cpu" else None
        return {
            "batch": self.batch,
            "runtime": self.runtime,
            "device": device_name(self.device),
            "threads": threads,
            "versions": versions(self.runtime),
        }

    def fits(self, saved: Mapping[str, Any]) -> bool:
        """Whether saved times are of this device, form and versions; older files do not tell all of it."""
        return all(
            saved.get(key) == value or (key in _TOLD_LATER and not saved.get(key))
            for key, value in self.described().items()
        )
