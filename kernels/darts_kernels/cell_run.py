"""What the launches of a fused cell share: what the cell is, its sizes in one call, what a backward reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import triton
from torch import Tensor

from darts_kernels._common import Precision, launch_options, next_power_of_2
from darts_kernels.layout import CellLayout, CellTables, cell_tables
from darts_kernels.tiles import Tiles, can_overlap, tiles_for

__all__ = ["CellCall", "CellRun", "CellShape", "Saved", "Wave"]

Wave = tuple[int, int, int, int]
"""First source, end source, first edge, end edge."""


@dataclass
class CellRun:
    """What a launch sequence needs besides tensors of the batch.

    Attributes:
        running_mean: [rows] running means, in the order of `layout.rows`.
        running_var: [rows] running variances.
        momentum: share of the new statistics; 0 leaves the running ones alone.
        train: batch statistics (True) or running ones.
        tiles: fixed tiles, or None for the device's tuned ones.
        sparse: branches of weight zero are skipped, see `drawn`.
        keep: whether the backward will want gradients of the parameters: depthwise outputs are kept for it.
    """

    layout: CellLayout
    precision: Precision
    running_mean: Tensor
    running_var: Tensor
    momentum: float = 0.1
    train: bool = True
    tiles: Tiles | None = None
    sparse: bool = False
    keep: bool = True


@dataclass
class Saved:
    """Tensors of one forward pass that its backward reads.

    With partial channels `state` holds the mixed channels only and `full` the whole states; else both are
    the same tensor. `depthwise1` and `depthwise2` hold the depthwise outputs of all edges where the run keeps
    them, else those of the last wave.
    """

    state: Tensor
    first: Tensor
    second: Tensor
    pools: Tensor
    argmax: Tensor
    reduced: Tensor
    moments: Tensor
    full: Tensor
    passing: Tensor
    passing_argmax: Tensor
    drawn: Tensor
    live: Tensor
    depthwise1: Tensor
    depthwise2: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """All fields, in order."""
        return (
            self.state, self.first, self.second, self.pools, self.argmax, self.reduced, self.moments,
            self.full, self.passing, self.passing_argmax, self.drawn, self.live,
            self.depthwise1, self.depthwise2,
        )  # fmt: skip


class CellShape:
    """Sizes of one call, and its tiles and tables."""

    def __init__(self, run: CellRun, batch: int, height: int, width: int, device: Any) -> None:
        layout = run.layout
        self.batch, self.HI, self.WI = batch, height, width
        self.H, self.W = layout.output_size(height, width)
        self.HW = self.H * self.W
        self.C = layout.channels
        self.CP = max(16, next_power_of_2(self.C))
        # of whole states, see `partial`
        self.CF = layout.width
        self.CFP = max(16, next_power_of_2(self.CF))
        self.pixels = batch * self.HW
        self.input_pixels = batch * height * width
        self.tiles = run.tiles or tiles_for(
            device, layout, self.H, self.W, run.precision.name, batch
        )
        self.overlap = bool(self.tiles.overlap) and can_overlap(device)
        self.tables: CellTables = cell_tables(layout, batch, height, width, device)
        whole = replace(layout, channels=self.CF, groups=1) if layout.groups > 1 else layout
        self.full_tables = cell_tables(whole, batch, height, width, device)
        self.aligned = self.tables.aligned and self.full_tables.aligned
        self.full_input_size = batch * self.CF * height * width
        self.parts = triton.cdiv(self.pixels, self.tiles.chunk)
        self.input_size = batch * self.C * height * width
        self.node_size = batch * self.C * self.HW

    def source_sizes(self, run: CellRun, source: int) -> tuple[int, int, int]:
        """(stride, height, width) of the states a wave leaves from."""
        if source < run.layout.inputs:
            return run.layout.stride, self.HI, self.WI
        return 1, self.H, self.W

    def options(self, warps: int, registers: int = 0, stages: int | None = None) -> dict[str, int]:
        """`launch_options` of the cell's launches, which may overlap."""
        return launch_options(warps, registers, stages, overlap=self.overlap)

    def lanes(self, rows: int) -> int:
        """Lanes of all strips of `rows` rows."""
        return self.batch * triton.cdiv(self.H, rows) * self.W


@dataclass
class CellCall:
    """What all launches of one pass share.

    Attributes:
        run: the cell.
        s: sizes of the call.
        mix_EK: mixing weights of the edges in the layout's order, fp32.
        flat: the packed parameters, fp32.
        saved: what the backward reads; a forward fills it.
    """

    run: CellRun
    s: CellShape
    mix_EK: Tensor
    flat: Tensor
    saved: Saved

    @property
    def layout(self) -> CellLayout:
        """What the cell is."""
        return self.run.layout

    def params(self, section: str) -> Tensor:
        """A section of the packed parameters."""
        return self.layout.sections[section].of(self.flat)

    def filters(self, stage: str) -> tuple[int, str]:
        """(number of branches, "1" or "2") of the stage "first" or "second"."""
        layout = self.layout
        return (len(layout.first), "1") if stage == "first" else (len(layout.second), "2")

    def kept(self, stage: str, wave: Wave) -> Tensor:
        """Where the depthwise outputs of a wave's edges lie."""
        outputs = self.saved.depthwise1 if stage == "first" else self.saved.depthwise2
        return outputs[wave[2] :] if self.run.keep else outputs
