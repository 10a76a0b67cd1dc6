"""One-hot samples whose gradient is accurate to second order (ReinMax)."""

from __future__ import annotations

import torch
from torch import Tensor

from darts_core.relax._noise import gumbel_like, one_hot_of_largest
from darts_core.relax.base import Relaxation
from darts_core.settings import Bounds, bounded

__all__ = ["ReinMax", "reinmax_gradient_path"]


class ReinMax(Relaxation):
    """One operation an edge, drawn with probability softmax(alpha), gradient by Heun's rule.

    Unlike straight-through, the gradient's expectation is exact for a loss that is quadratic in the
    sample (at temperature 1).

    Source: ReinMax (arXiv:2304.08612), Algorithm 2 and Theorem 3.1; temperature 1 by default.

    Args:
        temperature: of the softmax in the gradient, at least 1 (smaller ones spoil the estimate).

    Raises:
        ConfigError: the temperature is below 1.
    """

    samples = True
    draws_one = True

    @bounded(temperature=Bounds(low=1, high=1e6))
    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature

    def weights(
        self, alpha_EK: Tensor, progress: Tensor | float, generator: torch.Generator | None
    ) -> Tensor:
        """A one-hot sample for each edge."""
        sample = one_hot_of_largest(alpha_EK.detach() + gumbel_like(alpha_EK, generator))
        return reinmax_gradient_path(alpha_EK, sample, self.temperature)


def reinmax_gradient_path(alpha_EK: Tensor, sample_EK: Tensor, temperature: float) -> Tensor:
    """`sample` in value, with ReinMax's gradient path to `alpha`.

    Shapes: alpha [E, K], sample [E, K] one-hot -> [E, K].
    """
    soft = torch.softmax(alpha_EK, dim=-1)
    tempered = torch.softmax(alpha_EK / temperature, dim=-1)
    mean = 0.5 * (sample_EK + tempered)
    # logits of the mean distribution, written so that their derivative for alpha is the identity;
    # a disallowed operation (alpha = -inf) is kept out of the difference, which would be NaN
    allowed = torch.isfinite(alpha_EK)
    finite = torch.where(allowed, alpha_EK, torch.zeros_like(alpha_EK))
    log_mean = torch.where(allowed, mean, torch.ones_like(mean)).log().detach()
    logits = (log_mean - finite.detach()) + finite
    mixed = torch.softmax(logits.masked_fill(~allowed, float("-inf")), dim=-1)
    path = 2.0 * mixed - 0.5 * soft
    return sample_EK + (path - path.detach())
