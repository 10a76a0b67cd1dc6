"""The annealed concrete distribution (SNAS)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from darts_core.relax._noise import gumbel_like, interpolate
from darts_core.relax.base import Relaxation
from darts_core.settings import Bounds, bounded

__all__ = ["Concrete"]


class Concrete(Relaxation):
    """weight = softmax((alpha + gumbel) / temperature), the temperature falling exponentially.

    Source: SNAS (arXiv:1812.09926), Eq. 6 (search gradient through the concrete sample). The paper
    anneals "close to zero" without numbers; 1.0 to 0.33 are those of later reimplementations.

    Args:
        temperature_start: temperature at the beginning of the search, positive.
        temperature_end: temperature at its end, positive.

    Raises:
        ConfigError: a temperature is not positive.
    """

    samples = True

    @bounded(
        temperature_start=Bounds(low=0, low_open=True, high=1e6),
        temperature_end=Bounds(low=0, low_open=True, high=1e6),
    )
    def __init__(self, temperature_start: float = 1.0, temperature_end: float = 0.33) -> None:
        self.temperature_start = temperature_start
        self.temperature_end = temperature_end

    def temperature(self, progress: Tensor | float) -> Tensor | float:
        """start * (end / start) ** progress."""
        power = interpolate(
            math.log(self.temperature_start), math.log(self.temperature_end), progress
        )
        return torch.exp(power) if isinstance(power, Tensor) else math.exp(power)

    def weights(
        self, alpha_EK: Tensor, progress: Tensor | float, generator: torch.Generator | None
    ) -> Tensor:
        """A soft sample for each edge."""
        noisy = alpha_EK + gumbel_like(alpha_EK, generator)
        return torch.softmax(noisy / self.temperature(progress), dim=-1)
