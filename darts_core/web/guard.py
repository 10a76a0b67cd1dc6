"""What every request passes first: host, token, origin, size; and the headers of every answer."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.exceptions import HTTPException

from darts_core.web.options import LIMIT_BYTES, WebOptions

__all__ = ["POLICY", "Guard"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # "no-referrer" would make browsers send forms without their origin
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_TOO_LARGE = f"A request may hold {LIMIT_BYTES} bytes."
_SAFE = ("GET", "HEAD")
_NO_TOKEN = (
    "This page needs the token of the address that `darts-core web` printed when it started; open that "
    "address."
)


class Guard:
    """The outermost layer of the application."""

    def __init__(self, app: Callable[..., Awaitable[None]], options: WebOptions) -> None:
        self.app, self.options = app, options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with a refusal, or pass the request on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        left = LIMIT_BYTES

        async def counted() -> MutableMapping[str, Any]:
            message = await receive()
            nonlocal left
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, _TOO_LARGE)
            return message

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        await self.app(scope, counted, guarded)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[Any, ...] | None:
        """Status, sentence and headers of a refusal (or of the redirect that sets the cookie), or None."""
        if not self._known(headers.get("host", "")):
            return (
                400,
                "This host name is not ours; name it with --allow-host when the page starts.",
            )
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if given:
            if scope["method"] not in _SAFE or not self._is_token(given[-1]):
                return 403, _NO_TOKEN
            rest = urlencode([(n, v) for n, v in query if n != "token"])
            # one slash, so that no address of another host is made of the path
            place = "/" + scope.get("raw_path", b"/").decode("latin-1").lstrip("/\\")
            return (
                303,
                "",
                {"location": place + (f"?{rest}" if rest else ""), "set-cookie": self._cookie()},
            )
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        with_bearer = self._is_token(bearer)
        if not with_bearer and not any(map(self._is_token, self._cookies_of(headers))):
            return 403, _NO_TOKEN
        if scope["method"] in _SAFE:
            return None
        if not with_bearer and not self._own_origin(headers):
            return 403, "This request came from another page."
        if self.options.read_only:
            return 403, "This page is read-only: it was started with --read-only."
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > LIMIT_BYTES:
            return 413, _TOO_LARGE
        return None

    def _known(self, host: str) -> bool:
        name, colon, port = host.rpartition(":")
        if not colon or host.endswith("]"):
            name, port = host, ""
        return name.lower() in self.options.hosts and (not port or port.isdigit())

    def _own_origin(self, headers: dict[str, str]) -> bool:
        """Whether a page of ours sent it; browsers name the origin of every unsafe request."""
        origin = headers.get("origin")
        if origin is None:
            return headers.get("sec-fetch-site") == "same-origin"
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and parts.netloc.lower() == headers["host"].lower()

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode(), self.options.token.encode())

    def _cookie(self) -> str:
        return f"{self.options.cookie}={self.options.token}; Path=/; HttpOnly; SameSite=Strict"

    def _cookies_of(self, headers: dict[str, str]) -> list[str]:
        """What stands in cookies of our name; other programs of this host have theirs beside it.

        Those may hold anything: a parser of cookies ends at the first that it does not understand.
        """
        pairs = [part.partition("=") for part in headers.get("cookie", "").split(";")]
        return [value.strip() for name, _, value in pairs if name.strip() == self.options.cookie]


async def _answer(
    send: Send, status: int, sentence: str, headers: dict[str, str] | None = None
) -> None:
    body = f"{sentence}\n".encode()
    own = [(k.encode(), v.encode("latin-1")) for k, v in (headers or {}).items()]
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                *own,
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
                *_HEADERS,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
