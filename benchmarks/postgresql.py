"""A PostgreSQL server on loopback in a folder of its own, run as another user where this runs as root."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PASSWORD = "se:cret"
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Server:
    """A running server: its URL, and how to stop and start it again."""

    url: str
    pid_file: Path
    stop: Callable[[], None]
    start: Callable[[], None]

    @property
    def pid(self) -> int:
        """Of its first process."""
        return int(self.pid_file.read_text(encoding="utf-8").split()[0])

    def url_at(self, address: str) -> str:
        """The URL for who reaches it at another address."""
        return self.url.replace(_LOOPBACK, address)


def binaries() -> Path | None:
    """The folder of the server's programs; None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = str(found[-1]) if found else shutil.which("initdb")
    return None if initdb is None else Path(initdb).parent


def why_not() -> str | None:
    """The reason why no server can be started here, or None."""
    if binaries() is None:
        return "PostgreSQL's server is not installed"
    if os.getuid() == 0 and _other_user() is None:
        return "PostgreSQL does not run as root, and there is no other user"
    return None


def _other_user() -> pwd.struct_passwd | None:
    return next((u for u in pwd.getpwall() if u.pw_name in ("postgres", "nobody")), None)


def _free_port() -> int:
    with socket.socket() as server:
        server.bind((_LOOPBACK, 0))
        return int(server.getsockname()[1])


@contextlib.contextmanager
def postgresql_server(addresses: Sequence[str] = (), **settings: str) -> Iterator[Server]:
    """A fresh server; it ends with the block.

    Args:
        addresses: of this machine, beside loopback, at which it answers their own networks.
        settings: of the server, such as `max_connections="100"`; `fsync` is off where it is not named.
    """
    programs = binaries()
    assert programs is not None
    base = Path(tempfile.mkdtemp(prefix="darts-postgresql-"))
    user: dict[str, Any] = {}
    secret = base / "password"
    secret.write_text(PASSWORD, encoding="utf-8")
    if os.getuid() == 0:
        other = _other_user()
        assert other is not None
        for path in (base, secret):
            os.chown(path, other.pw_uid, other.pw_gid)
        user = {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
    folder, port = base / "data", _free_port()

    def run(*command: object) -> None:
        subprocess.run([str(c) for c in command], check=True, capture_output=True, cwd=base, **user)

    known = ("-U", "darts", "-A", "scram-sha-256", f"--pwfile={secret}")
    run(programs / "initdb", "-D", folder, *known)
    with (folder / "pg_hba.conf").open("a", encoding="utf-8") as stream:
        stream.write("host all all samenet scram-sha-256\n" if addresses else "")
    chosen = {"listen_addresses": ",".join([_LOOPBACK, *addresses])}
    chosen |= {"unix_socket_directories": str(base), "fsync": "off"}
    options = " ".join(f"-c {name}={value}" for name, value in {**chosen, **settings}.items())

    def start() -> None:
        how = ("-w", "-l", base / "log", "-o", f"-p {port} {options}", "start")
        run(programs / "pg_ctl", "-D", folder, *how)

    def stop() -> None:
        run(programs / "pg_ctl", "-D", folder, "-m", "immediate", "stop")

    start()
    try:
        url = f"postgresql+psycopg://darts:{PASSWORD}@{_LOOPBACK}:{port}/postgres"
        yield Server(url, folder / "postmaster.pid", stop, start)
    finally:
        if (folder / "postmaster.pid").exists():
            stop()
        shutil.rmtree(base, ignore_errors=True)
