"""A clock and a device that are made up: no test of timing depends on the machine's load; a supernet."""

import time
from types import SimpleNamespace

from darts_core.latency import Timing, measure
from darts_core.latency import device as device_module
from darts_core.spaces import get_space
from darts_core.supernet import Supernet

FAST = {"warmup_seconds": 0.02, "max_seconds": 0.1}


def row(**changes) -> Timing:
    plain = {
        "median_ms": 2.0,
        "q05_ms": 1.0,
        "q95_ms": 3.0,
        "n": 5,
        "device": "card A",
        "threads": None,
    }
    return Timing(**(plain | changes))


def supernet(name: str = "darts", layers: int = 3) -> Supernet:
    return Supernet(get_space(name), channels=4, layers=layers, num_classes=3)


class Clock:
    """Time that passes only when the measured call says so: no test depends on the machine's load."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(time, "thread_time", lambda: self.now)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def sleep(self, seconds):
        self.now += seconds


class Drifting:
    """A device that slows down by a tenth every second; `foreign` cores are busy with other work."""

    def __init__(self, clock, monkeypatch):
        self.clock, self.foreign = clock, 0.0
        monkeypatch.setattr(
            device_module, "Load", lambda: SimpleNamespace(foreign=lambda: self.foreign)
        )

    def call(self, seconds):
        return lambda: self.clock.sleep(seconds * (1 + 0.1 * (self.clock.now - 100.0)))

    def timed(self, calls):
        """Their timings, three seconds apart."""
        rows = []
        for call in calls:
            rows.append(measure(call, repeats=5, **FAST))
            self.clock.sleep(3.0)
        return rows
