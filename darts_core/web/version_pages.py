"""The page of a version (the sections of its report, live), of one trial, of a log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from darts_core.autosearch.curves import trial_curves
from darts_core.autosearch.reports import iterations_of
from darts_core.errors import ConfigError, JobError
from darts_core.report.blocks import Section, callout, card, pair, plain_table
from darts_core.report.charts import Line, line_chart
from darts_core.report.html import Markup
from darts_core.report.job_details import log_path, tail
from darts_core.report.metric_units import headed
from darts_core.report.page import Content
from darts_core.report.progress import progress
from darts_core.report.rows import finite
from darts_core.report.tables import clock, short, span
from darts_core.report.versions import content_of
from darts_core.store.record import LIVE, SCRIPT
from darts_core.store.version import Version
from darts_core.study.result_table import result_table, row_names
from darts_core.study.results import objectives, read_rows
from darts_core.web.files import files_of
from darts_core.web.shell import Site, kept_page, last_page, link, page_links, part, site_of, whole

__all__ = ["log_page", "trial_page", "version_of", "version_page"]

_ROWS, _LINES, _FILES = 50, 2000, 60
_SEARCHED_BYTES = 32 * 2**20
_SHOWN_CHARACTERS = 400_000


def version_of(request: Request) -> Version:
    """The version that a path names; its name is looked up among those that are there."""
    params = request.path_params
    return site_of(request).store.version(params["job"], params["version"])


def version_page(request: Request) -> Response:
    """`/jobs/{job}/{version}`: everything about it."""
    site, version = site_of(request), version_of(request)

    def make() -> dict[str, Any]:
        record, state = version.record(), version.state()
        content = _content(site, version)
        sections = _with_table(content.sections, version, request)
        far = progress(version, record) if state in LIVE else None
        files = files_of(version)
        place = f"/jobs/{version.job}/{version.name}"
        return {
            "heading": content.title,
            # job, version and state stand there already
            "crumb": " · ".join(
                word
                for word in content.crumb.split(" · ")
                if word not in (version.job, version.name, state)
            ),
            "lead": content.lead,
            "tiles": content.tiles,
            "sections": sections,
            "topic": f"version:{version.label}",
            "state": state,
            "resumes": version.unfinished() is not None,
            "here": "jobs",
            "job": version.job,
            "version": version.name,
            "progress": far,
            "left": span(far.seconds_left) if far and far.seconds_left is not None else "",
            "files": [
                {"name": name, "size": _size(path), "link": link(f"{place}/file", name=name)}
                for name, path in list(files.items())[:_FILES]
            ],
            "more_files": max(0, len(files) - _FILES),
            "folder": str(version.path),
            "description": version.description,
        }

    return kept_page(request, site.page_mark(version), "version", make)


def _content(site: Site, version: Version) -> Content:
    """The report's content; a version that has left nothing yet says so."""
    # a version that was deleted may have borne the same name
    search = f"{version.label} {version.record().get('created')}"
    try:
        return content_of(version.path, curves=trial_curves, shares=partial(site.shares, of=search))
    except ConfigError as error:
        message = version.command().get("message") or str(error)
        section = Section("state", "State", callout(message))
        return Content(f"{version.label}: {version.state()}", "", "", [section])


def _size(path: Path) -> str:
    try:
        size = float(path.stat().st_size)
    except OSError:
        return "gone"
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _with_table(sections: Sequence[Section], version: Version, request: Request) -> list[Section]:
    """The sections with the table of trials that the address asks for, and a link to the whole log."""
    found = []
    for section in sections:
        if section.key == "trials" and version.kind == SCRIPT:
            section = _trials(version, request) or section
        if section.key == "log":
            more = Markup('<p><a href="{}">The whole log, with search</a></p>').format(
                f"/jobs/{version.job}/{version.name}/log"
            )
            section = Section(section.key, section.title, section.body + more, section.note)
        found.append(section)
    if all(section.key != "log" for section in found):
        lines = tail(log_path(version), 10)
        if lines:
            body = part(
                "logtail", text="\n".join(lines), link=f"/jobs/{version.job}/{version.name}/log"
            )
            found.append(Section("log", "Log", body))
    return found


def _trials(version: Version, request: Request) -> Section | None:
    rows = read_rows(version.path)
    if not rows:
        return None
    try:
        goals = objectives(version.path)
    except JobError:
        goals = []
    query = request.query_params
    asked = {name: query.get(name, "")[:200] for name in ("sort", "state", "search")}
    columns, table = result_table(rows, goals, asked["sort"] or None)
    columns = [c for c in columns if c != "additional_data"]
    states = sorted({str(row["state"]) for row in table})
    if asked["state"]:
        table = [row for row in table if row["state"] == asked["state"]]
    if asked["search"]:
        wanted = asked["search"].lower()
        table = [r for r in table if wanted in " ".join(short(r.get(c)) for c in columns).lower()]
    at = min(whole(query.get("page"), 1, 1, 10**6), last_page(len(table), _ROWS))
    place = f"/jobs/{version.job}/{version.name}"
    shown = [
        {
            "cells": [short(row.get(c)) for c in columns],
            "link": f"{place}/trials/{row['trial_id']}",
            "at": columns.index("#"),
        }
        for row in table[(at - 1) * _ROWS : at * _ROWS]
    ]
    body = part(
        "trials_table",
        columns=[headed(name) for name in columns],
        rows=shown,
        asked=asked,
        states=states,
        sorts=[
            c for c in columns if c not in ("#", "trial_id", "step", "phase", "state", "reason")
        ],
        pages=[
            {**item, "link": f"{item['link']}#trials"}
            for item in page_links(place, len(table), _ROWS, at, asked)
        ],
    )
    note = (
        f"{len(table)} of {len(rows)}. * is your configuration, c1, c2 … confirm over fresh seeds."
    )
    return Section("trials", "Trials", body, note)


def trial_page(request: Request) -> Response:
    """`/jobs/{job}/{version}/trials/{trial}`: one trial in full."""
    version, wanted = version_of(request), request.path_params["trial"]
    rows = read_rows(version.path)
    names = dict(zip((r["trial_id"] for r in rows), row_names(rows), strict=True))
    row = next((r for r in rows if r["trial_id"] == wanted), None)
    if row is None:
        raise JobError(f"{version.label} has no trial {wanted[:40]!r}.")

    def make() -> dict[str, Any]:
        folder = Path(row["folder"])
        facts = {
            k: v
            for k, v in row.items()
            if k not in ("config", "folder", "metrics", "additional_data")
        }
        if facts.get("ended") is not None:
            facts["ended"] = clock(facts["ended"])
        body = pair(
            card(plain_table(row["config"]), title="Settings"),
            card(plain_table(row.get("metrics") or {}), title="Metrics"),
        )
        body += _curves(iterations_of(folder))
        body += card(plain_table(facts), title="Everything known of it")
        return {
            "heading": f"Trial {names[wanted].rstrip('*')}: {row['state']}",
            "topic": f"version:{version.label}",
            "here": "jobs",
            "job": version.job,
            "version": version.name,
            "trial": wanted,
            "running": row["state"] == "running",
            "body": body,
            "log": "\n".join(tail(folder / "log.txt", 400)),
        }

    return kept_page(request, site_of(request).page_mark(version), "trial", make)


def _curves(reports: Sequence[tuple[int, Mapping[str, Any]]]) -> Markup:
    """Each metric of a trial over its iterations."""
    names = list(dict.fromkeys(str(n) for _, metrics in reports for n in metrics))[:6]
    drawn = []
    for name in names:
        points = [
            (float(iteration), value)
            for iteration, metrics in reports
            if (value := finite(metrics.get(name))) is not None
        ]
        chart = line_chart([Line("", points, "searched")], x_label="iteration", y_label=name, title=name,
                           height=220)  # fmt: skip
        drawn.append(card(chart, title=name))
    return pair(*drawn)


def log_page(request: Request) -> Response:
    """`/jobs/{job}/{version}/log`: its end, or the lines that hold a text."""
    version = version_of(request)
    search = request.query_params.get("search", "")[:200]

    def make() -> dict[str, Any]:
        path = log_path(version)
        lines = _last(_holding(path, search) if search else tail(path, _LINES))
        note = f"The last {len(lines)} lines"
        note += f" that hold {search!r}." if search else f" of {path}."
        return {
            "heading": f"Log of {version.label}",
            "topic": f"version:{version.label}",
            "here": "jobs",
            "job": version.job,
            "version": version.name,
            "search": search,
            "note": note,
            "lines": "\n".join(lines),
            "most": _SHOWN_CHARACTERS,
        }

    return kept_page(request, site_of(request).page_mark(version), "logs", make)


def _last(lines: Sequence[str]) -> list[str]:
    """As many of the last lines as a page shows; a template would cut the newest off."""
    found, room = len(lines), _SHOWN_CHARACTERS
    while found and len(lines[found - 1]) < room:
        found -= 1
        room -= len(lines[found]) + 1
    return list(lines[found:])


def _holding(path: Path, search: str) -> list[str]:
    """The last lines of the last 32 MiB of a log that hold a text, whatever its case."""
    wanted = search.lower()
    found = []
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - _SEARCHED_BYTES))
            for line in stream:
                # a bar that is drawn over and over is one line to the file, and many to `tail`
                texts = line.decode("utf-8", "replace").splitlines()
                found += [text[:500] for text in texts if wanted in text.lower()]
    except OSError:
        return []
    return found[-_LINES:]
