"""One relaxation: softmax of alphas with noise that fades out over the search."""

import torch
from torch import Tensor

from darts_core.relax import Relaxation


class NoisySoftmax(Relaxation):
    """softmax(alpha + scale * (1 - progress) * normal noise)."""

    samples = True

    def __init__(self, scale: float = 0.5) -> None:
        self.scale = scale

    def weights(
        self, alpha_EK: Tensor, progress: Tensor | float, generator: torch.Generator | None
    ) -> Tensor:
        noise = torch.empty_like(alpha_EK).normal_(generator=generator)
        return torch.softmax(alpha_EK + self.scale * (1 - progress) * noise, dim=-1)
