"""A metric at each iteration of a search's trials, read from their reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from darts_core.autosearch.reports import iterations_of
from darts_core.study.metric_names import names_of
from darts_core.study.results import search_rows

__all__ = ["trial_curves"]


def trial_curves(rows: Sequence[dict[str, Any]], metric: str) -> dict[str, list[tuple[int, float]]]:
    """A metric at each iteration of every trial of a search."""
    curves = {}
    for row in search_rows(rows):
        points = []
        for iteration, metrics in iterations_of(Path(row["folder"])):
            values = [metrics.get(name) for name in names_of(metric)]
            points += [(iteration, float(v)) for v in values if v is not None][:1]
        if points:
            curves[row["trial_id"]] = points
    return curves
