"""A pool of samples and the splits that pick from it.

Shapes: N samples of a split, ... the shape of one input or target.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from darts_core.data.encoded import EncodedImages

__all__ = ["Pool", "Split"]


@dataclass(frozen=True)
class Pool:
    """All samples of a data set in one place: on the device, in host memory or in files.

    Shapes: inputs_N [N, C, H, W], [N, C, T] or [N, T], uint8 for images; targets_N [N, ...], as the task
    takes them.
    """

    inputs_N: Tensor | EncodedImages
    targets_N: Tensor

    @property
    def of_bytes(self) -> bool:
        """Whether the inputs are bytes, 0 to 255."""
        return isinstance(self.inputs_N, EncodedImages) or self.inputs_N.dtype == torch.uint8

    def gather(self, index_B: Tensor) -> tuple[Tensor, Tensor]:
        """(inputs, targets) of these positions, copies where the pool lies; files are decoded."""
        if isinstance(self.inputs_N, EncodedImages):
            inputs = torch.from_numpy(self.inputs_N[index_B.numpy()])
        else:
            inputs = self.inputs_N.index_select(0, index_B)
        return inputs, self.targets_N.index_select(0, index_B)


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
        return self.pool.gather(self.index_N)[0]

    @property
    def targets(self) -> Tensor:
        """A copy [N, ...] of the split's targets, where the pool lies."""
        return self.pool.targets_N[self.index_N]
