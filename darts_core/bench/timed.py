"""The times of a table: on a CPU its models are made ready first and timed together, on a GPU one by one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from darts_core.bench.runtimes import Prepared
from darts_core.export.verify import tf32
from darts_core.latency import Timing, default_batch_sizes, measure
from darts_core.latency.steady import levelled
from darts_core.report.rows import Latency, ModelRow
from darts_core.sample_inputs import draw_inputs

__all__ = ["Untimed", "time_models", "with_times"]

log = logging.getLogger("darts_core")


@dataclass(frozen=True)
class Untimed:
    """A row of a table before it was timed.

    Attributes:
        row: without times.
        ready: what will be timed.
        input_shape: of one sample.
    """

    row: ModelRow
    ready: Prepared
    input_shape: Sequence[int]


def with_times(
    rows: Iterable[Untimed],
    *,
    device: torch.device,
    batch_sizes: Sequence[int] | None = None,
    seconds: float = 2.0,
) -> list[ModelRow]:
    """The rows with the times that `time_models` takes of them.

    On a CPU it takes them of all together, which are then sampled in turn. On a GPU, which keeps its pace and
    whose memory would have to hold all models, each is timed before the next one is asked for.

    Args:
        rows: an iterator makes each when it is asked for.
        device: where they run.
        batch_sizes: see `time_models`.
        seconds: see `time_models`.
    """
    found: list[ModelRow] = []
    for group in _together(rows, device):
        times = time_models(
            [(one.ready, one.input_shape) for one in group],
            device=device, batch_sizes=batch_sizes, seconds=seconds,
        )  # fmt: skip
        for one, latency in zip(group, times, strict=True):
            device_name = next(iter(latency.values())).device
            found.append(replace(one.row, latency=latency, device=device_name))
            log.info("%s: %s", found[-1].label, _short(found[-1]))
    return found


def _together(rows: Iterable[Untimed], device: torch.device) -> Iterator[list[Untimed]]:
    """The rows in the groups in which they are timed."""
    if device.type == "cpu":
        yield list(rows)
    else:
        yield from ([one] for one in rows)


def _short(row: ModelRow) -> str:
    times = ", ".join(f"{t.median_ms:.3f} ms at batch {b}" for b, t in row.latency.items())
    return f"{times}, test {row.accuracy_mean or 0.0:.4f} (n={row.n})"


def time_models(
    models: Sequence[tuple[Prepared, Sequence[int]]],
    *,
    device: torch.device,
    batch_sizes: Sequence[int] | None = None,
    seconds: float = 2.0,
) -> list[dict[int, Latency]]:
    """Median times with quantiles on random images, of each model one a batch size.

    On a CPU the ratios between models are those of samples taken in turn, see `latency.steady.levelled`.

    Args:
        models: what to time, each with its input's shape: (C, H, W).
        device: where they run.
        batch_sizes: 1 and the throughput batch (256 on a GPU, 32 on a CPU) by default.
        seconds: longest time of one timing; the warm-up takes at most half as long.
    """
    times: list[dict[int, Latency]] = [{} for _ in models]
    with torch.inference_mode():
        for batch in batch_sizes or default_batch_sizes(device):
            calls = [
                partial(ready.call, draw_inputs(shape, batch, device=device))
                for ready, shape in models
            ]
            rows = [
                _timed(call, ready, batch, device, seconds)
                for call, (ready, _) in zip(calls, models, strict=True)
            ]
            for own, row in zip(
                times, levelled(rows, calls, device=device, seconds=seconds), strict=True
            ):
                own[batch] = Latency.from_timing(row)
    return times


def _timed(
    call: Callable[[], Any], ready: Prepared, batch: int, device: torch.device, seconds: float
) -> Timing:
    with tf32(ready.precision == "tf32"):
        return measure(
            call, device=device, runtime=ready.runtime, batch=batch, graph=ready.graph,
            max_seconds=seconds, warmup_seconds=seconds / 2,
        )  # fmt: skip
