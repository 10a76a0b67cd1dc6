"""The softmax relaxation of DARTS (arXiv:1806.09055, Eq. 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from darts_core.relax.base import Relaxation
from darts_core.settings import Bounds, bounded

__all__ = ["Softmax"]


class Softmax(Relaxation):
    """weight_k = exp(alpha_k / temperature) / sum_j exp(alpha_j / temperature)."""

    @bounded(temperature=Bounds(low=0, low_open=True, high=1e6))
    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature

    def weights(
        self, alpha_EK: Tensor, progress: Tensor | float, generator: torch.Generator | None
    ) -> Tensor:
        """The softmax over operations."""
        return torch.softmax(alpha_EK / self.temperature, dim=-1)

    def evaluate(self, alpha_EK: Tensor) -> Tensor:
        """The same: what is trained is what is measured and what guards look at."""
        return torch.softmax(alpha_EK / self.temperature, dim=-1)
