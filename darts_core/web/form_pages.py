"""Making jobs and versions, saved parameters, and what the page has started."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from darts_core.autosearch.job_templates import described_templates, job_templates
from darts_core.errors import JobError
from darts_core.report.blocks import plain_table
from darts_core.store.code import python_files
from darts_core.store.params import SavedParams
from darts_core.store.record import SCRIPT
from darts_core.web.forms import started
from darts_core.web.shell import Site, clock, show, site_of

__all__ = ["action_page", "actions_page", "new_page", "params_page", "start_action"]

_EMPTY = {"name": "", "description": "", "code": "", "boot_file": "", "file": "", "template": "",
          "arguments": "", "settings": "", "budget": "", "devices": "cpu"}  # fmt: skip
_MOST_FILES = 200


def _codes(site: Site) -> list[str]:
    """The folders of code that are offered: those named at the start, and the ones right below them."""
    found = []
    for root in site.options.code:
        inner = [
            p for p in sorted(root.iterdir()) if p.is_dir() and not p.name.startswith((".", "_"))
        ]
        found += [root, *(p for p in inner if any(p.glob("*.py")))]
    return [str(path.resolve()) for path in found][:_MOST_FILES]


def _python_files(folder: str) -> list[str]:
    """The first of a folder's Python files, relative to it."""
    return [os.path.relpath(p, folder) for p in islice(python_files(Path(folder)), _MOST_FILES)]


def new_page(request: Request) -> Response:
    """`/new`: the form of a job, from a template, a proposal, an earlier form or a version."""
    site, query = site_of(request), request.query_params
    if site.options.read_only:
        raise JobError("This page is read-only: it was started with --read-only.")
    files, values, parent = job_templates(), dict(_EMPTY), None
    if query.get("version"):
        parent, values["file"] = _parent(site, query["version"])
    elif query.get("action"):
        action = site.actions.get(query["action"])
        if action is not None:
            values |= _from_words(action.words) | {"file": action.job_file()}
    elif query.get("template") in files:
        values |= {"template": query["template"], "file": files[query["template"]]}
    codes = _codes(site)
    if codes and not values["code"]:
        values["code"] = (
            codes[1] if len(codes) > 1 and not any(Path(codes[0]).glob("*.py")) else codes[0]
        )
    allowed = bool(codes) and any(
        values["code"].startswith(str(p.resolve())) for p in site.options.code
    )
    return show(
        request,
        "new",
        heading=f"New version of {parent['job']}" if parent else "New job",
        here="new",
        problem="",
        parent=parent,
        values=values,
        templates=described_templates(),
        saved=SavedParams(site.store).names(),
        codes=codes,
        files=_python_files(values["code"]) if allowed else [],
        below=", ".join(str(path) for path in site.options.code)
        or "(no folder: start with --code DIR)",
    )


def _parent(site: Site, label: str) -> tuple[dict[str, Any], str]:
    """The version that a new one is made from, and its job file."""
    version = site.store.version(label)
    script = version.kind == SCRIPT
    texts = [
        path.read_text(encoding="utf-8", errors="replace")
        for path in sorted((version.path / "config").glob("*"))
        if script and path.is_file() and not path.is_symlink()
    ]
    hint = "for example search_algorithm.num_samples=40" if script else "for example seed=1"
    request = version.command().get("request") if script else None
    given = request if isinstance(request, Mapping) else {}
    if given.get("settings") or given.get("arguments"):
        hint = f"Those of {version.name} stand here; they count before the job file."
    parent = {
        "job": version.job,
        "version": version.name,
        "script": script,
        "hint": hint,
        "settings": _given_lines(
            given.get("settings"), lambda value: json.dumps(value, ensure_ascii=False)
        ),
        "arguments": _given_lines(given.get("arguments"), str),
    }
    # several job files make a multi-search: they stay as they are
    return parent, texts[0] if len(texts) == 1 else ""


def _given_lines(given: object, text: Callable[[Any], str]) -> str:
    """What a version was given beside its job file, one NAME=VALUE a line.

    What would not come back as it is (line breaks, control characters) is left out; the new version keeps
    it all the same.
    """
    values = given.items() if isinstance(given, Mapping) else ()
    lines = [f"{name}={text(value)}" for name, value in values]
    return "\n".join(line for line in lines if line == line.strip() and line.isprintable())


def _from_words(words: tuple[str, ...]) -> dict[str, str]:
    """The fields of a form that a command line came from."""
    found: dict[str, str] = {}
    lists = {"--set": "settings", "--arg": "arguments", "--budget": "budget"}
    for word in words:
        flag, equals, value = word.partition("=")
        if not equals:
            continue
        name = lists.get(flag, flag.removeprefix("--").replace("-", "_"))
        if name in ("settings", "arguments"):
            found[name] = f"{found[name]}\n{value}" if name in found else value
        elif name == "budget":
            found[name] = f"{found.get(name, '')} {value}".strip()
        elif name in _EMPTY:
            found[name] = value
    if "init" in words:
        found["code"] = words[words.index("init") + 1]
    return found


async def start_action(request: Request) -> Response:
    """`POST /actions`: start what a form asks for, and show it."""
    return RedirectResponse(f"/actions/{(await started(request)).name}", status_code=303)


def action_page(request: Request) -> Response:
    """`/actions/{name}`: the command line, what it says, how it ended."""
    site, name = site_of(request), request.path_params["name"]
    action = site.actions.get(name)
    if action is None:
        raise JobError("This command is not known (any more); see the list of commands.")
    mark = site.mark(f"action:{name}")
    return show(
        request,
        "action",
        heading={"dry-run": "Dry run", "init": "A job file for your script"}.get(
            action.verb, action.verb.replace("-", " ").capitalize()
        ),
        topic=f"action:{name}",
        mark=mark,
        state=action.state,
        here="actions",
        name=name,
        line=action.command_line,
        said=action.said(),
        exit_status=action.status,
        starts=action.verb == "dry-run",
        proposes=action.verb == "init",
        shows=action.shows,
        back=f"/new?action={name}" if action.verb in ("dry-run", "create") else "",
    )


def actions_page(request: Request) -> Response:
    """`/actions`: what this page has started."""
    items = [
        {"name": a.name, "line": a.command_line, "state": a.state, "started": clock(a.started)}
        for a in site_of(request).actions.newest()
    ]
    return show(request, "actions", heading="Commands", here="actions", items=items)


def params_page(request: Request) -> Response:
    """`/params`: the saved parameters."""
    sets = []
    for content in SavedParams(site_of(request).store).readable():
        left_out = ("kind", "schema_version", "name", "description", "config_paths", "saved")
        kept = {
            k: v for k, v in content.items() if k not in left_out and v not in (None, "", [], {})
        }
        sets.append(
            {
                "name": content["name"],
                "description": content.get("description") or "",
                "table": plain_table(kept),
            }
        )
    return show(request, "params", heading="Saved parameters", here="params", sets=sets)
