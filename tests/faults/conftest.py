"""A PostgreSQL server of the tests' own, on loopback, run as another user where the tests run as root."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).parent if initdb else None


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.fixture(scope="session")
def postgresql():
    """The URL of a fresh server; the test is left out where PostgreSQL or its driver is not installed."""
    pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL's server is not installed")
    # not below pytest's own folder, which other users may not enter
    base = Path(tempfile.mkdtemp(prefix="darts-postgresql-"))
    user = {}
    if os.getuid() == 0:
        other = next((u for u in pwd.getpwall() if u.pw_name in ("postgres", "nobody")), None)
        if other is None:
            pytest.skip("PostgreSQL does not run as root, and there is no other user")
        os.chown(base, other.pw_uid, other.pw_gid)
        user = {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
    folder, port = base / "data", _free_port()
    secret = base / "password"
    secret.write_text("se:cret")
    if user:
        os.chown(secret, user["user"], user["group"])

    def run(*command: object) -> None:
        subprocess.run(
            [str(part) for part in command], check=True, capture_output=True, cwd=base, **user
        )

    run(
        binaries / "initdb",
        "-D",
        folder,
        "-U",
        "darts",
        "-A",
        "scram-sha-256",
        f"--pwfile={secret}",
    )
    options = (
        f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={base} -c fsync=off"
    )
    run(binaries / "pg_ctl", "-D", folder, "-w", "-l", base / "log", "-o", options, "start")
    try:
        yield f"postgresql+psycopg://darts:se:cret@127.0.0.1:{port}/postgres"
    finally:
        run(binaries / "pg_ctl", "-D", folder, "-m", "immediate", "stop")
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(params=["journal", "sqlite", "postgresql"])
def storage(request, tmp_path):
    """A study's storage of each kind: None for a journal, else a URL."""
    if request.param == "journal":
        return None
    if request.param == "sqlite":
        pytest.importorskip("sqlalchemy")
        return f"sqlite:///{tmp_path}/study.db"
    return request.getfixturevalue("postgresql")
