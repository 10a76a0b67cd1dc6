"""Numbers that a layer keeps for each of its output channels beside weight and bias, cut with them.

A subclass of a convolution or linear layer may hold a gain or a scale of its own; torch-pruning cuts what the
parent has.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from darts_core.prune.blocks import CONVOLUTIONS

__all__ = ["cut_beside", "outputs_beside", "tensors_beside"]

Beside = tuple[nn.Module, str, list[int]]


def outputs_beside(graph: Any, group: Any) -> list[Beside]:
    """(layer, tensor's name, channels that stay) of all that cutting the group would leave as it is."""
    lost: dict[nn.Module, set[int]] = {}
    for item in group:
        module = item.dep.target.module
        whole = isinstance(module, (*CONVOLUTIONS, nn.Linear))
        if whole and graph.is_out_channel_pruning_fn(item.dep.handler):
            lost.setdefault(module, set()).update(int(index) for index in item.idxs)
    found: list[Beside] = []
    for module, gone in lost.items():
        count = graph.get_out_channels(module)
        kept = [channel for channel in range(count) if channel not in gone]
        found += [(module, name, kept) for name in tensors_beside(module, count)]
    return found


def tensors_beside(module: nn.Module, count: int) -> dict[str, torch.Tensor]:
    """By name, what a layer of `count` output channels keeps for each of them beside weight and bias."""
    own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return {
        name: tensor
        for name, tensor in own
        if name not in ("weight", "bias") and tensor.dim() and tensor.shape[0] == count
    }


def cut_beside(module: nn.Module, name: str, kept: list[int]) -> None:
    """Leave of the layer's tensor what belongs to the channels that stay."""
    old = getattr(module, name)
    new = old.detach().index_select(0, torch.tensor(kept, device=old.device))
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
    setattr(module, name, new)
