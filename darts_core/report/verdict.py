"""In words: how a model stands against the baseline, and at which cost."""

from __future__ import annotations

import math

from darts_core.metric import ACCURACY, Metric
from darts_core.report.rows import ModelRow, finite
from darts_core.report.svg import number

__all__ = ["change", "cost_words", "faster", "no_worse", "outcome", "speed", "standing", "versus"]


def versus(row: ModelRow, base: ModelRow, batch: int) -> tuple[float, float]:
    """Speed-up of `row` over `base` at `batch`, and its gain in the metric as it is shown."""
    speedup = base.latency[batch].median_ms / row.latency[batch].median_ms
    return speedup, _gain(row, base)


def _gain(row: ModelRow, base: ModelRow) -> float:
    return row.metric.gain(row.accuracy_mean or 0.0, base.accuracy_mean or 0.0)


def faster(speedup: float) -> bool:
    """Whether it is so as it is told: a win that is shown as 1× is none."""
    return speedup > 1 and number(speedup) != "1"


def speed(speedup: float) -> str:
    """`2.07× faster`, `1.5× slower`, or `no faster`."""
    if faster(speedup):
        return f"{number(speedup)}× faster"
    return f"{number(1 / speedup)}× slower" if faster(1 / speedup) else "no faster"


def change(metric: Metric, gain: float) -> str:
    """A gain with its unit: `+0.52 points`; of a metric that is better low `1.2 perplexity better`."""
    if metric.direction == "maximize" or gain == 0:
        return metric.gain_text(gain)
    return _apart(metric, gain)


def _apart(metric: Metric, gain: float) -> str:
    # a plus sign would say that there is more of what should be little
    amount = metric.gain_text(abs(gain)).lstrip("+")
    return f"{amount} {'better' if gain > 0 else 'worse'}"


def _noise(row: ModelRow, base: ModelRow) -> float:
    """What a difference must exceed to be a gain: the two spreads, or what the test examples can show."""
    metric = row.metric
    spread = (row.accuracy_std or 0.0) + (base.accuracy_std or 0.0)
    if not metric.share:
        return metric.scale * spread
    error = math.hypot(row.standard_error, base.standard_error)
    return max(metric.scale * max(spread, error), 0.05)


def no_worse(row: ModelRow, base: ModelRow) -> bool:
    """Whether `row` is at least as good as the baseline in the metric, as far as a difference counts."""
    return _gain(row, base) >= -_noise(row, base)


def standing(row: ModelRow, base: ModelRow) -> str:
    """How `row` stands against the baseline in the metric: `1.50 points more accurate`."""
    metric, gain = row.metric, _gain(row, base)
    if abs(gain) <= _noise(row, base):
        equally = "equally accurate" if metric == ACCURACY else f"equal in {metric.words}"
        return f"{equally} ({change(metric, gain)}, within the spread)"
    if metric == ACCURACY:
        return f"{abs(gain):.2f} points {'more' if gain > 0 else 'less'} accurate"
    return _apart(metric, gain)


def _compare(row: ModelRow, base: ModelRow, batch: int) -> str:
    """One clause on how `row` stands against the baseline."""
    speedup, _ = versus(row, base, batch)
    # two runtimes are two things: an eager baseline is named as such beside an exported model
    rival = (
        base.label
        if base.label != base.name or base.runtime == row.runtime
        else f"{base.name} (eager)"
    )
    return f"{speed(speedup)} than {rival} and {standing(row, base)}"


def cost_words(ours: float | None, theirs: float | None) -> str:
    """At which cost ours was had, in device seconds, theirs being one; empty where it is not known."""
    if not ours or not theirs:
        return ""
    if abs(math.log(ours / theirs)) < math.log(1.2):
        return ", at equal cost"
    return f", for {number(ours / theirs, 2)} times its device time"


def outcome(row: ModelRow, base: ModelRow, batch: int) -> str:
    """In one sentence what was won over the baseline, or that nothing was."""
    speedup, gain = versus(row, base, batch)
    noise = _noise(row, base)
    won = no_worse(row, base) if faster(speedup) else gain > noise and not faster(1 / speedup)
    start = f"The {row.label} model is " if won else f"Nothing was won: the {row.label} model is "
    seconds = (finite(r.extra.get("device_seconds")) for r in (row, base))
    seeds = f" ({row.n} seed{'s' if row.n != 1 else ''})"
    return f"{start}{_compare(row, base, batch)}{cost_words(*seconds)}{seeds}."
