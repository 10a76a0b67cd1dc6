"""Latency budgets as people write them: milliseconds, per cent of the original, "as fast as X"."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from torch import nn

from darts_core.errors import PruneError
from darts_core.latency import Timing, require_comparable
from darts_core.models.baselines import baseline

__all__ = ["Budget", "budget_ms"]

Budget = float | int | str | Timing | nn.Module
_NUMBER = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e-?\d+)?)\s*(ms|%|)\s*", re.IGNORECASE)
_RIVAL = re.compile(r"\s*as fast as\s+(\w+?)(?::(\d+))?\s*", re.IGNORECASE)


def budget_ms(
    budget: Budget, before: Timing, timer: Callable[[nn.Module], Timing], bundle: Any = None
) -> float:
    """The budget in milliseconds.

    Args:
        budget: 3.5 or "3.5 ms"; "50%" of `before`; "as fast as resnet18" (or "resnet18:32", with
            its width), a model, or a `Timing` of this device.
        before: the unpruned model's time.
        timer: times the rival.
        bundle: gives the rival's classes and channels.

    Raises:
        PruneError: the text is none of these, or the value is not positive.
        LatencyError: the timing was taken on another device.
    """
    if isinstance(budget, Timing):
        require_comparable((before, budget))
        return budget.median_ms
    if isinstance(budget, nn.Module):
        return timer(budget).median_ms
    text = str(budget)
    rival = _RIVAL.fullmatch(text)
    if rival and bundle is not None:
        width = int(rival.group(2)) if rival.group(2) else None
        model = baseline(rival.group(1), bundle.num_outputs, bundle.in_channels, width)
        return timer(model).median_ms
    number = _NUMBER.fullmatch(text)
    if not number:
        raise PruneError(
            f"The budget {budget!r} is not understood; write milliseconds (3.5), a share of the "
            "original (50%), or 'as fast as resnet18'."
        )
    value = float(number.group(1))
    if number.group(2) == "%":
        value *= before.median_ms / 100.0
    if value <= 0.0:
        raise PruneError(f"The budget {budget!r} must be above 0.")
    return value
