"""Independent sigmoid weights with the zero-one loss (FairDARTS)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from darts_core.relax.base import Relaxation
from darts_core.settings import Bounds, bounded

__all__ = ["Sigmoid"]


class Sigmoid(Relaxation):
    """weight_k = sigmoid(alpha_k): operations of an edge do not compete.

    The penalty - zero_one * mean((sigmoid(alpha) - 1/2)^2) pushes every weight towards 0 or 1.

    Source: FairDARTS (arXiv:1911.12126), Eq. 4 (weights) and Eq. 6 (zero-one loss, weight 10).

    Args:
        zero_one: factor of the zero-one loss, at least 0.

    Raises:
        ConfigError: `zero_one` is negative.
    """

    @bounded(zero_one=Bounds(low=0, high=1e6))
    def __init__(self, zero_one: float = 10.0) -> None:
        self.zero_one = zero_one

    def weights(
        self, alpha_EK: Tensor, progress: Tensor | float, generator: torch.Generator | None
    ) -> Tensor:
        """The sigmoid of each alpha; a disallowed operation gets 0."""
        return torch.sigmoid(alpha_EK)

    def evaluate(self, alpha_EK: Tensor) -> Tensor:
        """The same sigmoid."""
        return torch.sigmoid(alpha_EK)

    def penalty(
        self, alphas: Mapping[str, Tensor], progress: Tensor | float = 1.0
    ) -> Tensor | None:
        """The zero-one loss over all alphas that may be chosen."""
        if not self.zero_one:
            return None
        flat = torch.cat([alpha.flatten() for alpha in alphas.values()])
        distance = torch.sigmoid(flat) - 0.5
        # a disallowed operation is no term of the mean: with many of them the others would be pushed less
        allowed = torch.isfinite(flat)
        distance = torch.where(allowed, distance, torch.zeros_like(distance))
        return -self.zero_one * distance.square().sum() / allowed.sum()
