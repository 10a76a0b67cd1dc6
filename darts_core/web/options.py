"""What `darts-core web` was told, checked."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from darts_core.errors import ConfigError
from darts_core.store.jobs import Store

__all__ = ["LIMIT_BYTES", "WebOptions"]

LIMIT_BYTES = 2**20
"""Bytes of a request's body that are read; a job file has a few thousand."""
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:]{2,45}\]")


@dataclass(frozen=True)
class WebOptions:
    """Where the page listens, what it shows, what it may start.

    Args:
        root: folder of all jobs.
        code: folders below which code of new jobs must lie; without one no job is made from new code.
        host: address to listen at.
        port: TCP port, 0 to 65535; 0 takes a free one.
        allowed_hosts: further names by which browsers may address the page (behind a proxy).
        read_only: nothing is started or changed.
        token: secret that every request needs.

    Raises:
        ConfigError: a folder of code is missing, or the port or a name is none.
    """

    root: Path
    code: tuple[Path, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8420
    allowed_hosts: tuple[str, ...] = ()
    read_only: bool = False
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port {self.port} is no port; use 0 (any free one) to 65535.")
        for folder in self.code:
            if not folder.is_dir():
                raise ConfigError(f"--code {folder} is no folder; name the folder of your code.")
        for name in self.allowed_hosts:
            if not _HOST.fullmatch(name):
                raise ConfigError(
                    f"--allow-host {name[:80]!r} is no host name; write for example nas.example.org."
                )

    @property
    def store(self) -> Store:
        """The store of the jobs shown."""
        return Store(self.root)

    @property
    def cookie(self) -> str:
        """The cookie's name; cookies are shared by all ports of a host, so it names ours."""
        return f"darts_core_{self.port}"

    @property
    def hosts(self) -> frozenset[str]:
        """Host names, without port, by which the page may be addressed."""
        own = {"127.0.0.1", "localhost", "[::1]"}
        if self.host not in ("0.0.0.0", "::"):
            own.add(f"[{self.host}]" if ":" in self.host else self.host)
        return frozenset(name.lower() for name in (*own, *self.allowed_hosts))

    def code_folder(self, text: str) -> Path:
        """The folder that a form names, checked to lie below one of `--code`.

        Raises:
            ConfigError: it does not, or is no folder.
        """
        if not self.code:
            raise ConfigError(
                "This page was started without --code DIR, so it makes no job from new code; start it "
                "again with darts-core web --code DIR."
            )
        roots = [folder.resolve() for folder in self.code]
        path = Path(text).expanduser()
        found = (path if path.is_absolute() else roots[0] / path).resolve()
        if not any(found.is_relative_to(root) for root in roots) or not found.is_dir():
            known = ", ".join(str(root) for root in roots)
            raise ConfigError(f"The code folder {text[:200]!r} is no folder below {known}.")
        return found
