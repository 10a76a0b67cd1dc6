"""A SQLite index over the run folders, so that listing many jobs is quick. The folders are the truth.

Writers take the write lock at once (BEGIN IMMEDIATE), which plain BEGIN does not, so that many
processes wait for each other instead of failing. No WAL: it does not work on network mounts.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from darts_core.errors import JobError
from darts_core.store.jobs import LIVE, JobStore, Version
from darts_core.store.locks import file_lock
from darts_core.study.results import best_row, objectives, read_rows, row_values, search_rows

__all__ = ["forget", "index_rows", "reindex", "update_index"]

_COLUMNS = (
    "job", "version", "state", "description", "parent", "created", "started", "ended", "message", "metric",
    "value",
)  # fmt: skip
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS versions (job TEXT, version TEXT, state TEXT, description TEXT, "
    "parent TEXT, created REAL, started REAL, ended REAL, message TEXT, metric TEXT, value REAL, "
    "PRIMARY KEY (job, version))"
)


def _path(store: JobStore) -> Path:
    return store.root / ".jobs.sqlite"


@contextlib.contextmanager
def _write(store: JobStore) -> Iterator[sqlite3.Connection]:
    store.root.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(_path(store), timeout=60, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_SCHEMA)
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    finally:
        connection.close()


def _row(store: JobStore, version: Version) -> tuple[Any, ...]:
    record, state = version.record(), version.state_record()
    metric = value = None
    with contextlib.suppress(JobError):
        goals = objectives(version.path)
        best = best_row(search_rows(read_rows(version.path)), goals)
        values = row_values(best, goals) if best is not None else None
        metric, value = goals[0]["metric"], values[0] if values else None
    return (
        version.job, version.name, version.state(), store.job_record(version.job).get("description", ""),
        record.get("parent"), record.get("created"), state.get("started"), state.get("ended"),
        state.get("message"), metric, value,
    )  # fmt: skip


def _insert(connection: sqlite3.Connection, row: tuple[Any, ...]) -> None:
    marks = ", ".join("?" * len(_COLUMNS))
    connection.execute(
        f"INSERT OR REPLACE INTO versions ({', '.join(_COLUMNS)}) VALUES ({marks})", row
    )


def update_index(store: JobStore, version: Version) -> None:
    """Bring one version's row up to date."""
    try:
        row = _row(store, version)
        with _write(store) as connection:
            _insert(connection, row)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise JobError(f"The index {_path(store)} cannot be written ({error}).") from error
        reindex(store)


def forget(store: JobStore, job: str, version: str | None = None) -> None:
    """Take a job, or one version, out of the index."""
    try:
        with _write(store) as connection:
            if version is None:
                connection.execute("DELETE FROM versions WHERE job = ?", (job,))
            else:
                connection.execute(
                    "DELETE FROM versions WHERE job = ? AND version = ?", (job, version)
                )
    except sqlite3.DatabaseError:
        reindex(store)


def reindex(store: JobStore) -> int:
    """Rebuild the index from the folders; returns the number of versions."""
    rows = []
    for job in store.jobs():
        for version in store.versions(job):
            # a version that is deleted meanwhile is left out
            with contextlib.suppress(JobError):
                rows.append(_row(store, version))
    with file_lock(store.root / ".locks" / "reindex.lock"):
        try:
            _replace(store, rows)
        except sqlite3.OperationalError as error:
            raise JobError(f"The index {_path(store)} cannot be written ({error}).") from error
        except sqlite3.DatabaseError:
            # not a database any more: it is only an index
            _path(store).unlink(missing_ok=True)
            _replace(store, rows)
    return len(rows)


def _replace(store: JobStore, rows: list[tuple[Any, ...]]) -> None:
    with _write(store) as connection:
        connection.execute("DROP TABLE IF EXISTS versions")
        connection.execute(_SCHEMA)
        for row in rows:
            _insert(connection, row)


def _read(store: JobStore) -> list[dict[str, Any]] | None:
    if not _path(store).is_file():
        return None
    connection = sqlite3.connect(f"file:{_path(store)}?mode=ro", timeout=60, uri=True)
    try:
        found = connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM versions").fetchall()
    except sqlite3.DatabaseError:
        return None
    finally:
        connection.close()
    return [dict(zip(_COLUMNS, row, strict=True)) for row in found]


def _on_disk(store: JobStore, jobs: Sequence[str]) -> list[tuple[str, str]]:
    """Job and version of every version's folder, without reading what is in it."""
    return [
        (job, path.parent.name)
        for job in jobs
        for path in store.job_folder(job).glob("V*/version.json")
        if not path.parent.is_symlink()
    ]


def index_rows(store: JobStore) -> list[dict[str, Any]]:
    """One row a version with its state as of now; the index is rebuilt when it misses something."""
    for _ in range(2):
        rows = _read(store)
        jobs = store.jobs()
        if not jobs:
            return []
        indexed = {(row["job"], row["version"]) for row in rows or []}
        if rows is not None and indexed.issuperset(_on_disk(store, jobs)):
            break
        reindex(store)
    fresh = []
    for row in rows or []:
        version = Version(store.root / row["job"] / row["version"])
        if row["job"] not in jobs or not (version.path / "version.json").exists():
            continue
        if row["state"] in LIVE or row["state"] == "interrupted":
            with contextlib.suppress(JobError):
                row = dict(zip(_COLUMNS, _row(store, version), strict=True))
        fresh.append(row)
    return sorted(fresh, key=lambda row: (row["job"], row["version"]))
