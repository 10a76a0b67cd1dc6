"""Serving the page until Ctrl-C."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import replace
from typing import Any

from darts_core.errors import ConfigError
from darts_core.web.options import WebOptions

__all__ = ["serve"]


def _listen(options: WebOptions) -> socket.socket:
    """The socket to serve at; made here, so that a port in use is a sentence."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((options.host, options.port))
        # who opens the address as soon as it is printed waits instead of being refused
        found.listen(128)
    except OSError as error:
        found.close()
        raise ConfigError(
            f"Nothing can listen at {options.host}:{options.port} ({error.strerror}); use another --port "
            "(0 takes a free one)."
        ) from None
    return found


def serve(options: WebOptions) -> int:
    """Print the address and serve; returns the exit status."""
    import uvicorn

    from darts_core.web.app import make_app

    sock = _listen(options)
    options = replace(options, port=sock.getsockname()[1])
    name = "127.0.0.1" if options.host in ("0.0.0.0", "::") else options.host
    name = f"[{name}]" if ":" in name else name
    print(f"Jobs in {options.store.root}{' (read-only)' if options.read_only else ''}")
    print(f"Open  http://{name}:{options.port}/?token={options.token}", flush=True)
    config: Any = uvicorn.Config(
        make_app(options), log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=1, ws="none",
    )  # fmt: skip
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[sock])
    return 0
