"""Processor, memory and GPU of a job's trials over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from darts_core.report.blocks import card, pair
from darts_core.report.charts import Line, line_chart
from darts_core.report.html import Markup
from darts_core.report.rows import finite

__all__ = ["pauses", "resource_curves"]

_LONG = 5400.0  # seconds from which on the axis counts in hours
_GAP = 60.0  # a pause longer than this belongs to a stop: the time of a pause is not drawn


def resource_curves(samples: Sequence[Mapping[str, Any]]) -> Markup:
    """The pictures, "" for fewer than two samples.

    Args:
        samples: `{time, trials, cpu_cores, memory_mib, gpu}`, in seconds, cores and MiB.
    """
    times = _running_time(samples)
    if len(times) < 2:
        return Markup()
    scale, unit = (
        (3600.0, "h") if times[-1] > _LONG else (60.0, "min") if times[-1] > 180 else (1.0, "s")
    )
    axis = [passed / scale for passed in times]
    kinds = (
        ("cpu_cores", "cores in use", "Processor", "sep"),
        ("memory_mib", "memory (MiB)", "Memory", "conv"),
        ("trials", "trials at a time", "Trials", "skip"),
    )
    kept = [row for row in samples if finite(row.get("time")) is not None]
    cards = []
    for key, label, title, color in kinds:
        points = [
            (x, value)
            for x, row in zip(axis, kept, strict=True)
            if (value := finite(row.get(key))) is not None
        ]
        drawn = line_chart([Line("", points, color)], x_label=f"running time ({unit})", y_label=label,
                           title=title, height=230, whole_x=False, from_zero=True)  # fmt: skip
        cards.append(card(drawn, title=title))
    return pair(*cards, card(_gpus(kept, axis, unit), title="GPU"))


def _gpus(samples: Sequence[Mapping[str, Any]], axis: Sequence[float], unit: str) -> Markup:
    """The use of each GPU in per cent."""
    series: dict[int, list[tuple[float, float]]] = {}
    for x, row in zip(axis, samples, strict=True):
        cards = row.get("gpu")
        for index, gpu in enumerate(cards if isinstance(cards, list) else ()):
            value = finite(gpu.get("percent")) if isinstance(gpu, Mapping) else None
            if value is not None:
                series.setdefault(index, []).append((x, value))
    colors = ("sep", "pool", "conv", "dil", "skip", "other")
    lines = [Line(f"{i}", points, colors[i % len(colors)]) for i, points in series.items()]
    return line_chart(lines, x_label=f"running time ({unit})", y_label="use of the GPU (%)", title="GPU",
                      height=230, whole_x=False, from_zero=True)  # fmt: skip


def pauses(samples: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """(begin, end) of each time in which the search stood still, such as before it was resumed.

    Args:
        samples: see `resource_curves`; times in seconds, as the results are.
    """
    known = [t for row in samples if (t := finite(row.get("time"))) is not None]
    return [(a, b) for a, b in pairwise(known) if b - a > _GAP]


def _running_time(samples: Sequence[Mapping[str, Any]]) -> list[float]:
    """Seconds since the start at each sample, pauses left out."""
    known = [t for row in samples if (t := finite(row.get("time"))) is not None]
    passed: list[float] = []
    for index, moment in enumerate(known):
        step = moment - known[index - 1] if index else 0.0
        passed.append((passed[-1] if passed else 0.0) + (step if 0 <= step <= _GAP else 0.0))
    return passed
