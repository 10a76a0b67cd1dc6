"""Times that stay comparable where a device's pace changes: something of known time is timed beside each.

`SteadyClock` is for networks that can only be timed as a whole, by a clock of the caller's; `levelled` is for
all calls of a table, and `in_turn_with` for a network and the one that it is compared with, both sampled in
turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from darts_core.latency.deployed import settle_seconds
from darts_core.latency.timing import Timing
from darts_core.latency.turns import in_turn, ratios_in_turn

__all__ = ["ALIKE", "SteadyClock", "in_turn_with", "levelled"]

# two timings of one network at one pace differ by less
ALIKE = 0.15
# rounds in which all calls of a table are sampled, at least and at most, and the time of one call in a round
_ROUNDS, _ROUND_SECONDS = (3, 7), 0.06
# the same of two calls
_PAIR_SECONDS = 0.03
# samples of a call in one round, however long they take
_LEAST = 1


class SteadyClock:
    """A clock for comparisons: where the device's pace has changed, times are scaled to the first one's.

    The reference is timed again beside every network. A pace may change without any load to be seen (another
    guest of the same host, the clock of the processor), so load alone is not asked.

    Args:
        clock: times a network.
        reference: the network that is compared with.
        first: its time, to whose pace others are scaled.
    """

    def __init__(
        self, clock: Callable[[nn.Module], Timing], reference: nn.Module, first: Timing
    ) -> None:
        self._clock, self._reference, self._first = clock, reference, first

    def __call__(self, network: nn.Module) -> Timing:
        """The network's time."""
        row = self._clock(network)
        scale = self._first.median_ms / self._clock(self._reference).median_ms
        disturbed = row.flagged or self._first.flagged
        if not disturbed and abs(scale - 1.0) <= ALIKE:
            return row
        reason = f"{row.flag_reason}; scaled by the unpruned network's time".lstrip("; ")
        return replace(row.scaled(scale), flagged=disturbed, flag_reason=reason)


def in_turn_with(
    other: Callable[[], Any],
    other_ms: float,
    row: Timing,
    call: Callable[[], Any],
    *,
    device: torch.device,
    seconds: float,
) -> Timing:
    """`row` as its call's ratios to another's of known time say: median, 5 and 95 % quantiles.

    Args:
        other: what is compared with, of `in_runtime` as `call` is.
        other_ms: what it takes.
        row: of the call.
        call: what `row` is a timing of.
        device: where.
        seconds: for the samples of one call, in all: at most seven rounds.
    """
    [ratios] = ratios_in_turn(
        [call], other, device=device, seconds=_PAIR_SECONDS, least=_LEAST,
        rounds=_rounds_for(max(row.median_ms, other_ms) / 1e3, 2 * seconds),
        settle=settle_seconds(row.runtime),
    )  # fmt: skip
    low, middle, high = other_ms * np.quantile(ratios, [0.05, 0.5, 0.95])
    return replace(
        row, median_ms=float(middle), q05_ms=float(low), q95_ms=float(high), n=len(ratios)
    )


def _rounds_for(longest: float, seconds: float = 2.0) -> int:
    """Rounds in which calls of at most `longest` seconds are sampled, each for about `seconds` in all."""
    least, most = _ROUNDS
    return max(least, min(most, round(seconds / max(_ROUND_SECONDS, longest))))


def levelled(
    rows: Sequence[Timing],
    calls: Sequence[Callable[[], Any]],
    *,
    device: torch.device,
    seconds: float = 2.0,
) -> list[Timing]:
    """Times of one table with the ratios that the calls have when all are sampled in turn.

    Between two timings a device's pace may change, and not by the same part for every call. The level of the
    times stays that of the rows which were not taken beside other work. On a GPU, which keeps its pace, and
    where what waits for launches does not slow down with what waits for the GPU, the rows are returned as
    they are.

    Args:
        rows: a timing of each call, at one batch size.
        calls: what was timed.
        device: where.
        seconds: for the samples of one call, in all: at most seven rounds of 0.06, three of longer calls.
    """
    if device.type != "cpu" or len(rows) < 2:
        return list(rows)
    rounds = _rounds_for(max(row.median_ms for row in rows) / 1e3, seconds)
    times_RN = np.log(
        in_turn(*calls, device=device, rounds=rounds, seconds=_ROUND_SECONDS, least=_LEAST)
    )
    # a round's pace is what most calls say, so that one interrupted sample moves it little
    pace_R1 = np.median(times_RN - np.median(times_RN, axis=0), axis=1, keepdims=True)
    in_turn_N = np.median(times_RN - pace_R1, axis=0)
    quiet_N = np.array([not row.flagged for row in rows])
    change_N = in_turn_N - np.log([row.median_ms for row in rows])
    change_N -= change_N[quiet_N if quiet_N.any() else slice(None)].mean()
    return [row.scaled(float(np.exp(change))) for row, change in zip(rows, change_N, strict=True)]
