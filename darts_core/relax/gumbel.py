"""Gumbel-softmax with straight-through one-hot samples (GDAS)."""

from __future__ import annotations

import torch
from torch import Tensor

from darts_core.errors import ConfigError
from darts_core.relax._noise import gumbel_like, interpolate, one_hot_of_largest
from darts_core.relax.base import Relaxation

__all__ = ["GumbelStraightThrough"]


class GumbelStraightThrough(Relaxation):
    """One operation an edge, drawn with probability softmax(alpha); gradient of the soft sample.

    forward:  onehot(argmax_k(alpha_k + gumbel_k));
    backward: that of softmax((alpha + gumbel) / temperature).

    Every candidate's output enters the gradient, the authors' code keeps the drawn one's only.

    Source: GDAS (arXiv:1910.04465), Eq. 3 to 5; temperature 10 falling linearly to 0.1.

    Args:
        temperature_start: temperature at the beginning of the search, positive.
        temperature_end: temperature at its end, positive.

    Raises:
        ConfigError: a temperature is not positive.
    """

    def __init__(self, temperature_start: float = 10.0, temperature_end: float = 0.1) -> None:
        if temperature_start <= 0 or temperature_end <= 0:
            raise ConfigError(
                "Temperatures must be positive, not "
                f"{temperature_start} (start) and {temperature_end} (end)."
            )
        self.temperature_start = temperature_start
        self.temperature_end = temperature_end

    def weights(
        self, alpha_EK: Tensor, progress: Tensor | float, generator: torch.Generator | None
    ) -> Tensor:
        """A one-hot sample for each edge."""
        temperature = interpolate(self.temperature_start, self.temperature_end, progress)
        noisy = alpha_EK + gumbel_like(alpha_EK, generator)
        soft = torch.softmax(noisy / temperature, dim=-1)
        return one_hot_of_largest(noisy.detach()) + (soft - soft.detach())
