"""Names under which users' code reports the same thing."""

from __future__ import annotations

__all__ = ["ACCURACY", "SAME_METRIC"]

ACCURACY = ("acc", "accuracy", "mean_accuracy")
_LATENCY = ("latency", "latency_ms")

SAME_METRIC = {**dict.fromkeys(ACCURACY, ACCURACY), **dict.fromkeys(_LATENCY, _LATENCY)}
"""Metric -> all its names, in the order in which they are looked for."""
