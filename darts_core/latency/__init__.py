"""Measured time: the one timer, the table of operation times, the expected latency."""

from darts_core.latency.device import device_lock, device_name
from darts_core.latency.measure import (
    Timing,
    default_batch_sizes,
    measure,
    measure_model,
    quick_ms,
    require_comparable,
    speedup,
)

__all__ = [
    "Timing",
    "default_batch_sizes",
    "device_lock",
    "device_name",
    "measure",
    "measure_model",
    "quick_ms",
    "require_comparable",
    "speedup",
]
