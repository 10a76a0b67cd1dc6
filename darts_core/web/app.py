"""The application: which address shows what, and what becomes of errors."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from darts_core.errors import DartsError, JobError, sentence_of
from darts_core.report.escape import plain_text
from darts_core.report.style import style_sheet
from darts_core.web import api
from darts_core.web.compare_pages import compare_page
from darts_core.web.files import files_of
from darts_core.web.form_pages import (
    action_page,
    actions_page,
    new_page,
    params_page,
    start_action,
)
from darts_core.web.guard import Guard
from darts_core.web.jobs_pages import job_page, jobs_page
from darts_core.web.options import WebOptions
from darts_core.web.shell import Site, show, site_of
from darts_core.web.version_pages import log_page, trial_page, version_of, version_page

__all__ = ["make_app"]

log = logging.getLogger("darts_core")
_STATIC = Path(__file__).with_name("static")
_VERSION = "/jobs/{job}/{version}"


def style(request: Request) -> Response:
    """The style sheet of the report, and what only the live page has."""
    own = (_STATIC / "web.css").read_text(encoding="utf-8")
    return Response(style_sheet() + own, media_type="text/css", headers=_for_a_while())


def script(request: Request) -> Response:
    """The one script."""
    return FileResponse(_STATIC / "live.js", media_type="text/javascript", headers=_for_a_while())


def icon(request: Request) -> Response:
    """The page's icon."""
    return FileResponse(_STATIC / "icon.svg", media_type="image/svg+xml", headers=_for_a_while())


def _for_a_while() -> dict[str, str]:
    return {"cache-control": "private, max-age=3600"}


def events(request: Request) -> Response:
    """`/events?of=TOPIC&seen=MARK`: an event a change."""
    topic, seen = (request.query_params.get(name, "")[:300] for name in ("of", "seen"))
    known = topic == "jobs" or topic.partition(":")[0] in ("version", "action")
    if not known or site_of(request).mark(topic) == "gone":
        raise JobError("There is nothing of that name to follow.")
    stream = site_of(request).watchers.events(topic, request.headers.get("last-event-id", seen))
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


def download(request: Request) -> Response:
    """A file of a version, looked up in the list of its files: the request's text is never a path."""
    version, name = version_of(request), request.query_params.get("name", "")
    path = files_of(version).get(name)
    if path is None:
        raise JobError(f"{version.label} has no file {name[:100]!r} to download.")
    # never shown in the page's origin: a file of a job may hold anything
    saved_as = name.rpartition("/")[2]
    return FileResponse(path, media_type="application/octet-stream", filename=saved_as)


def _problem(request: Request, status: int, sentence: str) -> Response:
    if request.url.path.startswith("/api"):
        return JSONResponse({"detail": plain_text(sentence, limit=2000)}, status)
    return show(request, "problem", heading="This did not work", status=status, sentence=sentence)


async def _refused(request: Request, error: Exception) -> Response:
    """An expected failure as its sentence: 404 where something is looked for, 400 where it is asked for."""
    gone = isinstance(error, JobError) and request.method in ("GET", "HEAD")
    return _problem(request, 404 if gone else 400, str(error))


async def _system(request: Request, error: Exception) -> Response:
    """What the machine refuses (rights, a full disk) as its sentence; what was deleted while it is read."""
    told = sentence_of(error)
    if told is None and isinstance(error, FileNotFoundError):
        return _problem(request, 404, f"{error.filename or 'A file'} is not there (any more).")
    return await _defect(request, error) if told is None else _problem(request, 500, told)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = _problem(request, error.status_code, f"{request.url.path}: {error.detail}")
    # `Allow` of a method that is not
    answer.headers.update(error.headers or {})
    return answer


async def _defect(request: Request, error: Exception) -> Response:
    log.exception("%s %s", request.method, plain_text(request.url.path), exc_info=error)
    said = f"unexpected {type(error).__name__}; this is a defect of ours, see the log of darts-core web"
    return _problem(request, 500, said)


def _routes() -> list[Route]:
    pages: list[tuple[str, Callable[[Request], Response]]] = [
        ("/", jobs_page),
        ("/jobs/{job}", job_page),
        (_VERSION, version_page),
        (f"{_VERSION}/log", log_page),
        (f"{_VERSION}/file", download),
        (f"{_VERSION}/trials/{{trial}}", trial_page),
        ("/compare", compare_page),
        ("/new", new_page),
        ("/params", params_page),
        ("/actions", actions_page),
        ("/actions/{name}", action_page),
        ("/events", events),
        ("/static/style.css", style),
        ("/static/live.js", script),
        ("/static/icon.svg", icon),
        ("/api/jobs", api.jobs),
        ("/api/jobs/{job}", api.job),
        ("/api/jobs/{job}/{version}", api.version),
        ("/api/jobs/{job}/{version}/trials", api.trials),
        ("/api/jobs/{job}/{version}/log", api.log),
        ("/api/compare", api.compare),
        ("/api/params", api.params),
        ("/api/templates", api.templates),
        ("/api/actions/{name}", api.action),
        ("/api/openapi.json", api.openapi),
    ]
    posts: list[tuple[str, Callable[[Request], Awaitable[Response]]]] = [
        ("/actions", start_action),
        ("/api/actions", api.actions_post),
    ]
    return [Route(path, page) for path, page in pages] + [
        Route(path, post, methods=["POST"]) for path, post in posts
    ]


def make_app(options: WebOptions) -> Guard:
    """The whole application behind its guard."""
    site = Site(options)

    @contextlib.asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        yield
        site.actions.close()

    handlers: dict[Any, Any] = {
        DartsError: _refused,
        OSError: _system,
        HTTPException: _http,
        Exception: _defect,
    }
    app = Starlette(routes=_routes(), exception_handlers=handlers, lifespan=life)
    app.state.site = site
    return Guard(app, options)
