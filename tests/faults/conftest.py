"""A PostgreSQL server of the tests' own."""

from __future__ import annotations

import pytest

from benchmarks.postgresql import postgresql_server, why_not


@pytest.fixture(scope="session")
def start_postgresql():
    """`postgresql_server`; the test is left out where PostgreSQL or its driver is not installed."""
    pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
    reason = why_not()
    if reason:
        pytest.skip(reason)
    return postgresql_server


@pytest.fixture(scope="session")
def postgresql(start_postgresql):
    """The URL of a fresh server."""
    with start_postgresql() as server:
        yield server.url


@pytest.fixture(params=["journal", "sqlite", "postgresql"])
def storage(request, tmp_path):
    """A study's storage of each kind: None for a journal, else a URL."""
    if request.param == "journal":
        return None
    if request.param == "sqlite":
        pytest.importorskip("sqlalchemy")
        return f"sqlite:///{tmp_path}/study.db"
    return request.getfixturevalue("postgresql")
