"""The one timer: warm-up until stable, synchronised, median with 5 and 95 % quantiles.

On a GPU a sample lies between two CUDA events, with a synchronisation after each, so that launch
costs count; `graph=True` captures the callable once and times replays. On a CPU the threads are
pinned. One lock per device keeps two timings of this program apart, and a row that was taken beside
other work on the device is flagged.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from darts_core.device import require_device
from darts_core.errors import LatencyError
from darts_core.latency import device as _device
from darts_core.latency.deployed import RUNTIMES, in_runtime
from darts_core.latency.samples import Sampler, captured, cpu_sample, cuda_sample
from darts_core.latency.timing import Timing, require_comparable, speedup
from darts_core.layout import input_in_layout
from darts_core.modes import evaluating
from darts_core.sample_inputs import draw_inputs

__all__ = [
    "Timing",
    "call_ms",
    "default_batch_sizes",
    "default_runtime",
    "measure",
    "measure_model",
    "quick_ms",
    "require_comparable",
    "speedup",
]

# a row is flagged when other processes kept more than this many cores busy meanwhile
FOREIGN_CORES = 0.25
# sampling lasts at least so long: the system counts processor time in ticks of 10 ms
_MIN_WINDOW_SECONDS = 0.3
# a disturbed measurement is taken once more
_ATTEMPTS = 2
_STABLE = 0.05
_MIN_SAMPLE_MS = 0.5


def default_batch_sizes(device: str | torch.device) -> tuple[int, int]:
    """Batch 1 and the throughput batch: 256 on a GPU, 32 on a CPU."""
    return (1, 256) if torch.device(device).type == "cuda" else (1, 32)


def default_runtime(device: torch.device) -> str:
    """What networks are timed in where nothing else is said: a CUDA graph on a GPU, ONNX Runtime on a CPU."""
    return "graph" if device.type == "cuda" else "onnx"


def measure(
    fn: Callable[[], Any],
    *,
    device: str | torch.device = "cpu",
    runtime: str = "eager",
    batch: int | None = None,
    repeats: int = 50,
    warmup_seconds: float = 1.0,
    max_seconds: float = 5.0,
    threads: int | None = None,
    graph: bool = False,
    inner: int | None = None,
    lock: bool = True,
) -> Timing:
    """The time of one call of `fn` on `device`.

    Args:
        fn: takes nothing; on a GPU it may return before the work is done.
        device: where the work runs: cpu, cuda or cuda:N.
        batch: images a call handles, stamped on the row.
        max_seconds: sampling ends after this time.
        runtime: a word for what runs (`eager`, `onnx`, ...), stamped on the row.
        repeats: samples wanted; fewer (at least 5) when `max_seconds` is over first, more when they
            take less than 0.3 seconds together.
        warmup_seconds: the longest warm-up; it ends earlier once two windows agree within 5 %.
        threads: CPU threads to pin to; torch's own count by default.
        graph: capture `fn` into a CUDA graph and time its replays (GPU only).
        inner: calls a sample, so that a sample is long against the clock; chosen by default.
        lock: hold the device lock meanwhile.

    Raises:
        LatencyError: a graph is asked for without a GPU, or `repeats` is below 5.
        DeviceError: the device is not there.
    """
    found = require_device(device)
    if repeats < 5:
        raise LatencyError(f"repeats={repeats} is too few for quantiles; take at least 5.")
    if graph and found.type != "cuda":
        raise LatencyError("A CUDA graph can be timed on a cuda device only; leave out graph=True.")
    with _device.device_lock(found) if lock else contextlib.nullcontext():
        for _ in range(_ATTEMPTS):
            row = _measure(fn, found, runtime, batch, repeats, warmup_seconds, max_seconds, threads,
                           graph, inner)  # fmt: skip
            if not row.flagged:
                break
    return row


def quick_ms(
    fn: Callable[[], Any], *, device: str | torch.device = "cpu", seconds: float = 0.02
) -> float:
    """Median milliseconds of one call, from few samples: for tables of many small pieces.

    On a GPU the calls are captured into a graph, 20 a sample. Hold `device_lock` around a series.
    """
    sampled = Sampler(fn, require_device(device))
    end = time.monotonic() + seconds
    times: list[float] = []
    while len(times) < 5 or (time.monotonic() < end and len(times) < 50):
        times.append(sampled())
    return statistics.median(times)


def call_ms(runtime: str, device: torch.device) -> float:
    """What a call costs in ONNX Runtime whatever it computes; 0 where operations run in one graph."""
    if runtime != "onnx":
        return 0.0
    nothing = in_runtime(nn.Identity(), torch.zeros(1, 1, 1, 1), runtime)
    return quick_ms(nothing, device=device, seconds=0.05)


def _measure(
    fn: Callable[[], Any],
    device: torch.device,
    runtime: str,
    batch: int | None,
    repeats: int,
    warmup_seconds: float,
    max_seconds: float,
    threads: int | None,
    graph: bool,
    inner: int | None,
) -> Timing:
    with _device.pinned_threads(device, threads) as used_threads:
        memory = _Memory(device)
        call = captured(fn) if graph else fn
        sample = cuda_sample if device.type == "cuda" else cpu_sample
        calls = _warm_up(call, sample, warmup_seconds, inner)
        load = _device.Load()
        now = time.monotonic()
        end, window = now + max_seconds, now + min(_MIN_WINDOW_SECONDS, max_seconds)
        times: list[float] = []
        while len(times) < 5 or (now < end and (len(times) < repeats or now < window)):
            times.append(sample(call, calls))
            now = time.monotonic()
        # the host's load disturbs GPU samples too when launches are part of what is timed
        reason = _flag_reason(device, load.foreign())
        peak = memory.peak_mib()
    low, median, high = np.quantile(np.asarray(times), [0.05, 0.5, 0.95])
    return Timing(
        median_ms=float(median),
        q05_ms=float(low),
        q95_ms=float(high),
        n=len(times),
        device=_device.device_name(device),
        runtime=runtime,
        batch=batch,
        threads=used_threads if device.type == "cpu" else None,
        peak_mib=peak,
        flagged=bool(reason),
        flag_reason=reason,
        versions=_device.versions(runtime),
    )


def _flag_reason(device: torch.device, foreign_cores: float) -> str:
    if device.type == "cuda":
        others = _device.foreign_gpu_processes(device)
        return f"{others} other process(es) on the GPU" if others else ""
    if foreign_cores > FOREIGN_CORES:
        return f"other processes kept {foreign_cores:.1f} cores busy"
    return ""


def _warm_up(
    fn: Callable[[], Any],
    sample: Callable[[Callable[[], Any], int], float],
    seconds: float,
    inner: int | None,
) -> int:
    """Calls `fn` until two windows of 3 samples agree or time is up; the calls a sample needs."""
    end = time.monotonic() + seconds
    first = sample(fn, 1)  # compilation and lazy initialisation land here
    second = sample(fn, 1)
    calls = inner or max(1, min(200, round(_MIN_SAMPLE_MS / max(min(first, second), 1e-4))))
    previous = statistics.median(sample(fn, calls) for _ in range(3))
    while time.monotonic() < end:
        current = statistics.median(sample(fn, calls) for _ in range(3))
        if abs(current - previous) <= _STABLE * previous:
            break
        previous = current
    return calls


class _Memory:
    """Peak memory since this object was made: allocator bytes on a GPU, resident set on Linux."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before: float | None = None
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            self._before = 0.0
            return
        try:
            # writing 5 resets the high-water mark of this process
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
            self._before = _status_mib("VmRSS")
        except OSError:
            self._before = None

    def peak_mib(self) -> float | None:
        if self._device.type == "cuda":
            return float(torch.cuda.max_memory_allocated(self._device)) / 2**20
        if self._before is None:
            return None
        peak = _status_mib("VmHWM")
        return None if peak is None else max(0.0, peak - self._before)


def _status_mib(key: str) -> float | None:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    return None


def measure_model(
    model: nn.Module,
    input_shape: Sequence[int],
    *,
    batch_sizes: Sequence[int] | None = None,
    device: str | torch.device = "cpu",
    runtime: str = "eager",
    channels_last: bool = False,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> dict[int, Timing]:
    """Times of `model` in eval mode on random input, one row a batch size.

    Args:
        model: takes [B, *input_shape]; left in its mode and on its device.
        device: where it runs.
        channels_last: feed inputs in that layout.
        dtype: of the inputs.
        input_shape: (C, H, W), (C, T), or (T,) of token numbers.
        batch_sizes: batch 1 and the throughput batch (256 on a GPU, 32 on a CPU) by default.
        runtime: `eager`, `compile` (torch.compile), `graph` (CUDA graph of eager, GPU only) or
            `onnx` (ONNX Runtime, CPU only: the form that `export` writes, without its checks).
        options: further arguments of `measure`.

    Raises:
        LatencyError: the runtime is unknown or the input shape is none.
    """
    if runtime not in RUNTIMES:
        raise LatencyError(
            f"Unknown runtime {runtime!r} for a model in memory; use {', '.join(RUNTIMES)} "
            "(exported files are timed by `darts-core serve-bench`)."
        )
    if len(input_shape) not in (1, 2, 3):
        raise LatencyError(
            f"input_shape must be (channels, height, width), (channels, positions) or (positions,) of "
            f"tokens, not {input_shape!r}."
        )
    found = require_device(device)
    if runtime == "onnx" and found.type != "cpu":
        raise LatencyError(f"runtime='onnx' is timed on a CPU, not on {found}; use graph there.")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    rows: dict[int, Timing] = {}
    with evaluating(model, found), torch.inference_mode():
        for batch in batch_sizes or default_batch_sizes(found):
            x = input_in_layout(draw_inputs(input_shape, batch, device=found, dtype=dtype), layout)
            rows[batch] = measure(
                # a captured graph replays what eager runs
                in_runtime(model, x, "eager" if runtime == "graph" else runtime),
                device=found,
                runtime=runtime,
                batch=batch,
                graph=runtime == "graph",
                **options,
            )
    return rows
