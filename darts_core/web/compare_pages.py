"""Versions of any jobs beside each other."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from darts_core.errors import JobError
from darts_core.report.compare_pictures import compare_pictures
from darts_core.report.comparison import different_settings, results_table
from darts_core.report.html import Markup
from darts_core.report.tables import short
from darts_core.store.version import Version
from darts_core.web.shell import show, site_of

__all__ = ["asked_versions", "compare_page"]

_MOST, _MOST_KNOWN = 12, 1000


def asked_versions(request: Request) -> list[Version]:
    """The versions that an address names.

    Raises:
        JobError: one of them is not there, or there are more than twelve.
    """
    labels = [text for text in request.query_params.getlist("version") if text]
    labels = list(dict.fromkeys(labels))
    if len(labels) > _MOST:
        raise JobError(f"At most {_MOST} versions are compared at once.")
    return [site_of(request).store.version(label) for label in labels]


def compare_page(request: Request) -> Response:
    """`/compare?version=a/V001&version=b/V002`."""
    store, versions = site_of(request).store, asked_versions(request)
    metric = request.query_params.get("metric", "")[:100]
    values: dict[str, Any] = {
        "columns": [],
        "results": [],
        "settings": [],
        "pictures": Markup(),
        "problem": "",
    }
    if len(versions) < 2:
        values["problem"] = (
            "Choose two versions or more: mark them on a job's page, or name them here."
        )
    else:
        values["columns"] = [{"label": v.label, "link": f"/jobs/{v.label}"} for v in versions]
        for name, table in (
            ("results", results_table(versions, [metric] if metric else [])),
            ("settings", different_settings(versions)),
        ):
            values[name] = [
                {"name": key, "values": [short(v) for v in row]} for key, row in table.items()
            ]
        values["pictures"] = compare_pictures(versions)
    known = [v.label for _, _, found in store.items() for v, _ in found][:_MOST_KNOWN]
    return show(
        request,
        "compare",
        heading="Compare",
        chosen=[v.label for v in versions],
        known=known,
        metric=metric,
        **values,
    )
