"""Times of plain networks and of single layers on one device, in the form that is deployed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from darts_core.latency import device_name
from darts_core.latency.clock import ModelClock
from darts_core.prune.cost import LayerCosts

__all__ = ["DeviceClock"]


class DeviceClock(ModelClock):
    """End-to-end times of networks, and the clock of their layers."""

    def layers(self) -> LayerCosts:
        """The clock of single layers."""
        return LayerCosts(self.device, runtime=self.runtime, folded=self.runtime == "onnx")

    def described(self) -> dict[str, Any]:
        """What the times are of."""
        return {"batch": self.batch, "runtime": self.runtime, "device": device_name(self.device)}

    def fits(self, saved: Mapping[str, Any]) -> bool:
        """Whether saved times are of this device and form."""
        return all(saved.get(key) == value for key, value in self.described().items())
