"""What a metric is measured in, as axes and column heads say it."""

from __future__ import annotations

__all__ = ["headed", "metric_label", "unit"]

_UNITS = {"latency": "ms", "time_total_s": "s", "time_left_s": "s", "memory_mib": "MiB"}
_ENDINGS = {"_ms": "ms", "_s": "s", "_seconds": "s", "_mib": "MiB", "_mb": "MB"}


def unit(metric: str) -> str:
    """The unit of a metric by its name; "" where the name says none."""
    known = _UNITS.get(metric)
    return known or next((u for ending, u in _ENDINGS.items() if metric.endswith(ending)), "")


def headed(column: str) -> str:
    """A column of a table as its head names it: `time_total_s (s)`."""
    found = unit(column)
    return f"{column} ({found})" if found else column


def metric_label(metric: str, mode: str | None = None) -> str:
    """A metric as an axis names it: `latency (ms, lower is better)`.

    Args:
        metric: its name.
        mode: "max" or "min", when the better side is to be named.
    """
    found = unit(metric)
    words = metric
    for ending, known in _ENDINGS.items():
        if known == found and metric.endswith(ending):
            words = metric.removesuffix(ending)
    side = {"max": "higher is better", "min": "lower is better", None: ""}[mode]
    remarks = ", ".join(part for part in (found, side) if part)
    return words.replace("_", " ") + (f" ({remarks})" if remarks else "")
