"""Figures a trial may report beside its accuracy: measured latency and number of params."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

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
        input_shape: of one example: (C, H, W), (C, T), (F,) of values, or (T,) of token numbers, which are
            given to a network that takes no values.
        batch: examples a call.
        device: where to time; the trial's device by default.
        repeats: samples of the median.
        max_seconds: the longest time spent sampling.
    """
    import torch

    from darts_core.autosearch.contract import current
    from darts_core.latency.measure import measure
    from darts_core.modes import evaluating

    place = torch.device(device or current().device)
    with evaluating(model, place), torch.inference_mode():
        inputs = _inputs(model, input_shape, batch, place)
        timing = measure(
            lambda: model(inputs),
            device=place,
            batch=batch,
            repeats=repeats,
            max_seconds=max_seconds,
        )
    current().latency_flag = timing.flag_reason
    return timing.median_ms


def _inputs(model: nn.Module, shape: Sequence[int], batch: int, place: torch.device) -> Tensor:
    """Random values in the network's number format; token numbers where it does not take a row of values."""
    import torch

    from darts_core.sample_inputs import draw_inputs, number_format

    values = torch.randn(batch, *shape, device=place, dtype=number_format(model))
    if len(shape) == 1:
        try:
            model(values)
        except Exception:  # whatever a foreign network raises; of tokens it raises again
            return draw_inputs(shape, batch, device=place)
    return values


def count_params(model: nn.Module) -> int:
    """The number of trainable and frozen params of `model`."""
    return sum(p.numel() for p in model.parameters())
