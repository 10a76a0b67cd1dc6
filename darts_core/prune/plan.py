"""The planner: which widths and which cuts save the needed time at the least loss.

A multiple-choice knapsack, solved exactly on a grid of time: each item (a channel group, a droppable
operation) offers options (milliseconds saved, loss added) of which one is taken.
Source: HALP, arXiv:2110.10811, section 3, whose groups of latency this follows; here an option is a
whole width, so that steps in the latency curve are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Item", "Option", "solve", "widths_of"]

_BUCKETS = 1000


@dataclass(frozen=True)
class Option:
    """One choice: what it saves (ms), what it costs (loss), and what it means (`value`)."""

    saved_ms: float
    loss: float
    value: int | str


@dataclass(frozen=True)
class Item:
    """A decision with its options; taking none saves and costs nothing."""

    name: str
    options: tuple[Option, ...]


def solve(items: Sequence[Item], needed_ms: float) -> dict[str, Option] | None:
    """The options that together save at least `needed_ms` at the smallest loss; None if none can.

    Savings are rounded down to 1/1000 of what is needed, so the plan never promises too much.
    """
    if needed_ms <= 0.0:
        return {}
    unit = needed_ms / _BUCKETS
    # loss_T[t]: least loss that saves t buckets; the last entry stands for "t or more"
    loss_T = np.full(_BUCKETS + 1, np.inf)
    loss_T[0] = 0.0
    history: list[tuple[np.ndarray, np.ndarray]] = []
    for item in items:
        new_T = loss_T.copy()
        chosen_T = np.full(_BUCKETS + 1, -1, dtype=np.int32)  # -1: the item is left alone
        source_T = np.arange(_BUCKETS + 1)
        for index, option in enumerate(item.options):
            steps = int(option.saved_ms / unit + 1e-9)
            if steps <= 0:
                continue
            origin_T, proposal_T = _after(loss_T, min(steps, _BUCKETS), option.loss)
            better = proposal_T < new_T
            new_T[better] = proposal_T[better]
            chosen_T[better], source_T[better] = index, origin_T[better]
        history.append((chosen_T, source_T))
        loss_T = new_T
    if not np.isfinite(loss_T[_BUCKETS]):
        return None
    taken: dict[str, Option] = {}
    place = _BUCKETS
    for item, (chosen_T, source_T) in zip(reversed(items), reversed(history), strict=True):
        if chosen_T[place] >= 0:
            taken[item.name] = item.options[int(chosen_T[place])]
        place = int(source_T[place])
    return taken


def _after(loss_T: np.ndarray, steps: int, loss: float) -> tuple[np.ndarray, np.ndarray]:
    """Where each place comes from when `steps` more buckets are saved, and the loss there."""
    origin_T = np.maximum(np.arange(_BUCKETS + 1) - steps, 0)
    proposal_T = np.where(np.arange(_BUCKETS + 1) >= steps, loss_T[origin_T] + loss, np.inf)
    # the last place is reached from every place that is close enough
    start = _BUCKETS - steps
    origin_T[_BUCKETS] = start + int(np.argmin(loss_T[start:]))
    proposal_T[_BUCKETS] = loss_T[origin_T[_BUCKETS]] + loss
    return origin_T, proposal_T


def widths_of(channels: int, *, least: int, step: int) -> list[int]:
    """Up to eight widths below `channels`: multiples of `step`, not below `least`, falling."""
    least = max(1, min(least, channels))
    first = -(-least // step) * step
    grid = list(range(first, channels, step)) or ([least] if least < channels else [])
    if len(grid) <= 8:
        return grid[::-1]
    picked = np.unique(np.linspace(0, len(grid) - 1, 8).round().astype(int))
    return [grid[index] for index in picked[::-1]]
