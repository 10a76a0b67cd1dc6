"""Measured time: the one timer, the table of operation times, the expected latency."""

from darts_core.latency.choice_cost import ChoiceCost, choice_latency_model, choice_size_model
from darts_core.latency.device import Load, device_lock, device_name
from darts_core.latency.expected import (
    CostModel,
    latency_model,
    size_model,
)
from darts_core.latency.measure import (
    Timing,
    default_batch_sizes,
    default_runtime,
    measure,
    measure_model,
    quick_ms,
    require_comparable,
    speedup,
)
from darts_core.latency.table import LatencyTable, build_table

__all__ = [
    "ChoiceCost",
    "CostModel",
    "LatencyTable",
    "Load",
    "Timing",
    "build_table",
    "choice_latency_model",
    "choice_size_model",
    "default_batch_sizes",
    "default_runtime",
    "device_lock",
    "device_name",
    "latency_model",
    "measure",
    "measure_model",
    "quick_ms",
    "require_comparable",
    "size_model",
    "speedup",
]
