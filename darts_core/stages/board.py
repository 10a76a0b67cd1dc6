"""Pictures of the alphas in TensorBoard, one heat map a cell kind and epoch.

Shapes: weight_EK edges by operations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from darts_core.runlog import RunFolder

__all__ = ["AlphaBoard", "heat_map"]

_PIXELS = 24


def heat_map(weight_EK: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Weights as a picture [3, E*24, K*24] in 0..1: white is 0, dark blue the largest weight."""
    top = float(weight_EK.max()) or 1.0
    share_EK = np.clip(weight_EK / top, 0.0, 1.0).astype(np.float32)
    grey = np.kron(share_EK, np.ones((_PIXELS, _PIXELS), dtype=np.float32))
    dark = np.array([0.05, 0.2, 0.45], dtype=np.float32)
    picture: npt.NDArray[np.float32] = 1.0 - grey[None] * (1.0 - dark[:, None, None])
    return picture


class AlphaBoard:
    """A callback for `search`: adds heat maps, and the architecture as text, after each epoch."""

    def __init__(self, run: RunFolder, ops: Sequence[str]) -> None:
        self.run, self.ops = run, list(ops)

    def __call__(self, epoch: int, row: Mapping[str, Any]) -> None:
        """Write the pictures of one epoch's row."""
        writer = self.run.tensorboard
        if writer is None:
            return
        for kind, weights in (row.get("alphas") or {}).items():
            writer.add_image(f"weights/{kind}", heat_map(np.asarray(weights)), epoch)
        legend = "rows: edges; columns: " + ", ".join(self.ops)
        writer.add_text("architecture", f"{row.get('architecture')}\n\n{legend}", epoch)
