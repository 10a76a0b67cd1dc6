"""Whether what a training moves is finite."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["all_finite"]

_STATISTICS = ("running_mean", "running_var")


def all_finite(network: nn.Module, more: Iterable[Tensor] = ()) -> bool:
    """Whether params, running statistics and `more` (alphas) hold neither NaN nor infinity; one wait for all.

    Other buffers are the user's: a causal mask is made of infinities.
    """
    statistics = (b for name, b in network.named_buffers() if name.endswith(_STATISTICS))
    values = [v for v in (*network.parameters(), *statistics, *more) if v.is_floating_point()]
    return bool(torch.stack([torch.isfinite(v).all() for v in values]).all())
