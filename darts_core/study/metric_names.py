"""Names under which users' code reports the same thing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["ACCURACY", "SAME_METRIC", "less_is_better", "names_of", "under_names"]

ACCURACY = ("acc", "accuracy", "mean_accuracy")
_LATENCY = ("latency", "latency_ms")

SAME_METRIC = {**dict.fromkeys(ACCURACY, ACCURACY), **dict.fromkeys(_LATENCY, _LATENCY)}
"""Metric -> all its names, in the order in which they are looked for."""

# words of the names of numbers of which less is better
_LESS = {
    "loss", "err", "error", "perplexity", "ppl", "mae", "mse", "rmse", "latency", "ms", "seconds", "time",
    "params", "macs",
}  # fmt: skip


def less_is_better(metric: str) -> bool:
    """Whether a metric's name sounds like a number of which less is better, such as `val_perplexity`."""
    return not _LESS.isdisjoint(re.split(r"[\W_]+", metric.lower()))


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
