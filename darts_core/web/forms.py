"""Bodies of requests as plain fields: forms with or without a file, or JSON; and what they start."""

from __future__ import annotations

import email
import email.policy
import json
from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.requests import Request

from darts_core.errors import ConfigError
from darts_core.web.actions import Action
from darts_core.web.shell import site_of
from darts_core.web.verbs import order

__all__ = ["fields_of", "started"]

_MOST_FIELDS = 60


async def started(request: Request) -> Action:
    """Start the command that the fields of a request ask for.

    Raises:
        ConfigError, JobError: they are none, or ask for what is unknown or not allowed.
    """
    site, fields = site_of(request), await fields_of(request)
    verb = fields.pop("verb", "")
    if verb == "start":
        return site.actions.start_after(fields.get("action", ""))
    return site.actions.start(verb, order(site.options, verb, fields))


async def fields_of(request: Request) -> dict[str, str]:
    """The fields of a form or of a JSON object, as text. An uploaded file is its text.

    Raises:
        ConfigError: the body is none of these, or holds more than 60 fields.
    """
    kind = request.headers.get("content-type", "")
    body = await request.body()
    try:
        if kind.startswith("application/json"):
            fields = _json(body)
        elif kind.startswith("multipart/form-data"):
            fields = _multipart(kind, body)
        elif kind.startswith("application/x-www-form-urlencoded"):
            text = body.decode("utf-8")
            fields = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS))
        else:
            raise ConfigError(
                f"A body of type {kind[:80]!r} is not read here; send a form or JSON."
            )
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError("The body of the request could not be read as UTF-8 fields.") from None
    if len(fields) > _MOST_FIELDS:
        raise ConfigError(f"A request may hold {_MOST_FIELDS} fields.")
    return fields


def _json(body: bytes) -> dict[str, str]:
    content = json.loads(body)
    if not isinstance(content, Mapping):
        raise ConfigError("The body must be a JSON object of texts.")
    for name, value in content.items():
        if not isinstance(value, str):
            raise ConfigError(f"The field {str(name)[:40]!r} must be a text.")
    return dict(content)


def _multipart(kind: str, body: bytes) -> dict[str, str]:
    head = f"Content-Type: {kind}\r\n\r\n".encode("latin-1")
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    if not message.is_multipart():
        raise ConfigError("The form could not be read.")
    fields: dict[str, str] = {}
    for index, part in enumerate(message.iter_parts()):
        if index >= _MOST_FIELDS:
            raise ConfigError(f"A request may hold {_MOST_FIELDS} fields.")
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        if not isinstance(name, str) or not isinstance(payload, bytes):
            raise ConfigError("The form could not be read.")
        text = payload.decode("utf-8")
        if name == "upload":
            # an empty choice of a file leaves what was typed
            if text.strip():
                fields["file"] = text
        elif not (name == "file" and fields.get("file")):
            fields[name] = text
    return fields
