"""Judging networks on images that chose nothing: paired differences, a line through scaled rivals, times.

Shapes: N images, R rounds of timing.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["interleaved", "line_at", "paired", "ratio"]

Right = npt.NDArray[np.float64]
"""[N], 1 where a network is right and 0 where it is wrong."""


def paired(ours: Right, theirs: Right) -> tuple[float, float]:
    """The mean difference in points over the same images, and its standard error."""
    difference = 100 * (ours - theirs)
    return float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(len(difference)))


def line_at(at_ms: float, rivals: Sequence[tuple[float, Right]]) -> Right:
    """What rivals of other sizes would reach at a time: between two neighbours, straight in log time.

    Outside their range it is the nearest one's.

    Args:
        at_ms: the time.
        rivals: (time, right answers) of each.
    """
    known = sorted(rivals, key=lambda rival: rival[0])
    if at_ms <= known[0][0]:
        return known[0][1]
    for (low, worse), (high, better) in itertools.pairwise(known):
        if at_ms <= high:
            share = math.log(at_ms / low) / math.log(high / low)
            return (1 - share) * worse + share * better
    return known[-1][1]


def ratio(times: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """The median over rounds of times over others, and the standard error of a round's ratio."""
    each = [a / b for a, b in zip(times, others, strict=True)]
    error = statistics.stdev(each) / math.sqrt(len(each)) if len(each) > 1 else math.nan
    return statistics.median(each), error


def interleaved(
    calls: Mapping[str, Callable[[], object]], *, rounds: int, seconds: float = 0.03, seed: int = 0
) -> dict[str, list[float]]:
    """Milliseconds of every call in each round: all take turns, so that other work meets all alike.

    A round's time is the median of its calls.

    Args:
        calls: name -> one pass over a batch.
        rounds: R; the order in each is drawn anew.
        seconds: of a turn.
        seed: of the orders.
    """
    rng, names = random.Random(seed), list(calls)
    for call in calls.values():
        for _ in range(5):
            call()
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        rng.shuffle(names)
        for name in names:
            found[name].append(_turn(calls[name], seconds))
    return found


def _turn(call: Callable[[], object], seconds: float) -> float:
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < 3 or time.perf_counter() < end:
        started = time.perf_counter()
        call()
        taken.append(1e3 * (time.perf_counter() - started))
    return statistics.median(taken)
