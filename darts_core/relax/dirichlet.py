"""Dirichlet-distributed mixing weights with an anchor (DrNAS)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from darts_core.relax.base import Relaxation
from darts_core.settings import Bounds, bounded

__all__ = ["Dirichlet", "dirichlet_kl_to_uniform"]


class Dirichlet(Relaxation):
    """weight ~ Dirichlet(elu(alpha) + 1), pathwise gradient, and a pull towards Dirichlet(1, ..., 1).

    Source: DrNAS (arXiv:2006.10355), Eq. 3 to 6; anchor weight 1e-3 with the KL divergence.

    Args:
        anchor: factor of KL(Dirichlet(beta) || Dirichlet(1)), summed over edges; at least 0.
        channel_fraction: the mixed operation sees 1 / channel_fraction of the channels.

    Raises:
        ConfigError: `anchor` is negative or `channel_fraction` is below 1.
    """

    samples = True

    @bounded(anchor=Bounds(low=0, high=1e6), channel_fraction=Bounds(low=1, high=4096))
    def __init__(self, anchor: float = 1e-3, channel_fraction: int = 1) -> None:
        self.anchor = anchor
        self.channel_fraction = channel_fraction

    def weights(
        self, alpha_EK: Tensor, progress: Tensor | float, generator: torch.Generator | None
    ) -> Tensor:
        """A sample for each edge: independent gamma draws over their sum."""
        allowed = torch.isfinite(alpha_EK)
        # the sampler in torch.distributions takes no generator and checks values on the host
        gamma = torch._standard_gamma(_concentration(alpha_EK, allowed), generator=generator)
        gamma = gamma * allowed
        return gamma / gamma.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(gamma.dtype).tiny)

    def evaluate(self, alpha_EK: Tensor) -> Tensor:
        """The mean of the distribution."""
        allowed = torch.isfinite(alpha_EK)
        concentration = _concentration(alpha_EK, allowed) * allowed
        return concentration / concentration.sum(dim=-1, keepdim=True)

    def penalty(
        self, alphas: Mapping[str, Tensor], progress: Tensor | float = 1.0
    ) -> Tensor | None:
        """anchor * sum over edges of KL(Dirichlet(beta) || Dirichlet(1))."""
        if not self.anchor:
            return None
        terms = []
        for alpha_EK in alphas.values():
            if alpha_EK.dim() == 2:
                allowed = torch.isfinite(alpha_EK)
                concentration = _concentration(alpha_EK, allowed)
                terms.append(dirichlet_kl_to_uniform(concentration, allowed).sum())
        return self.anchor * torch.stack(terms).sum()


def _concentration(alpha_EK: Tensor, allowed_EK: Tensor) -> Tensor:
    finite = torch.where(allowed_EK, alpha_EK, torch.zeros_like(alpha_EK))
    # elu + 1 reaches 0 in floating point for very negative alphas, where no gamma law exists
    return (F.elu(finite) + 1).clamp_min(1e-6)


def dirichlet_kl_to_uniform(concentration_EK: Tensor, allowed_EK: Tensor) -> Tensor:
    """KL(Dirichlet(concentration) || Dirichlet(1)) of each row, over its allowed entries.

    Shapes: [E, K], [E, K] bool -> [E].
    """
    used = allowed_EK.to(concentration_EK.dtype)
    total = (concentration_EK * used).sum(dim=-1)
    excess = ((concentration_EK - 1) * (torch.digamma(concentration_EK) * used)).sum(dim=-1)
    excess = excess - ((concentration_EK - 1) * used).sum(dim=-1) * torch.digamma(total)
    log_beta = (torch.lgamma(concentration_EK) * used).sum(dim=-1) - torch.lgamma(total)
    return excess - log_beta - torch.lgamma(used.sum(dim=-1))
