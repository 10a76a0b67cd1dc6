"""The node of a cell with partial channels in plain torch: the reference of `partial.py`, whose maths it is.

In a file without Triton, which there is none of for macOS: cells with dense convolutions run it on a CPU.

Source: PC-DARTS (arXiv:1907.05737), Eq. 2 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["join_reference"]


def join_reference(
    mixed_NCHW: Tensor,
    states: Sequence[Tensor],
    strides: Sequence[int],
    edge_weights: Tensor,
    groups: int,
) -> Tensor:
    """The node from its mixed sum and the whole states that enter it; differentiable, any dtype."""
    channels = mixed_NCHW.shape[1]
    rest: Tensor | None = None
    for weight, state, stride in zip(edge_weights, states, strides, strict=True):
        passing = state[:, channels:]
        if stride == 2:
            passing = F.max_pool2d(passing, 2, 2, ceil_mode=True)
        rest = weight * passing if rest is None else rest + weight * passing
    if rest is None:
        raise ValueError("A node needs at least one edge.")
    joined = torch.cat([mixed_NCHW, rest], 1)
    batch, _, height, width = joined.shape
    joined = joined.view(batch, groups, channels, height, width).transpose(1, 2)
    return joined.reshape(batch, groups * channels, height, width)
