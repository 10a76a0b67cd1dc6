"""`/api`: what the pages show, as JSON, and the same actions. Described by `/api/openapi.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from darts_core.autosearch.job_templates import job_templates
from darts_core.errors import ConfigError, JobError
from darts_core.report.comparison import different_settings, results_table
from darts_core.report.job_details import log_path, tail, version_details
from darts_core.report.job_rows import newest_rows, picked, version_rows
from darts_core.report.progress import progress
from darts_core.runlog import plain
from darts_core.store.params import SavedParams
from darts_core.store.record import LIVE
from darts_core.study.results import read_rows
from darts_core.web.actions import Action
from darts_core.web.compare_pages import asked_columns
from darts_core.web.forms import started
from darts_core.web.openapi import document
from darts_core.web.shell import site_of, whole
from darts_core.web.version_pages import version_of

__all__ = [
    "action",
    "actions_post",
    "compare",
    "job",
    "jobs",
    "log",
    "openapi",
    "params",
    "templates",
    "trials",
    "version",
]

_MOST_ROWS, _MOST_LINES = 1000, 5000


def _json(content: Any, status: int = 200) -> Response:
    return JSONResponse(plain(content), status, {"cache-control": "private, no-cache"})


def _falls(request: Request) -> bool:
    """Whether `order` asks for the last first.

    Raises:
        ConfigError: it is neither up nor down.
    """
    value = request.query_params.get("order", "up")
    if value not in ("up", "down"):
        raise ConfigError(f"order={value[:40]!r} is not one of up, down.")
    return value == "down"


def _page(request: Request) -> tuple[int, int]:
    """`offset` and `limit` of a list.

    Raises:
        ConfigError: one is no number within its range.
    """
    found = []
    for name, default, low, high in (("offset", 0, 0, 10**9), ("limit", 100, 1, _MOST_ROWS)):
        text = request.query_params.get(name, str(default))
        number = whole(text, low - 1, low - 1, high + 1)
        if not low <= number <= high or str(number) != text:
            raise ConfigError(f"{name}={text[:20]!r} must be a whole number from {low} to {high}.")
        found.append(number)
    return found[0], found[1]


def jobs(request: Request) -> Response:
    """One row a job."""
    query, (offset, limit) = request.query_params, _page(request)
    table = picked(
        newest_rows(version_rows(site_of(request).store)),
        states=query.getlist("state"),
        kinds=query.getlist("kind"),
        search=query.get("search", ""),
        sort=query.get("sort", "name"),
        reverse=_falls(request),
    )
    return _json({"total": len(table), "rows": table[offset : offset + limit]})


def job(request: Request) -> Response:
    """The versions of a job, oldest first."""
    store, name = site_of(request).store, request.path_params["job"]
    record = store.job_record(name)
    kept = {key: record.get(key) for key in ("kind", "description", "created")}
    return _json({"job": name, **kept, "versions": list(version_rows(store, name))})


def version(request: Request) -> Response:
    """Everything about a version but its trials."""
    found = version_of(request)
    details = version_details(found)
    far = progress(found, found.record()) if details["state"] in LIVE else None
    details["progress"] = None if far is None else {**vars(far), "share": far.share}
    return _json(details)


def trials(request: Request) -> Response:
    """The trials of a script's search, by number."""
    offset, limit = _page(request)
    rows = read_rows(version_of(request).path)
    kept = [
        {k: v for k, v in row.items() if k != "folder"} for row in rows[offset : offset + limit]
    ]
    return _json({"total": len(rows), "rows": kept})


def log(request: Request) -> Response:
    """The end of a version's log."""
    text = request.query_params.get("lines", "100")
    lines = whole(text, 0, 0, _MOST_LINES + 1)
    if not 1 <= lines <= _MOST_LINES or str(lines) != text:
        raise ConfigError(f"lines={text[:20]!r} must be a whole number from 1 to {_MOST_LINES}.")
    return _json({"lines": tail(log_path(version_of(request)), lines)})


def compare(request: Request) -> Response:
    """Results and differing settings of some versions."""
    found = asked_columns(request)
    if len(found) < 2:
        raise ConfigError("compare needs two versions or more: ?version=a/V001&version=b/V001.")
    metric = request.query_params.get("metric", "")
    return _json(
        {
            "versions": [column.label for column in found],
            "results": results_table(found, [metric] if metric else []),
            "settings": different_settings(found),
        }
    )


def params(request: Request) -> Response:
    """The names of the saved parameters."""
    return _json({"names": SavedParams(site_of(request).store).names()})


def templates(request: Request) -> Response:
    """The ready-made job files."""
    return _json({"templates": job_templates()})


def _action(found: Action) -> Mapping[str, Any]:
    return {
        "action": found.name,
        "verb": found.verb,
        "command": found.command_line,
        "state": found.state,
        "status": found.status,
        "said": found.said(),
        "started": found.started,
    }


async def actions_post(request: Request) -> Response:
    """Start an action; answers at once, its end is asked for with its name."""
    return _json(_action(await started(request)), 202)


def action(request: Request) -> Response:
    """The state of an action."""
    found = site_of(request).actions.get(request.path_params["name"])
    if found is None:
        raise JobError("This command is not known (any more).")
    return _json(_action(found))


def openapi(request: Request) -> Response:
    """This interface's description."""
    return _json(document())
