"""Softmax over operations that are dropped at random, with a chance that falls to nothing over the search.

    kept_k ~ Bernoulli(1 - chance * (1 - progress))
    weight_k = kept_k * softmax(alpha)_k / sum_j kept_j * softmax(alpha)_j

An operation has to serve without the others at times, so that none lives on what another one does. Where all
that have weight would be dropped, none is. After the path dropout of Bender et al., "Understanding and
Simplifying One-Shot Architecture Search" (ICML 2018), whose rate rises over the training; here it falls, so
that alpha ends where nothing is dropped.
"""

from __future__ import annotations

import torch
from torch import Tensor

from darts_core.relax.softmax import Softmax
from darts_core.settings import Bounds, bounded

__all__ = ["Dropout"]


class Dropout(Softmax):
    """Softmax with operation-level dropout.

    Args:
        chance: of each operation on each edge to be dropped in a step, at the search's begin.

    Raises:
        ConfigError: the chance is no share below one.
    """

    samples = True

    @bounded(chance=Bounds(low=0, high=0.99))
    def __init__(self, chance: float = 0.2) -> None:
        super().__init__()
        self.chance = chance

    def weights(
        self, alpha_EK: Tensor, progress: Tensor | float, generator: torch.Generator | None
    ) -> Tensor:
        """Weights [E, K] that sum to one over what is kept."""
        weight_EK = super().weights(alpha_EK, progress, generator)
        drawn_EK = torch.rand(
            weight_EK.shape, generator=generator, device=weight_EK.device, dtype=weight_EK.dtype
        )
        masked_EK = weight_EK * (drawn_EK >= self.chance * (1 - progress))
        whole_E1 = masked_EK.sum(-1, keepdim=True)
        return torch.where(whole_E1 > 0, masked_EK / whole_E1.clamp_min(1e-30), weight_EK)
