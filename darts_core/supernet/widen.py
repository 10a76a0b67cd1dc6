"""Values of a supernet carried over to one whose mixed operations see more channels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["widened"]


def widened(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in the shapes of `new` with the values of `old`.

    In every dimension that grew, the old values stand first and are repeated in order. Sums over more
    input channels are not scaled down: a batch norm follows every convolution of a mixed operation.
    What `old` does not name, or holds in more dimensions or larger ones, keeps the value of `new`.

    Source: the widening of DrNAS (arXiv:2006.10355), section 3.3, after Net2WiderNet
    (arXiv:1511.05641), section 2.2, with a fixed in the place of a random choice of what is repeated.

    Args:
        old: state dict of the narrower network.
        new: state dict of the wider one, same module names.
    """
    result = {}
    for name, value in new.items():
        source = old.get(name)
        fits = source is not None and source.dim() == value.dim()
        if (
            source is None
            or not fits
            or any(a > b for a, b in zip(source.shape, value.shape, strict=True))
        ):
            result[name] = value
            continue
        for dim, size in enumerate(value.shape):
            if source.shape[dim] < size:
                index = torch.arange(size, device=source.device) % source.shape[dim]
                source = source.index_select(dim, index)
        result[name] = source.detach().clone()
    return result
