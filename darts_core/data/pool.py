"""A pool of samples and the splits that pick from it.

Shapes: N samples of a split, ... the shape of one input or target.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Pool", "Split"]


@dataclass(frozen=True)
class Pool:
    """All samples of a data set in one place: on the device, or in host memory when they do not fit.

    Shapes: inputs_N [N, C, H, W], [N, C, T] or [N, T], uint8 for images; targets_N [N, ...], as the task
    takes them.
    """

    inputs_N: Tensor
    targets_N: Tensor


@dataclass(frozen=True)
class Split:
    """Some samples of a pool, in a fixed order.

    Shapes: index_N int64, on the pool's device.
    """

    pool: Pool
    index_N: Tensor

    def __len__(self) -> int:
        return int(self.index_N.numel())

    @property
    def inputs(self) -> Tensor:
        """A copy [N, ...] of the split's inputs as they are stored, where the pool lies."""
        return self.pool.inputs_N[self.index_N]

    @property
    def targets(self) -> Tensor:
        """A copy [N, ...] of the split's targets, where the pool lies."""
        return self.pool.targets_N[self.index_N]
