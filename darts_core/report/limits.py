"""What an axis leaves out: values so far from the rest that a picture with them shows nothing of it."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["far_away", "outside_text"]

# so many times the span of the better three quarters
_FAR = 20.0


def far_away(values: Sequence[float], *, maximize: bool, kept: Sequence[float] = ()) -> list[float]:
    """Those of `values` that lie far on the worse side, as a diverged trial's loss does.

    Args:
        values: finite numbers, in any order.
        maximize: whether larger ones are better.
        kept: what the axis shows in any case; nothing up to the worst of these is far.
    """
    sign = -1.0 if maximize else 1.0
    ordered = sorted(sign * value for value in values)
    if len(ordered) < 3:
        return []
    best, most = ordered[0], ordered[3 * (len(ordered) - 1) // 4]
    span = max(most - best, 0.02 * abs(best))
    if span < 1e-9:
        return []  # all of them zero: nothing is flattened, and everything else would be far
    limit = max([best + _FAR * span, *(sign * value for value in kept)])
    return [value for value in values if sign * value > limit]


def outside_text(count: int) -> str:
    """How many values an axis leaves out, in words."""
    return f"{count} outside, far from the rest"
