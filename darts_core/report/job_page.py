"""One self-contained page of a version: all text escaped, pictures inside, nothing loaded, no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darts_core.report.html import Markup, render
from darts_core.report.job_details import resources_text
from darts_core.report.job_pictures import (
    draw_best_so_far,
    draw_front,
    draw_importance,
    draw_iterations,
)
from darts_core.report.tables import cost_text, short
from darts_core.runlog import write_text
from darts_core.study.results import Goals, Row

__all__ = ["draw_all", "write_page"]

_STYLE = (
    "body{font:14px sans-serif;margin:2em;max-width:80em}table{border-collapse:collapse}"
    "td,th{border:1px solid #ccc;padding:.2em .5em;text-align:left}img{max-width:100%}"
    "pre{background:#f4f4f4;padding:1em;overflow:auto}"
)


def draw_all(
    rows: Sequence[Row],
    goals: Goals,
    shares: Mapping[str, float],
    found: Mapping[str, Any] | None,
    folder: Path,
    curves: Mapping[str, Sequence[tuple[int, float]]],
) -> list[Path]:
    """Draw best-so-far, front, the trials' curves and the settings' importance; returns the files made.

    Each picture of results states the gain against the user's configuration. `curves` holds the first
    objective at each iteration by trial.
    """
    if not goals:
        return []
    title, gains = (found or {}).get("verdict", ""), (found or {}).get("gain", ())
    metric = goals[0]["metric"]
    made = [
        draw_best_so_far(rows, goals, folder / "best_so_far.png", title=title, gains=gains),
        draw_front(rows, goals, folder / "front.png", title=title, gains=gains),
        draw_iterations(curves, metric, folder / "trials.png"),
        draw_importance(shares, metric, folder / "importance.png"),
    ]
    return [path for path in made if path is not None]


def _fields(details: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the version was made from."""
    values = {"parent": details["parent"], "code_hash": details["code_hash"]}
    values.update({k: v for k, v in details["parameters"].items() if v not in (None, [], {})})
    return [{"field": k, "value": v} for k, v in values.items()]


def write_page(
    path: Path,
    details: Mapping[str, Any],
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    shares: Mapping[str, float],
    pictures: Sequence[Path],
) -> None:
    """Write the page of a version."""
    found = details["summary"] or {}
    write_text(
        path,
        render(
            "job",
            details=details,
            found=found,
            cost=cost_text(found["cost"]) if found else "",
            pictures=[
                (picture.stem, Markup(base64.b64encode(picture.read_bytes()).decode()))
                for picture in pictures
            ],
            resources=resources_text(details) if details["resources"] else "",
            columns=columns,
            rows=rows,
            shares=[{"setting": name, "share": share} for name, share in shares.items()],
            fields=_fields(details),
            configuration=[
                {"field": k, "value": v} for k, v in (details["configuration"] or {}).items()
            ],
            log="\n".join(details["log_tail"]),
            short=short,
            style=Markup(_STYLE),
        )
        + "\n",
    )
