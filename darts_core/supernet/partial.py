"""Partial channels in the plan's terms: what passes a cell beside its mixed operations.

With K groups a state has C = K c channels. Operations see the first c; the others pass by, max-pooled 2 x 2
where an edge has stride 2, times the weight of the edge, and the node's channels are interleaved:

    node = shuffle(cat(sum_e mixed_e(x[:c]), sum_e b_e bypass(x[c:]))),     b_e = sum_k w_ek,

channel i of group g becoming channel i K + g. The shuffle is a fixed permutation and everything here is
linear, so it is done once a node and not once an edge. Torch calls for the batched path; the fused path's
kernels are `darts_kernels.partial`.

Source: PC-DARTS (arXiv:1907.05737), Eq. 2 and 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from darts_kernels.layout import CellLayout

__all__ = ["Bypass"]


class Bypass:
    """The bypass of one forward pass of a cell, for states [C, pixels, samples].

    Args:
        layout: the cell, `groups` > 1.
        mix_EK: mixing weights in the layout's order.
        size: height and width of the input states.
    """

    def __init__(self, layout: CellLayout, mix_EK: Tensor, size: tuple[int, int]) -> None:
        self.layout, self.size = layout, size
        self.edge_weights = mix_EK.sum(-1)
        self.rests: list[Tensor] = []

    def add(self, state_CPB: Tensor) -> Tensor:
        """Note the bypass of the next state; returns the channels that are mixed."""
        channels = self.layout.channels
        rest = state_CPB[channels:]
        if len(self.rests) < self.layout.inputs and self.layout.stride == 2:
            plane = rest.view(rest.shape[0], *self.size, -1).permute(3, 0, 1, 2)
            pooled = F.max_pool2d(plane, 2, 2, ceil_mode=True)
            rest = pooled.permute(1, 2, 3, 0).reshape(rest.shape[0], -1, rest.shape[-1])
        self.rests.append(rest)
        return state_CPB[:channels]

    def join(self, mixed_CPB: Tensor) -> Tensor:
        """The next node [K c, pixels, samples] from the sum of its mixed operations [c, ...]."""
        layout, node = self.layout, len(self.rests)
        rows = [e for e, (_, target) in enumerate(layout.edges) if target == node]
        rests = torch.stack([self.rests[layout.edges[e][0]] for e in rows])
        passing = torch.einsum("e,ecpb->cpb", self.edge_weights[rows], rests)
        joined = torch.cat([mixed_CPB, passing])
        _, pixels, batch = joined.shape
        joined = joined.view(layout.groups, layout.channels, pixels, batch)
        return joined.transpose(0, 1).reshape(layout.width, pixels, batch)
