"""Figures a trial may report beside its accuracy: measured latency and number of params."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
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
        input_shape: one input's shape without the batch, (C, H, W), (C, T) or (F,); (T,) of a model that
            looks token numbers up (one with an `nn.Embedding`).
        batch: inputs a call.
        device: where to time; the trial's device by default.
        repeats: samples of the median.
        max_seconds: the longest time spent sampling.
    """
    import torch

    from darts_core.autosearch.contract import current
    from darts_core.latency.measure import measure

    place = torch.device(device or current().device)
    training = model.training
    home = next((p.device for p in model.parameters()), place)
    model.eval().to(place)
    inputs = _inputs(model, (batch, *input_shape), place)
    try:
        with torch.inference_mode():
            timing = measure(
                lambda: model(inputs),
                device=place,
                batch=batch,
                repeats=repeats,
                max_seconds=max_seconds,
            )
    finally:
        model.to(home).train(training)
    current().latency_flag = timing.flag_reason
    return timing.median_ms


def _inputs(model: nn.Module, shape: tuple[int, ...], place: torch.device) -> torch.Tensor:
    """Random values in the model's precision; of rows token numbers, where the model has a table of these."""
    import torch
    from torch import nn

    tables = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
    if tables and len(shape) == 2:
        return torch.randint(min(tables), shape, device=place)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    return torch.randn(shape, device=place, dtype=dtype)


def count_params(model: nn.Module) -> int:
    """The number of trainable and frozen params of `model`."""
    return sum(p.numel() for p in model.parameters())
