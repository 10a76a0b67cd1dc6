"""One self-contained page of a version: all text escaped, pictures inside, nothing loaded, no script."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darts_core.report.job_details import resources_text
from darts_core.report.job_pictures import (
    draw_best_so_far,
    draw_front,
    draw_importance,
    draw_iterations,
)
from darts_core.report.tables import cost_text, neutral, short
from darts_core.runlog import read_jsonl, write_text
from darts_core.study.results import Goals, Row, search_rows

__all__ = ["draw_all", "write_page"]

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
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
) -> list[Path]:
    """Draw best-so-far, front, the trials' curves and the settings' importance; returns the files made.

    Each picture of results states the gain against the user's configuration.
    """
    if not goals:
        return []
    title, gains = (found or {}).get("verdict", ""), (found or {}).get("gain", ())
    metric = goals[0]["metric"]
    series: dict[str, list[tuple[int, float]]] = {}
    for row in search_rows(rows)[:20]:
        points = []
        for report in read_jsonl(Path(row["folder"]) / "reports.jsonl"):
            value = (report.get("metrics") or {}).get(metric) if isinstance(report, dict) else None
            if isinstance(value, (int, float)) and isinstance(report.get("iteration"), int):
                points.append((report["iteration"], float(value)))
        if points:
            series[row["trial_id"]] = points
    made = [
        draw_best_so_far(rows, goals, folder / "best_so_far.png", title=title, gains=gains),
        draw_front(rows, goals, folder / "front.png", title=title, gains=gains),
        draw_iterations(series, metric, folder / "trials.png"),
        draw_importance(shares, metric, folder / "importance.png"),
    ]
    return [path for path in made if path is not None]


def _safe(value: Any) -> str:
    return html.escape(short(value), quote=True)


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    head = "".join(f"<th>{html.escape(neutral(column))}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{_safe(row.get(c))}</td>" for c in columns) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


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
    title = html.escape(f"{details['job']}/{details['version']}")
    found = details["summary"] or {}
    parts = [f"<h1>{title}: {_safe(details['state'])}</h1>"]
    if found:
        parts.append(f"<p><b>{html.escape(neutral(found['verdict'], 1000))}</b></p>")
        parts.append(f"<p>Cost: {html.escape(cost_text(found['cost']))}.</p>")
    for picture in pictures:
        data = base64.b64encode(picture.read_bytes()).decode()
        parts.append(
            f'<p><img alt="{html.escape(picture.stem)}" src="data:image/png;base64,{data}"></p>'
        )
    if details["resources"]:
        parts.append(f"<p>Resources: {html.escape(resources_text(details))}.</p>")
    parts.append("<h2>Results</h2><p>* = your configuration</p>" + _table(columns, rows))
    if shares:
        table = [{"setting": name, "share": share} for name, share in shares.items()]
        parts.append("<h2>Importance</h2>" + _table(("setting", "share"), table))
    parts.append("<h2>Parameters</h2>" + _table(("field", "value"), _fields(details)))
    settings = [{"field": k, "value": v} for k, v in (details["configuration"] or {}).items()]
    parts.append("<h2>Configuration</h2>" + _table(("field", "value"), settings))
    parts.append("<h2>Log</h2><pre>" + html.escape("\n".join(details["log_tail"])) + "</pre>")
    write_text(
        path,
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><style>{_STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>\n",
    )
