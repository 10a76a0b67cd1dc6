"""Latency budgets as people write them: milliseconds, per cent of the original, "as fast as X"."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from torch import nn

from darts_core.errors import ConfigError, PruneError, unknown_name
from darts_core.latency import Timing, require_comparable
from darts_core.models.baselines import BASELINES, baseline, is_baseline, reads

__all__ = ["Budget", "budget_ms", "check_budget"]

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
        PruneError: the text is none of these, the value is not positive, or the rival reads something else
            than the data hold.
        ConfigError: there is no such hand-designed network.
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
        name, width = _named(rival), int(rival.group(2)) if rival.group(2) else None
        if reads(name) != bundle.kind:
            raise PruneError(
                f"The budget {text!r} cannot be timed: {name} reads {reads(name)}, the data hold "
                f"{bundle.kind}; name a network that reads these, or write milliseconds (3.5) or a share of "
                "the original (50%)."
            )
        return timer(baseline(name, bundle.num_outputs, bundle.in_channels, width)).median_ms
    value, is_share = _amount(budget)
    return value * (before.median_ms / 100.0) if is_share else value


def check_budget(text: str) -> None:
    """Nothing, if `text` is a budget; before there is anything to be timed.

    Raises:
        PruneError: it is none.
        ConfigError: it names no hand-designed network.
    """
    rival = _RIVAL.fullmatch(text)
    if rival:
        _named(rival)
    else:
        _amount(text)


def _named(rival: re.Match[str]) -> str:
    """The hand-designed network that a budget names."""
    name = rival.group(1)
    if not is_baseline(name):
        raise ConfigError(unknown_name("baseline", name, BASELINES))
    return name


def _amount(budget: Any) -> tuple[float, bool]:
    """(milliseconds or per cent, whether it is per cent)."""
    number = _NUMBER.fullmatch(str(budget))
    if not number:
        raise PruneError(
            f"The budget {budget!r} is not understood; write milliseconds (3.5), a share of the "
            "original (50%), or 'as fast as resnet18'."
        )
    value = float(number.group(1))
    if not 0.0 < value < math.inf:
        raise PruneError(f"The budget {budget!r} must be above 0 and finite.")
    return value, number.group(2) == "%"
