"""Names under which users' code reports the same thing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["ACCURACY", "SAME_METRIC", "names_of", "under_names"]

ACCURACY = ("acc", "accuracy", "mean_accuracy")
_LATENCY = ("latency", "latency_ms")

SAME_METRIC = {**dict.fromkeys(ACCURACY, ACCURACY), **dict.fromkeys(_LATENCY, _LATENCY)}
"""Metric -> all its names, in the order in which they are looked for."""


def names_of(metric: str) -> tuple[str, ...]:
    """All names of a metric, its own first."""
    return (metric, *SAME_METRIC.get(metric, ()))


def under_names(metrics: Mapping[str, Any], wanted: tuple[str, ...]) -> dict[str, Any]:
    """The metrics, and each wanted one also under its wanted name where another name of it is there."""
    found = dict(metrics)
    for name in wanted:
        known = [other for other in names_of(name) if other in metrics]
        if known:
            found[name] = metrics[known[0]]
    return found
