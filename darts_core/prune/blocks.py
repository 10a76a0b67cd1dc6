"""Channels in equal blocks that lose the same ones: of grouped convolutions, norms over groups, gates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from darts_core.prune.graph import group_of

__all__ = ["CONVOLUTIONS", "blocks_of"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def blocks_of(graph: Any, full: Any) -> int | None:
    """Equal parts of a group's channels that must lose the same ones; None where no width would fit.

    The groups of a grouped convolution stay, and so do those of a norm over groups of channels; each keeps
    as many channels as the others, and of a convolution's input the same ones. So do parts of a layer's
    channels that meet again, as the halves that a gated linear unit multiplies.
    """
    count, channels = 1, len(full[0].idxs)
    for item in full:
        module = item.dep.target.module
        parts = _parts(module)
        if parts == 1:
            continue
        if isinstance(module, nn.GroupNorm):
            own = module.num_channels
        elif graph.is_out_channel_pruning_fn(item.dep.handler):
            own = module.out_channels
        else:
            own = module.in_channels
        whole = list(range(own))
        if own != channels or list(item.idxs) != whole or list(item.root_idxs) != whole:
            return None
        count = math.lcm(count, parts)
    count = math.lcm(count, len(_lost_with(graph, full, [0])))
    if channels % count or (count > 1 and channels // count < 2):
        return None
    # channels that meet in another way (mirrored, some only) show in a part that is drawn
    columns = channels // count
    some = np.random.default_rng(0).permutation(columns)[: -(-columns // 2)]
    drawn = sorted(int(c) + block * columns for block in range(count) for c in some)
    return count if _lost_with(graph, full, drawn) == set(drawn) else None


def _lost_with(graph: Any, full: Any, channels: Sequence[int]) -> set[int]:
    """The channels that the group's first layer loses when it is to lose these."""
    root, handler = full[0].dep.target.module, full[0].dep.handler
    return {
        int(index)
        for item in group_of(graph, root, handler, channels)
        if item.dep.target.module is root and graph.is_out_channel_pruning_fn(item.dep.handler)
        for index in item.idxs
    }


def _parts(module: nn.Module) -> int:
    """How many groups of channels the layer keeps apart; of a depthwise convolution they go with them."""
    if isinstance(module, nn.GroupNorm):
        return module.num_groups
    if isinstance(module, CONVOLUTIONS) and module.groups != module.out_channels:
        return int(module.groups)
    return 1
