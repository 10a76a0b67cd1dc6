"""What every page stands in: its frame, what it needs of the server, answers that a browser may keep."""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from darts_core.report.html import Markup, render
from darts_core.report.tables import zone
from darts_core.store.jobs import Store
from darts_core.store.version import Version
from darts_core.web.actions import Actions
from darts_core.web.cache import PageCache
from darts_core.web.live import Watchers
from darts_core.web.marks import store_mark, version_mark
from darts_core.web.options import WebOptions
from darts_core.web.shares import RemoteShares

__all__ = ["Site", "kept_page", "last_page", "link", "page_links", "show", "site_of"]

_TEMPLATES = (Path(__file__).with_name("templates"),)


class Site:
    """What all requests share."""

    def __init__(self, options: WebOptions) -> None:
        self.options = options
        self.store: Store = options.store
        self.actions = Actions()
        self.shares = RemoteShares()
        self.cache = PageCache()
        self.watchers = Watchers(self.mark)

    def mark(self, topic: str) -> str:
        """The present mark of a topic, "gone" where nothing is.

        Topics are `jobs`, `version:JOB/VERSION` and `action:NAME`.
        """
        kind, _, name = topic.partition(":")
        if kind == "action":
            action = self.actions.get(name)
            return "gone" if action is None else action.mark
        if kind == "version":
            try:
                found = self.store.version(name)
            except Exception:
                return "gone"
            return self.version_mark(found)
        return store_mark(self.store)

    def page_mark(self, version: Version) -> str:
        """The mark that a version's page is kept under.

        Where pages are open it is their watcher's: all of them get one page, made once a change, and no
        folder is walked for it.
        """
        return self.watchers.known(f"version:{version.label}") or self.version_mark(version)

    def version_mark(self, version: Version) -> str:
        """What lies in a version's folder, and what another process has answered."""
        return f"{version_mark(version, version.exports)}.{self.shares.answers}"


def site_of(request: Request) -> Site:
    """The site that a request is for."""
    found: Site = request.app.state.site
    return found


def show(
    request: Request, template: str, *, heading: str, status: int = 200, **values: Any
) -> Response:
    """A page inside its frame."""
    return HTMLResponse(_text(site_of(request), template, heading=heading, **values), status)


def _text(site: Site, template: str, **values: Any) -> Markup:
    frame: dict[str, Any] = {
        "topic": "",
        "mark": "",
        "state": "",
        "goes": "",
        "here": "",
        "lead": "",
    }
    frame |= {"read_only": site.options.read_only, "root": str(site.store.root), "zone": zone()}
    return render(template, folders=_TEMPLATES, **{**frame, **values})


def part(template: str, **values: Any) -> Markup:
    """A piece of a page from our templates."""
    return render(template, folders=_TEMPLATES, **values)


def kept_page(
    request: Request, mark: str, template: str, make: Callable[[], dict[str, Any]]
) -> Response:
    """A page that is made anew only when `mark` differs from that of the page at hand.

    A browser that has it already is told so. `make` gives the values of the template.
    """
    site = site_of(request)
    key = f"{request.url.path}?{request.url.query}"
    body = site.cache.get(key, mark, lambda: _text(site, template, mark=mark, **make()))
    tag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"etag": tag, "cache-control": "private, no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return HTMLResponse(body, headers=headers)


def link(path: str, **query: object) -> str:
    """An address of ours; empty values are left out."""
    kept = {k: v for k, v in query.items() if v not in (None, "")}
    return path + (f"?{urlencode(kept, doseq=True)}" if kept else "")


def last_page(count: int, size: int) -> int:
    """The number of the last page of a long list; one that is empty has one page."""
    return max(1, -(-count // size))


def page_links(
    path: str, count: int, size: int, at: int, query: dict[str, Any]
) -> list[dict[str, Any]]:
    """Links to the pages of a long list: the first, the last, and those around `at` (from 1)."""
    last = last_page(count, size)
    shown = sorted({1, last, *range(max(1, at - 3), min(last, at + 3) + 1)})
    return [
        {"name": str(n), "here": n == at, "link": link(path, **{**query, "page": n})} for n in shown
    ]


def whole(text: str | None, default: int, low: int, high: int) -> int:
    """A number of a query, kept within its range."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 9:
        return default
    return min(max(int(text), low), high)


def clock(seconds: Any) -> str:
    """A time as a list shows it."""
    if not isinstance(seconds, (int, float)):
        return "–"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
