"""Channels that a layer keeps apart in equal blocks: grouped convolutions, norms over groups of channels."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

__all__ = ["CONVOLUTIONS", "blocks_of"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def blocks_of(graph: Any, full: Any) -> int | None:
    """Equal parts of a group's channels that must lose the same ones; None where no width would fit.

    The groups of a grouped convolution stay, and so do those of a norm over groups of channels; each keeps
    as many channels as the others, and of a convolution's input the same ones.
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
    if channels % count or (count > 1 and channels // count < 2):
        return None
    return count


def _parts(module: nn.Module) -> int:
    """How many groups of channels the layer keeps apart; of a depthwise convolution they go with them."""
    if isinstance(module, nn.GroupNorm):
        return module.num_groups
    if isinstance(module, CONVOLUTIONS) and module.groups != module.out_channels:
        return int(module.groups)
    return 1
