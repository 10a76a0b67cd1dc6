"""How the step's benchmark checks a fast path: gradients for the alphas of one draw, against fp64."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from darts_core.supernet import Supernet

__all__ = ["alpha_gradients", "distance"]


def alpha_gradients(
    net: Supernet,
    owner: Supernet,
    weights: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    *,
    autocast: bool = False,
) -> list[Tensor]:
    """Gradients for the alphas of `owner`, who drew `weights`, through a pass of `net` under them."""
    wide = x.dtype if x.dtype == torch.float64 else torch.float32
    leaves = {k: w.detach().to(wide, copy=True).requires_grad_() for k, w in weights.items()}
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=autocast):
        logits = net(x, leaves)
    loss = F.cross_entropy(logits if logits.dtype == torch.float64 else logits.float(), y)
    upstream = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    drawn = [w for w, g in zip(weights.values(), upstream, strict=True) if g is not None]
    found = torch.autograd.grad(
        drawn,
        owner.alphas(),
        [g.to(w.dtype) for w, g in zip(weights.values(), upstream, strict=True) if g is not None],
        allow_unused=True,
        retain_graph=True,
    )
    return [gradient.double() for gradient in found if gradient is not None]


def distance(found: list[Tensor], exact: list[Tensor]) -> float:
    """Relative 2-norm of found - exact over all tensors."""
    difference = sum(float((a - b).square().sum()) for a, b in zip(found, exact, strict=True))
    return (difference / sum(float(b.square().sum()) for b in exact)) ** 0.5
