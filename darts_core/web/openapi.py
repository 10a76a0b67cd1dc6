"""The OpenAPI description of `/api`."""

from __future__ import annotations

from typing import Any

from darts_core.report.job_rows import SORTS
from darts_core.store.record import STATES
from darts_core.web.verbs import VERBS

__all__ = ["document"]

_NAME = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._+=-]{0,119}$"}
_PLACE = {"job": _NAME, "version": _NAME}
_REFUSALS = {
    400: "the request is not understood; `detail` is a sentence",
    403: "no token, another page's request, or read-only",
    404: "there is no such job, version or action",
}


def _number(low: int, high: int, default: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high, "default": default}


_LIST = {"offset": _number(0, 10**9, 0), "limit": _number(1, 1000, 100)}
_ROWS = {
    "type": "object",
    "required": ["total", "rows"],
    "properties": {
        "total": {"type": "integer", "minimum": 0},
        "rows": {"type": "array", "items": {"type": "object"}},
    },
}
_ACTION = {
    "type": "object",
    "required": ["action", "verb", "command", "state", "status", "said", "started"],
    "properties": {
        "action": {"type": "string"},
        "verb": {"type": "string"},
        "command": {"type": "string"},
        "state": {"enum": ["running", "succeeded", "failed"]},
        "status": {"type": ["integer", "null"]},
        "said": {"type": "string"},
        "started": {"type": "number"},
    },
}


def _of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _parameters(path: dict[str, Any], query: dict[str, Any]) -> list[dict[str, Any]]:
    found = [{"name": n, "in": "path", "required": True, "schema": s} for n, s in path.items()]
    for name, schema in query.items():
        listed = schema.get("type") == "array"
        more = {"style": "form", "explode": True} if listed else {}
        found.append({"name": name, "in": "query", "schema": schema, **more})
    return found


def _get(
    summary: str, answer: dict[str, Any], path: dict[str, Any], query: dict[str, Any]
) -> dict[str, Any]:
    return {
        "get": {
            "summary": summary,
            "parameters": _parameters(path, query),
            "responses": _responses(200, answer),
        }
    }


def _responses(status: int, answer: dict[str, Any], *more: tuple[int, str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        str(status): {"description": "done", "content": {"application/json": {"schema": answer}}}
    }
    for code, text in (*_REFUSALS.items(), *more):
        found[str(code)] = {"description": text}
    return found


def document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    text = {"type": "string"}
    objects = {"type": "array", "items": {"type": "object"}}
    picks = {
        "search": {"type": "string"},
        "state": {"type": "array", "items": {"enum": list(STATES)}},
        "kind": {"type": "array", "items": text},
        "sort": {"enum": list(SORTS)},
        "order": {"enum": ["up", "down"]},
        **_LIST,
    }
    versions = {"type": "array", "items": text, "minItems": 2, "maxItems": 12}
    table = {"type": "object", "additionalProperties": {"type": "array"}}
    post = {
        "post": {
            "summary": "Start an action as a child process; the answer comes at once",
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "required": ["verb"],
                            "properties": {"verb": {"enum": [*VERBS, "start"]}},
                            "additionalProperties": text,
                        }
                    }
                },
            },
            "responses": _responses(202, _ACTION, (413, "the body is longer than 1 MiB")),
        }
    }
    paths = {
        "/api/jobs": _get("One row a job", _ROWS, {}, picks),
        "/api/jobs/{job}": _get(
            "A job's versions", _of(job=text, versions=objects), {"job": _NAME}, {}
        ),
        "/api/jobs/{job}/{version}": _get(
            "Everything about a version", _of(job=text, version=text, state=text), _PLACE, {}
        ),
        "/api/jobs/{job}/{version}/trials": _get("Trials of a search", _ROWS, _PLACE, _LIST),
        "/api/jobs/{job}/{version}/log": _get(
            "The end of the log",
            _of(lines={"type": "array", "items": text}),
            _PLACE,
            {"lines": _number(1, 5000, 100)},
        ),
        "/api/compare": _get(
            "Results and differing settings",
            _of(versions={"type": "array", "items": text}, results=table, settings=table),
            {},
            {"version": versions, "metric": {"type": "string"}},
        ),
        "/api/params": _get(
            "Saved parameters", _of(names={"type": "array", "items": text}), {}, {}
        ),
        "/api/templates": _get("Ready-made job files", _of(templates={"type": "object"}), {}, {}),
        "/api/actions": post,
        "/api/actions/{name}": _get("An action's state", _ACTION, {"name": text}, {}),
        "/api/openapi.json": _get("This description", {"type": "object"}, {}, {}),
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "darts-core",
            "version": "1",
            "description": "Jobs and versions of a store.",
        },
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{"token": []}],
    }
