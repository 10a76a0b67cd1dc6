"""Pictures of a search in TensorBoard: the mixing weights over time and the cell they point to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from darts_core.architecture import Architecture
from darts_core.runlog import RunFolder

__all__ = ["AlphaPictures"]

_PICTURES = 20


class AlphaPictures:
    """A callback for `search`: heat maps of the mixing weights, at most about 20 over the search."""

    def __init__(self, run: RunFolder, ops: Sequence[str], epochs: int) -> None:
        self.run, self.ops, self.epochs = run, list(ops), epochs
        self.every = max(1, epochs // _PICTURES)

    def __call__(self, epoch: int, row: Mapping[str, Any]) -> None:
        """Add the picture of one epoch's row, where it is due."""
        writer = self.run.tensorboard
        weights = row.get("alphas")
        due = epoch % self.every == 0 or epoch == self.epochs - 1
        wanted = writer is not None or self.run.loggers.wants_pictures
        if not wanted or not weights or not due:
            return
        from darts_core.report import alpha_image

        picture = alpha_image(weights, self.ops, title=f"epoch {epoch + 1}")
        if writer is not None:
            writer.add_image("mixing weights", picture, epoch, dataformats="HWC")
        self.run.loggers.picture("mixing weights", picture, epoch)

    def result(self, architecture: Architecture) -> None:
        """Add the drawing of the cells found."""
        writer = self.run.tensorboard
        if writer is None and not self.run.loggers.wants_pictures:
            return
        from darts_core.report import cell_image

        picture = cell_image(architecture)
        self.run.loggers.picture("cells", picture, self.epochs)
        if writer is not None:
            writer.add_image("cells", picture, self.epochs, dataformats="HWC")
            writer.add_text("architecture", architecture.text(), self.epochs)
