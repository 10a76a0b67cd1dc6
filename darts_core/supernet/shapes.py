"""At which resolution each searched cell of a supernet works."""

from __future__ import annotations

import torch
from torch import nn

from darts_core.supernet.cell import SearchCell

__all__ = ["cell_sizes"]


def cell_sizes(supernet: nn.Module, size: int) -> list[tuple[SearchCell, int, int]]:
    """(cell, height, width of its last input) in order, for images [3, size, size].

    Found by one forward pass in evaluation mode; the network's mode is put back.
    """
    found: list[tuple[SearchCell, int, int]] = []
    hooks = [
        cell.register_forward_pre_hook(
            lambda module, args: found.append((module, *args[0][-1].shape[-2:]))
        )
        for cell in supernet.modules()
        if isinstance(cell, SearchCell)
    ]
    like = next(supernet.parameters())
    training = supernet.training
    try:
        with torch.no_grad():
            image = torch.zeros(1, 3, size, size, device=like.device, dtype=like.dtype)
            supernet.eval()(image)
    finally:
        supernet.train(training)
        for hook in hooks:
            hook.remove()
    return found
