"""What people look at: one HTML file a version, pictures, Pareto fronts, escaping.

A leaf: it reads run folders and imports neither torch nor, until a picture is asked for, matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from darts_core.report.escape import html_text, plain_text
    from darts_core.report.models_front import accuracy_latency_front
    from darts_core.report.page import write_report
    from darts_core.report.png_architecture import alpha_image, cell_image, cell_png
    from darts_core.report.png_front import front_png, scatter_png
    from darts_core.report.png_lines import lines_png
    from darts_core.report.rows import Latency, ModelRow
    from darts_core.report.seeds import write_seeds_report
    from darts_core.study.pareto import pareto_front, pareto_mask

_HOMES = {
    "html_text": "report.escape",
    "plain_text": "report.escape",
    "write_report": "report.page",
    "accuracy_latency_front": "report.models_front",
    "pareto_front": "study.pareto",
    "pareto_mask": "study.pareto",
    "alpha_image": "report.png_architecture",
    "cell_image": "report.png_architecture",
    "cell_png": "report.png_architecture",
    "front_png": "report.png_front",
    "lines_png": "report.png_lines",
    "scatter_png": "report.png_front",
    "Latency": "report.rows",
    "ModelRow": "report.rows",
    "write_seeds_report": "report.seeds",
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
    return getattr(importlib.import_module(f"darts_core.{_HOMES[name]}"), name)
