"""Figures a trial may report beside its accuracy: measured latency and number of params."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["count_params", "latency_ms"]


def latency_ms(
    model: nn.Module,
    input_shape: Sequence[int],
    *,
    batch: int = 1,
    device: str | None = None,
    repeats: int = 30,
    max_seconds: float = 3.0,
) -> float:
    """Median milliseconds of one inference call of `model`, by the package's one timer.

    Warm-up, synchronisation and a lock per device included, so trials that run side by side do not time
    at once; with `max_concurrent` above 1 the other trials' work still disturbs a CPU timing. A
    disturbed one is taken again, and marked in the result table if that does not help (`latency_flag`).

    Args:
        model: any module; it is timed in eval mode and given back in the mode it had.
        input_shape: one image's shape (C, H, W).
        batch: images a call.
        device: where to time; the trial's device by default.
        repeats: samples of the median.
        max_seconds: the longest time spent sampling.
    """
    import torch

    from darts_core.autosearch.contract import current
    from darts_core.latency.measure import measure
    from darts_core.modes import evaluating

    place = torch.device(device or current().device)
    images = torch.randn(batch, *input_shape, device=place)
    with evaluating(model, place), torch.inference_mode():
        timing = measure(
            lambda: model(images),
            device=place,
            batch=batch,
            repeats=repeats,
            max_seconds=max_seconds,
        )
    current().latency_flag = timing.flag_reason
    return timing.median_ms


def count_params(model: nn.Module) -> int:
    """The number of trainable and frozen params of `model`."""
    return sum(p.numel() for p in model.parameters())
