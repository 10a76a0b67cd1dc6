"""Short samples of a call, on a CPU by a clock, on a GPU between two events around a captured graph."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch

__all__ = ["SETTLE_SECONDS", "Sampler", "captured", "cpu_sample", "cuda_sample", "recording"]

SETTLE_SECONDS = 0.06
"""The threads of a session of ONNX Runtime spin about so long after a call before they sleep."""
# calls of so many times that length need no settling
_LONG = 10
_GRAPH_CALLS = 20


class Sampler:
    """One short sample of a call at a time, in milliseconds a call."""

    def __init__(
        self,
        fn: Callable[[], Any],
        device: torch.device,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._calls, self._inner = 1, 1
        self._sample: Callable[[Callable[[], Any], int], float] = partial(cpu_sample, clock=clock)
        self._fn = fn
        if device.type == "cuda":
            self._sample, self._calls = cuda_sample, _GRAPH_CALLS
            self._fn = captured(_repeated(fn, _GRAPH_CALLS))
        self._sample(self._fn, 1)
        first = self._first_ms = self._sample(self._fn, 1)
        if device.type != "cuda":
            self._inner = max(1, min(100, round(0.2 / max(first, 1e-4))))

    def __call__(self) -> float:
        """One sample."""
        return self._sample(self._fn, self._inner) / self._calls

    def block(self, seconds: float, settle: float, least: int = 5) -> float:
        """Median of the samples of `seconds`, after `settle` seconds in which others let go of the cores.

        There are `least` samples, however long one takes. Of a long call those seconds are a small part, and
        it is sampled at once.
        """
        end = time.monotonic() + (settle if self._first_ms < _LONG * 1e3 * settle else 0.0)
        while time.monotonic() < end:
            self()
        times: list[float] = []
        end = time.monotonic() + seconds
        while len(times) < least or time.monotonic() < end:
            times.append(self())
        return statistics.median(times)


def _repeated(fn: Callable[[], Any], count: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(count):
            fn()

    return run


def cpu_sample(
    fn: Callable[[], Any], calls: int, clock: Callable[[], float] | None = None
) -> float:
    """Milliseconds of one of `calls` calls by `clock`, `time.perf_counter` by default."""
    now = clock or time.perf_counter
    start = now()
    for _ in range(calls):
        fn()
    return (now() - start) * 1e3 / calls


def cuda_sample(fn: Callable[[], Any], calls: int) -> float:
    """The same between two events, the device's queue emptied before."""
    start = torch.cuda.Event(enable_timing=True)
    end = torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    for _ in range(calls):
        fn()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / calls


def recording(graph: Any, stream: Any) -> AbstractContextManager[None]:
    """A block whose kernels become the CUDA graph `graph` instead of running.

    Args:
        graph: an empty one.
        stream: of the device at hand; without one torch takes that of the device which this process recorded
            on first.
    """
    # only this thread is watched: a loader's thread may pin its next batch meanwhile, which would otherwise
    # end the recording, and that thread
    return torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local")


def captured(fn: Callable[[], Any]) -> Callable[[], None]:
    """`fn` as a CUDA graph: three calls on a side stream, then the capture."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            fn()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    recorded = torch.cuda.CUDAGraph()
    with recording(recorded, stream):
        fn()
    return recorded.replay
