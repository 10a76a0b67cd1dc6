"""The list of jobs, and the page of one job: its versions and what came from what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from darts_core.report.html import Markup
from darts_core.report.job_rows import SORTS, newest_rows, picked, version_rows
from darts_core.report.progress import progress
from darts_core.report.svg import drawing, path
from darts_core.report.tables import short, span
from darts_core.report.version_tree import version_lines
from darts_core.store.record import LIVE, STATES
from darts_core.store.version import Version
from darts_core.web.marks import store_mark
from darts_core.web.shell import clock, kept_page, last_page, page_links, site_of, whole

__all__ = ["job_page", "jobs_page", "shown_row", "sparkline_svg"]

_PAGE = 100


def sparkline_svg(values: Sequence[Any], label: str) -> Markup:
    """The course of some numbers as a small drawing."""
    known = [float(v) for v in values if isinstance(v, (int, float))]
    known = [v for v in known if v - v == 0]
    if len(known) < 2:
        return Markup()
    low, high = min(known), max(known)
    span_y = (high - low) or 1.0
    points = [
        (2 + 86 * i / (len(known) - 1), 20 - 16 * (v - low) / span_y) for i, v in enumerate(known)
    ]
    return drawing(90, 24, path(points, class_="series s-searched"), label=label, class_="spark")


def shown_row(row: Mapping[str, Any], version: Version, *, of_job: bool = False) -> dict[str, Any]:
    """A row of a list as the template takes it; how far it is, is read of what runs alone."""
    left, share, done = "", None, ""
    if row["state"] in LIVE:
        far = progress(version, version.record())
        if far is not None:
            left = span(far.seconds_left) if far.seconds_left is not None else ""
            share, done = far.share, far.text
    place = f"/jobs/{row['job']}/{row['version']}"
    title = row["version"] if of_job else row["job"]
    return {
        **row,
        "label": f"{row['job']}/{row['version']}",
        "title": title,
        "description": row["version_description"] if of_job else row["description"],
        "link": place if of_job else f"/jobs/{row['job']}",
        "share": share,
        "progress": done,
        "left": left,
        "value": short(row["value"]) if row["value"] is not None else "–",
        "baseline": short(row["baseline"]) if row["baseline"] is not None else "–",
        "metric": (row["metric"] or "").replace("_", " "),
        "course": sparkline_svg(row["course"], f"course of {title}"),
        "device": row["device"] or "–",
        "started": clock(row["started"] or row["created"]),
        "duration": span(row["duration"]) if row["duration"] is not None else "–",
        "message": row["message"] if row["state"] == "failed" else "",
    }


def _asked(request: Request) -> dict[str, str]:
    query = request.query_params
    return {
        name: query.get(name, "")[:200] for name in ("search", "state", "kind", "sort", "order")
    }


def jobs_page(request: Request) -> Response:
    """`/`: one row a job, searched, filtered and sorted by the address."""
    site, asked = site_of(request), _asked(request)
    wanted = whole(request.query_params.get("page"), 1, 1, 10**6)

    def make() -> dict[str, Any]:
        rows = newest_rows(version_rows(site.store))
        table = picked(
            rows,
            states=[asked["state"]] if asked["state"] else (),
            kinds=[asked["kind"]] if asked["kind"] else (),
            search=asked["search"],
            sort=asked["sort"] or "created",
            reverse=(asked["order"] or ("down" if not asked["sort"] else "up")) == "down",
        )
        # a page beyond the last one is left of jobs that were deleted meanwhile
        at = min(wanted, last_page(len(table), _PAGE))
        begin = (at - 1) * _PAGE
        shown = [
            shown_row(row, Version(site.store.root / row["job"] / row["version"]))
            for row in table[begin : begin + _PAGE]
        ]
        running = sum(row["state"] in LIVE for row in rows)
        every = f"{len(rows)} job{'' if len(rows) == 1 else 's'}"
        count = every if len(table) == len(rows) else f"{len(table)} of {every}"
        return {
            "heading": "Jobs",
            "topic": "jobs",
            "here": "jobs",
            "asked": {**asked, "sort": asked["sort"] or "created",
                      "order": asked["order"] or ("up" if asked["sort"] else "down")},
            "states": STATES,
            "kinds": sorted({str(row["kind"]) for row in rows}),
            "sorts": SORTS,
            "rows": shown,
            "choosing": False,
            "any": bool(rows),
            "count": f"{count}, {running} running",
            "pages": page_links("/", len(table), _PAGE, at, asked),
        }  # fmt: skip

    return kept_page(request, store_mark(site.store), "jobs", make)


def job_page(request: Request) -> Response:
    """`/jobs/{job}`: its versions, which came from which, its description."""
    site, job = site_of(request), request.path_params["job"]
    record = site.store.job_record(job)

    def make() -> dict[str, Any]:
        rows = list(version_rows(site.store, job))
        rows.reverse()
        shown = [
            shown_row(row, Version(site.store.root / job / row["version"]), of_job=True)
            for row in rows
        ]
        return {
            "heading": job,
            "lead": str(record.get("description") or ""),
            "description": str(record.get("description") or ""),
            "topic": "jobs",
            "here": "jobs",
            "job": job,
            "rows": shown,
            "choosing": True,
            "tree": _tree(rows),
        }

    return kept_page(request, store_mark(site.store), "job", make)


def _tree(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Versions below those that they were made from; empty where none was made from another."""
    if not any(row.get("parent") for row in rows):
        return []
    roots: list[dict[str, Any]] = []
    levels = [roots]
    for depth, row in version_lines(rows[::-1]):
        best = f"best {short(row['value'])}" if row["value"] is not None else ""
        node = {
            "name": row["version"],
            "link": f"/jobs/{row['job']}/{row['version']}",
            "state": row["state"],
            "said": " · ".join(text for text in (best, row["version_description"]) if text),
            "children": [],
        }
        del levels[depth + 1 :]
        levels[depth].append(node)
        levels.append(node["children"])
    return roots
