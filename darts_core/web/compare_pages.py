"""Versions of any jobs beside each other."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from darts_core.errors import JobError
from darts_core.report.columns import Column, columns_named
from darts_core.report.compare_pictures import compare_pictures
from darts_core.report.comparison import different_settings, results_table
from darts_core.report.html import Markup
from darts_core.report.tables import short
from darts_core.web.shell import show, site_of

__all__ = ["asked_columns", "compare_page"]

_MOST, _MOST_KNOWN = 12, 1000


def asked_columns(request: Request) -> list[Column]:
    """The versions that an address names, multiruns by their elements.

    Raises:
        JobError: one of them is not there, or there are more than twelve.
    """
    store, labels = site_of(request).store, _labels(request)
    if len(labels) > _MOST:
        raise JobError(f"At most {_MOST} versions are compared at once.")
    return [column for label in labels for column in columns_named(store, label)]


def _labels(request: Request) -> list[str]:
    return [text for text in dict.fromkeys(request.query_params.getlist("version")) if text]


def compare_page(request: Request) -> Response:
    """`/compare?version=a/V001&version=b/V002`."""
    store, columns = site_of(request).store, asked_columns(request)
    metric = request.query_params.get("metric", "")[:100]
    values: dict[str, Any] = {
        "columns": [],
        "results": [],
        "settings": [],
        "pictures": Markup(),
        "problem": "",
    }
    if len(columns) < 2:
        values["problem"] = (
            "Choose two versions or more: mark them on a job's page, or name them here."
        )
    else:
        values["columns"] = [
            {"label": c.label, "link": f"/jobs/{c.version.label}"} for c in columns
        ]
        try:
            results = results_table(columns, [metric] if metric else [])
        except JobError as error:
            results, values["problem"] = results_table(columns, []), str(error)
        for name, table in (
            ("results", results),
            ("settings", different_settings(columns)),
        ):
            values[name] = [
                {"name": key, "values": [short(v) for v in row]} for key, row in table.items()
            ]
        values["pictures"] = compare_pictures(columns)
    known = [v.label for _, _, found in store.items() for v, _ in found][:_MOST_KNOWN]
    return show(
        request,
        "compare",
        heading="Compare",
        chosen=_labels(request),
        known=known,
        metric=metric,
        **values,
    )
