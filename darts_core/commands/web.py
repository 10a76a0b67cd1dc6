"""`darts-core web`: the live page of all jobs."""

from __future__ import annotations

import argparse
from pathlib import Path

from darts_core.errors import ConfigError

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--root", default="runs", help="folder of all jobs (default: runs)")
    parser.add_argument(
        "--code",
        action="append",
        default=[],
        metavar="DIR",
        help="folder below which code of new jobs may lie (repeatable); without it no code is taken",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: this machine only)"
    )
    parser.add_argument(
        "--port", type=int, default=8420, help="port (default 8420); 0 takes a free one"
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="further name by which browsers may address the page, behind a proxy (repeatable)",
    )
    parser.add_argument(
        "--read-only", action="store_true", help="show everything, start and change nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C; returns the exit status."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"The live page needs {error.name}; install it with pip install 'darts-core[web]'."
        ) from None
    from darts_core.web.options import WebOptions
    from darts_core.web.server import serve

    return serve(
        WebOptions(
            root=Path(args.root),
            code=tuple(Path(text).expanduser() for text in args.code),
            host=args.host,
            port=args.port,
            allowed_hosts=tuple(args.allow_host),
            read_only=args.read_only,
        )
    )
