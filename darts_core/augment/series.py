"""Time shift, scaling and jitter of series, drawn per sample and executed for the whole batch on its device.

Shapes: B batch, C channels, T positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["SeriesAugment", "shifted"]


def shifted(series_BCT: Tensor, generator: torch.Generator, *, most: int) -> Tensor:
    """Each series moved by up to `most` positions either way; zeros come in, which are the mean.

    Shapes: normalised [B, C, T] -> the same.
    """
    batch, _, length = series_BCT.shape
    device = series_BCT.device
    shift_B1 = torch.randint(-most, most + 1, (batch, 1), generator=generator, device=device)
    from_BT = torch.arange(length, device=device) - shift_B1
    inside_B1T = ((from_BT >= 0) & (from_BT < length))[:, None]
    index_BCT = from_BT.clamp(0, length - 1)[:, None].expand_as(series_BCT)
    return series_BCT.gather(2, index_BCT) * inside_B1T


@dataclass(frozen=True)
class SeriesAugment:
    """Time shift, then scaling, then jitter, on normalised series; a `BatchTransform` of `darts_core.data`.

    Args:
        time_shift: largest shift in positions; 0 is off.
        scaling: standard deviation of a factor around 1, one a series and channel; 0 is off.
        jitter: standard deviation of noise on every value, in the data's own standard deviations; 0 is off.
    """

    time_shift: int = 0
    scaling: float = 0.0
    jitter: float = 0.0
    # nothing is decided on the host
    capturable = True

    @classmethod
    def of(
        cls, shape: Sequence[int], *, time_shift: int, scaling: float, jitter: float
    ) -> SeriesAugment | None:
        """The transform for series of one shape (C, T), None when it would do nothing."""
        shift = min(time_shift, shape[1])
        if not (shift or scaling or jitter):
            return None
        return cls(shift, scaling, jitter)

    def on_pixels(self, series_BCT: Tensor, generator: torch.Generator) -> Tensor:
        """Nothing: stored values are left alone."""
        return series_BCT

    def on_normalized(self, series_BCT: Tensor, generator: torch.Generator) -> Tensor:
        """Everything, on normalised series [B, C, T]."""
        device = series_BCT.device
        if self.time_shift:
            series_BCT = shifted(series_BCT, generator, most=self.time_shift)
        if self.scaling:
            shape = (*series_BCT.shape[:2], 1)
            noise_BC1 = torch.randn(shape, generator=generator, device=device)
            series_BCT = series_BCT * (1 + self.scaling * noise_BC1)
        if self.jitter:
            noise_BCT = torch.randn(series_BCT.shape, generator=generator, device=device)
            series_BCT = series_BCT + self.jitter * noise_BCT
        return series_BCT

    def __call__(self, series_BCT: Tensor, generator: torch.Generator) -> Tensor:
        """Everything, on normalised series [B, C, T]."""
        return self.on_normalized(series_BCT, generator)
