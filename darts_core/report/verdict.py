"""In words: how a model stands against the baseline, and at which cost."""

from __future__ import annotations

import math

from darts_core.report.rows import ModelRow, finite
from darts_core.report.svg import number

__all__ = ["outcome", "speed", "versus"]


def versus(row: ModelRow, base: ModelRow, batch: int) -> tuple[float, float]:
    """Speed-up of `row` over `base` at `batch`, and its gain in accuracy in points."""
    speedup = base.latency[batch].median_ms / row.latency[batch].median_ms
    return speedup, 100 * ((row.accuracy_mean or 0.0) - (base.accuracy_mean or 0.0))


def speed(speedup: float) -> str:
    """`2.07× faster` or `1.5× slower`."""
    return f"{number(speedup)}× faster" if speedup >= 1 else f"{number(1 / speedup)}× slower"


def _noise(row: ModelRow, base: ModelRow) -> float:
    """Points within which a difference is not called a gain: the two spreads."""
    return max(100 * ((row.accuracy_std or 0.0) + (base.accuracy_std or 0.0)), 0.05)


def _compare(row: ModelRow, base: ModelRow, batch: int) -> str:
    """One clause on how `row` stands against the baseline."""
    speedup, gain = versus(row, base, batch)
    if abs(gain) <= _noise(row, base):
        accuracy = f"equally accurate ({gain:+.2f} points, within the spread)"
    else:
        accuracy = f"{abs(gain):.2f} points {'more' if gain > 0 else 'less'} accurate"
    # two runtimes are two things: an eager baseline is named as such beside an exported model
    rival = (
        base.label
        if base.label != base.name or base.runtime == row.runtime
        else f"{base.name} (eager)"
    )
    return f"{speed(speedup)} than {rival} and {accuracy}"


def _cost(row: ModelRow, base: ModelRow) -> str:
    """At which cost `row` was had, the baseline's being one; empty where it is not known."""
    ours, theirs = (finite(r.extra.get("device_seconds")) for r in (row, base))
    if not ours or not theirs:
        return ""
    if abs(math.log(ours / theirs)) < math.log(1.2):
        return ", at equal cost"
    return f", for {number(ours / theirs, 2)} times its device time"


def outcome(row: ModelRow, base: ModelRow, batch: int) -> str:
    """In one sentence what was won over the baseline, or that nothing was."""
    speedup, gain = versus(row, base, batch)
    noise = _noise(row, base)
    won = (speedup > 1 and gain >= -noise) or (speedup == 1 and gain > noise)
    start = f"The {row.label} model is " if won else f"Nothing was won: the {row.label} model is "
    seeds = f" ({row.n} seed{'s' if row.n != 1 else ''})"
    return f"{start}{_compare(row, base, batch)}{_cost(row, base)}{seeds}."
