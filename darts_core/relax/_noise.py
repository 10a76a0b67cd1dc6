"""Random draws that a CUDA graph can capture: no host copy, the generator is an argument."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["gumbel_like", "interpolate", "one_hot_of_largest"]


def gumbel_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard Gumbel noise of the shape, dtype and device of `x`: -log of an exponential draw."""
    exponential = torch.empty_like(x).exponential_(generator=generator)
    return -exponential.clamp_min(torch.finfo(x.dtype).tiny).log()


def one_hot_of_largest(x_EK: Tensor) -> Tensor:
    """1 at the largest entry of each row, 0 elsewhere; ties go to the first."""
    # scatter and not one_hot: the latter waits for the device to check its input
    return torch.zeros_like(x_EK).scatter_(-1, x_EK.argmax(dim=-1, keepdim=True), 1.0)


def interpolate(start: float, end: float, progress: Tensor | float) -> Tensor | float:
    """`start` at progress 0, `end` at progress 1, linear in between."""
    return start + (end - start) * progress
