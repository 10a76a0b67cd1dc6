"""Calls compared in turns: one round samples each of them, so that the device's pace may change meanwhile."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from darts_core.device import require_device
from darts_core.latency.device import device_lock, pinned_threads
from darts_core.latency.samples import SETTLE_SECONDS, Sampler

__all__ = ["added_in_turn", "clock_in_turn", "in_turn", "ratios_in_turn"]

# a difference is taken in so many rounds at least and at most
_ROUNDS = (3, 8)
# what is added is sure once its standard error is below this part of the whole call
_SURE = 0.02
# rounds of less would not show other work, whose processor time the system counts in ticks of 10 ms
_LEAST_SECONDS = 0.3


def added_in_turn(
    base: Callable[[], Any] | None,
    calls: Sequence[Callable[[], Any]],
    *,
    device: str | torch.device = "cpu",
    seconds: float = 0.02,
    settle: float = SETTLE_SECONDS,
) -> list[float]:
    """Median milliseconds by which a call of each takes longer than one of `base`.

    One round samples `base` and then every call whose difference is not sure yet; the device's pace may
    change from round to round without changing the result. There are more rounds only for calls whose
    differences are still apart. Hold `device_lock` around a series.

    Args:
        base: what all of `calls` do as well; None: nothing, and the calls' own times are returned.
        calls: what is asked about.
        device: where.
        seconds: time for the samples of one call in one round.
        settle: before these, until what ran before has let go of the cores.
    """
    home = require_device(device)
    first = Sampler(base, home) if base is not None else None
    asked = [_Difference(Sampler(call, home)) for call in calls]
    least, most = _ROUNDS
    enough = time.monotonic() + _LEAST_SECONDS
    for turn in range(most):
        sure = turn >= least and time.monotonic() >= enough
        left = [one for one in asked if not (sure and one.is_sure())]
        if not left:
            break
        before = first.block(seconds, settle) if first is not None else 0.0
        # the order changes, as the device may slow down while it is busy
        for one in left[::-1] if turn % 2 else left:
            one.take(before, seconds, settle)
    return [statistics.median(one.added) for one in asked]


class _Difference:
    """What one call adds, round by round."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self.added: list[float] = []
        self._whole: list[float] = []

    def take(self, before: float, seconds: float, settle: float) -> None:
        """One more round, in which the base took `before` milliseconds."""
        self._whole.append(self._sampler.block(seconds, settle))
        self.added.append(self._whole[-1] - before)

    def is_sure(self) -> bool:
        """Whether the rounds agree."""
        error = statistics.stdev(self.added) / len(self.added) ** 0.5
        return error <= _SURE * statistics.median(self._whole)


def clock_in_turn(device: torch.device) -> Callable[[], float] | None:
    """For `in_turn`, where calls use as many threads as torch does: with one thread its processor time.

    Other work on the same core interrupts a longer call more often, so that by the wall clock a shorter one
    looks better than it is. None: the wall clock.
    """
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.thread_time if alone else None


def in_turn(
    *calls: Callable[[], Any],
    device: str | torch.device = "cpu",
    rounds: int = 5,
    seconds: float = 0.06,
    least: int = 5,
    settle: float = SETTLE_SECONDS,
    clock: Callable[[], float] | None = None,
) -> list[tuple[float, ...]]:
    """Milliseconds of a call of each, sampled in turn: one tuple a round.

    The device's pace may change from round to round without changing the ratios or differences in a tuple.
    The device's lock is held and this process's threads are pinned meanwhile.

    Args:
        calls: what is compared.
        device: where.
        rounds: tuples to take.
        seconds: time for the samples of one call in one round.
        least: samples of one call in one round, however long they take.
        settle: seconds for which another call's threads may keep the cores after it.
        clock: of a CPU, `time.perf_counter` by default; see `clock_in_turn`.
    """
    found = require_device(device)
    taken = []
    with device_lock(found), pinned_threads(found) as threads:
        # a call on one thread leaves no threads that spin on
        settle = 0.0 if found.type == "cpu" and threads == 1 else settle
        samplers = [Sampler(call, found, clock) for call in calls]
        for turn in range(rounds):
            # the order changes, as the device may slow down while it is busy
            order = samplers[::-1] if turn % 2 else samplers
            times = {one: one.block(seconds, settle, least) for one in order}
            taken.append(tuple(times[one] for one in samplers))
    return taken


def ratios_in_turn(
    calls: Sequence[Callable[[], Any]],
    other: Callable[[], Any],
    *,
    device: str | torch.device = "cpu",
    rounds: int = 5,
    seconds: float = 0.06,
    least: int = 5,
    settle: float = SETTLE_SECONDS,
) -> list[list[float]]:
    """For each of `calls`, what it takes over what `other` takes, once a round, by `clock_in_turn`.

    All are to use as many threads as torch does; the rest is as in `in_turn`.
    """
    clock = clock_in_turn(require_device(device))
    taken = in_turn(
        *calls, other, device=device, rounds=rounds, seconds=seconds, least=least, settle=settle,
        clock=clock,
    )  # fmt: skip
    return [[times[place] / times[-1] for times in taken] for place in range(len(calls))]
