"""Whose statistics a supernet's batch norms use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.supernet.cell import SearchCell
from darts_core.supernet.stem import FusedStem

__all__ = ["frozen_statistics", "under_batch_statistics"]


class frozen_statistics:
    """A context in which training-mode norms use the batch's statistics and leave the running ones alone."""

    def __init__(self, module: nn.Module) -> None:
        tracking = [
            norm
            for norm in module.modules()
            if isinstance(norm, nn.modules.batchnorm._NormBase) and norm.track_running_stats
        ]
        batch = nn.modules.batchnorm._BatchNorm
        self._norms = [norm for norm in tracking if isinstance(norm, batch)]
        # those of single samples move what they have, whether it is tracked or not
        self._others = [norm for norm in tracking if not isinstance(norm, batch)]
        self._momenta: list[float | None] = []

    def __enter__(self) -> None:
        for norm in self._norms:
            norm.track_running_stats = False
        self._momenta = [norm.momentum for norm in self._others]
        for other in self._others:
            other.momentum = 0.0

    def __exit__(self, *_: object) -> None:
        for norm in self._norms:
            norm.track_running_stats = True
        for other, momentum in zip(self._others, self._momenta, strict=True):
            other.momentum = momentum


def under_batch_statistics(supernet: Any, weights: Any) -> Callable[[Tensor], Tensor]:
    """A forward function in which norms use the batch's statistics; nothing in the supernet moves.

    For single architectures out of shared params: running statistics are of all that were trained, so that
    under them one of them answers at random. What is no norm is in evaluation mode: with a user's dropout
    chance would decide between architectures. A batch smaller than the first one is filled up with samples
    of the first, whose outputs are left out.

    Args:
        supernet: `supernet(inputs, weights)` is the output.
        weights: mixing weights, as of `supernet.one_hot(architecture)`.
    """
    first: Tensor | None = None
    frozen = frozen_statistics(supernet)
    # packed cells and fused stems do the work of the norms inside them
    norms = (nn.modules.batchnorm._BatchNorm, SearchCell, FusedStem)
    others = [module for module in supernet.modules() if not isinstance(module, norms)]

    @torch.no_grad()
    def forward(inputs: Tensor) -> Tensor:
        nonlocal first
        first = inputs if first is None else first
        missing = len(first) - len(inputs)
        filled = torch.cat([inputs, first[-missing:]]) if missing > 0 else inputs
        was_training = supernet.training
        # one sample alone has no spread
        supernet.train(len(filled) > 1)
        for module in others:
            module.training = False
        devices = [inputs.device] if inputs.is_cuda else []
        try:
            # operations that draw must not shift what the search draws next
            with frozen, torch.random.fork_rng(devices=devices):
                outputs: Tensor = supernet(filled, weights)
        finally:
            supernet.train(was_training)
        return outputs[: len(inputs)]

    return forward
