"""What every PNG picture shares: figures without global state, inert text, quiet axes, whole files.

matplotlib is imported when one is drawn.
"""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darts_core.report.escape import plain_text
from darts_core.report.palette import hex_color
from darts_core.runlog import write_bytes

__all__ = ["DPI", "new_figure", "only_data", "pixels", "plain_label", "plain_title", "save_png"]

DPI = 150


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure of that size in inches, free of any global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def plain_label(value: Any, limit: int = 60) -> str:
    """Text that matplotlib prints as it is: no control characters, no mathematics between dollars."""
    return plain_text(value, limit=limit).replace("$", r"\$")


def save_png(figure: Any, path: str | Path) -> Path:
    """Write the figure to `path` as a whole file; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())
    return Path(path)


def pixels(figure: Any) -> NDArray[np.uint8]:
    """The figure as an image. Shapes: [height, width, 3]."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def only_data(axes: Any) -> None:
    """Only what carries data: no frame on top and right, a pale grid behind."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=hex_color("line"), linewidth=0.7)
    axes.set_axisbelow(True)


def plain_title(value: Any) -> str:
    """A title in lines of at most 90 characters, as inert as `plain_label`."""
    return "\n".join(textwrap.wrap(plain_label(value, 300), 90))
