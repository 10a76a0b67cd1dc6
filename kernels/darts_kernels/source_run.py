"""What the edges of a state of a cell with dense convolutions are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["SourceRun"]


@dataclass(frozen=True)
class SourceRun:
    """What a source's edges are, and where their running statistics lie.

    Attributes:
        running_mean: [rows] running means, updated in place.
        running_var: [rows] running variances.
        dilations: of each convolution.
        stride: of all edges.
        max_pools: kernel sizes.
        avg_pools: kernel sizes.
        pool_norm: whether the pools are normalised.
        skip: whether the last slot is the state itself.
        tf32: whether convolutions may multiply in TF32.
        momentum: share of the new statistics; 0 leaves the running ones alone.
        train: batch statistics (True) or running ones.
        sparse: operations of weight zero are skipped, see `drawn_source`; else all run.
    """

    running_mean: Tensor
    running_var: Tensor
    dilations: tuple[int, ...]
    stride: int = 1
    max_pools: tuple[int, ...] = ()
    avg_pools: tuple[int, ...] = ()
    pool_norm: bool = False
    skip: bool = False
    tf32: bool = False
    momentum: float = 0.1
    train: bool = True
    sparse: bool = False

    @property
    def slots(self) -> int:
        """Columns of the mixing weights."""
        return len(self.dilations) + len(self.max_pools) + len(self.avg_pools) + self.skip
