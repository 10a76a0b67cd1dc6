"""Beta-DARTS: alphas are kept from growing, so that no operation wins by a large logit alone.

    strength(progress) * mean over edges of log sum_k exp(alpha_k)

The gradient of log-sum-exp is the softmax itself: every step pulls each logit down in proportion to its
weight, which bounds the range of the weights. The strength rises in a line over the search.
Source: Ye et al., "beta-DARTS: Beta-Decay Regularization for Differentiable Architecture Search",
arXiv:2203.01665, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from darts_core.penalties.base import AlphaPenalty
from darts_core.settings import Bounds, bounded

__all__ = ["Beta"]


class Beta(AlphaPenalty):
    """The penalty of beta-DARTS.

    Args:
        start: factor at the search's begin.
        end: factor at its end.

    Raises:
        ConfigError: a factor is negative.
    """

    @bounded(start=Bounds(low=0, high=1e6), end=Bounds(low=0, high=1e6))
    def __init__(self, start: float = 0.0, end: float = 50.0) -> None:
        self.start, self.end = start, end

    def of_alphas(self, alphas: Mapping[str, Tensor], progress: Tensor | float) -> Tensor:
        """The penalty; parameters besides the logits [E, K] are left out."""
        decays = [torch.logsumexp(a, dim=-1) for a in alphas.values() if a.dim() == 2]
        return (self.start + (self.end - self.start) * progress) * torch.cat(decays).mean()
