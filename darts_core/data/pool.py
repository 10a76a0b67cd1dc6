"""A pool of images and the splits that pick from it.

Shapes: C channels, H W height and width, N images of a split.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Pool", "Split"]


@dataclass(frozen=True)
class Pool:
    """All images of a data set in one place: on the device, or in host memory when they do not fit.

    Shapes: images_NCHW uint8, labels_N int64.
    """

    images_NCHW: Tensor
    labels_N: Tensor


@dataclass(frozen=True)
class Split:
    """Some images of a pool, in a fixed order.

    Shapes: index_N int64, on the pool's device.
    """

    pool: Pool
    index_N: Tensor

    def __len__(self) -> int:
        return int(self.index_N.numel())

    @property
    def images(self) -> Tensor:
        """A uint8 copy [N, C, H, W] of the split's images, where the pool lies."""
        return self.pool.images_NCHW[self.index_N]

    @property
    def labels(self) -> Tensor:
        """A copy [N] of the split's labels, where the pool lies."""
        return self.pool.labels_N[self.index_N]
