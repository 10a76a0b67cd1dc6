"""What people look at: one HTML file a version, pictures, Pareto fronts, escaping.

A leaf: it reads run folders and imports neither torch nor, until a picture is asked for, matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from darts_core.report.escape import html_text, markup_text, plain_text
    from darts_core.report.page import write_report
    from darts_core.report.pareto import accuracy_latency_front, pareto_front, pareto_mask
    from darts_core.report.plots import lines_png, scatter_png
    from darts_core.report.png import alpha_image, cell_image, cell_png, front_png
    from darts_core.report.rows import Latency, ModelRow
    from darts_core.report.seeds import write_seeds_report

_HOMES = {
    "html_text": "escape",
    "markup_text": "escape",
    "plain_text": "escape",
    "write_report": "page",
    "accuracy_latency_front": "pareto",
    "pareto_front": "pareto",
    "pareto_mask": "pareto",
    "alpha_image": "png",
    "cell_image": "png",
    "cell_png": "png",
    "front_png": "png",
    "lines_png": "plots",
    "scatter_png": "plots",
    "Latency": "rows",
    "ModelRow": "rows",
    "write_seeds_report": "seeds",
}

__all__ = [
    "Latency",
    "ModelRow",
    "accuracy_latency_front",
    "alpha_image",
    "cell_image",
    "cell_png",
    "front_png",
    "html_text",
    "lines_png",
    "markup_text",
    "pareto_front",
    "pareto_mask",
    "plain_text",
    "scatter_png",
    "write_report",
    "write_seeds_report",
]


def __getattr__(name: str) -> Any:
    """The public object `name`, imported from its file on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
