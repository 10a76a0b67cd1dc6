"""The cost of a stage: seconds between two points, the device's queue emptied at both."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from darts_core.device import wait_for
from darts_core.latency.networks import NetworkTimer

__all__ = ["Stopwatch", "busy", "stopwatch"]


@dataclass
class Stopwatch:
    """`seconds` is final when the block has ended."""

    seconds: float = 0.0


@contextmanager
def stopwatch(device: torch.device) -> Iterator[Stopwatch]:
    """Time the block on `device`. For a stage's cost; latencies come from `latency.measure`."""
    watch = Stopwatch()
    wait_for(device)
    started = time.perf_counter()
    try:
        yield watch
    finally:
        wait_for(device)
        watch.seconds = time.perf_counter() - started


@contextmanager
def busy(device: torch.device, timer: NetworkTimer | None) -> Iterator[Stopwatch]:
    """As `stopwatch`, without what `timer` waits meanwhile for other work to leave the device."""
    before = timer.waited if timer is not None else 0.0
    with stopwatch(device) as watch:
        yield watch
    if timer is not None:
        watch.seconds = max(0.0, watch.seconds - (timer.waited - before))
