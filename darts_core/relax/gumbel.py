"""Gumbel-softmax with straight-through one-hot samples (GDAS)."""

from __future__ import annotations

import torch
from torch import Tensor

from darts_core.relax._noise import gumbel_like, interpolate, one_hot_of_largest
from darts_core.relax.base import Relaxation
from darts_core.settings import Bounds, bounded

__all__ = ["GumbelStraightThrough"]


class GumbelStraightThrough(Relaxation):
    """One operation an edge, drawn with probability softmax(alpha); gradient of the soft sample.

    forward:  onehot(argmax_k(alpha_k + gumbel_k));
    backward: that of softmax((alpha + gumbel) / temperature) = s.

    With `sparse` only the drawn operation d of an edge is evaluated, and alpha moves through its weight
    alone, as in the authors' code for DARTS cells: dL/dalpha_k = <g, o_d(x)> ds_d/dalpha_k. Operations
    that are not drawn have gradient zero and keep their running statistics. Without it every
    candidate is evaluated and enters the gradient: dL/dalpha_k = sum_j <g, o_j(x)> ds_j/dalpha_k, Eq. 5
    as written. Widths and depths of a macro space are always taken in the second form.

    Source: GDAS (arXiv:1910.04465), Eq. 3 to 5; temperature 10 falling linearly to 0.1.

    Args:
        temperature_start: temperature at the beginning of the search, positive.
        temperature_end: temperature at its end, positive.
        sparse: evaluate the drawn operation only.

    Raises:
        ConfigError: a temperature is not positive.
    """

    samples = True
    draws_one = True

    @bounded(
        temperature_start=Bounds(low=0, low_open=True, high=1e6),
        temperature_end=Bounds(low=0, low_open=True, high=1e6),
    )
    def __init__(
        self, temperature_start: float = 10.0, temperature_end: float = 0.1, *, sparse: bool = True
    ) -> None:
        self.temperature_start = temperature_start
        self.temperature_end = temperature_end
        self.sparse = sparse

    def weights(
        self, alpha_EK: Tensor, progress: Tensor | float, generator: torch.Generator | None
    ) -> Tensor:
        """A one-hot sample for each edge."""
        temperature = interpolate(self.temperature_start, self.temperature_end, progress)
        noisy = alpha_EK + gumbel_like(alpha_EK, generator)
        soft = torch.softmax(noisy / temperature, dim=-1)
        return one_hot_of_largest(noisy.detach()) + (soft - soft.detach())
