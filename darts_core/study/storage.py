"""Where a study's trials are stored: a journal file, or SQLite/PostgreSQL by URL.

Optuna's own journal locks are files that outlive a killed holder for half a minute. Ours is the store's,
which the kernel releases with the process. A journal whose last line was torn by a kill makes Optuna
ignore everything appended later, so the tear is cut off on opening, under the lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from darts_core.credentials import masked, with_password
from darts_core.errors import TuneError
from darts_core.runlog import named_errors
from darts_core.store.locks import FileLock

__all__ = [
    "cut_torn_line",
    "open_storage",
    "study_lock",
]


class DatabaseLock:
    """A study's lock in its database server: for jobs and hosts that share nothing else.

    It belongs to one connection, so the server frees it when its holder dies.
    """

    def __init__(self, engine: Any, name: str) -> None:
        self._engine = engine
        self._key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The lock as a `with` block."""
        from sqlalchemy import text

        mysql = self._engine.dialect.name == "mysql"
        take = "SELECT GET_LOCK(:key, -1)" if mysql else "SELECT pg_advisory_lock(:key)"
        give = "SELECT RELEASE_LOCK(:key)" if mysql else "SELECT pg_advisory_unlock(:key)"
        key = {"key": str(self._key) if mysql else self._key}
        with self._engine.connect() as connection:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(text(take), key)
            try:
                yield
            finally:
                connection.execute(text(give), key)


def study_lock(folder: Path, url: str | None, name: str, storage: Any) -> FileLock | DatabaseLock:
    """The lock under which a study's books change: beside its journal or SQLite file, else in its server."""
    if url is None:
        return FileLock(folder / "study.lock")
    if url.startswith("sqlite"):
        path = storage.engine.url.database
        return FileLock(f"{Path(path).resolve()}.lock" if path else folder / "study.lock")
    return DatabaseLock(storage.engine, name)


class _JournalLock(FileLock):
    """The lock of a journal; whoever gets it first cuts what a killed writer left half written."""

    def __init__(self, journal: Path) -> None:
        super().__init__(journal.with_name(journal.name + ".lock"))
        self._journal = journal

    def acquire(
        self,
        timeout_seconds: float | None = None,
        *,
        stop: Callable[[], bool] | None = None,
        poll_seconds: float = 0.005,
    ) -> bool:
        if not super().acquire(timeout_seconds, stop=stop, poll_seconds=poll_seconds):
            return False
        if self._journal.exists() and not _ends_a_line(self._journal):
            cut_torn_line(self._journal)
        return True


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        if size == 0:
            return True
        stream.seek(size - 1)
        return stream.read(1) == b"\n"


def cut_torn_line(path: Path) -> int:
    """Cut an incomplete last line off a journal; the number of bytes cut. The caller holds the lock."""
    with path.open("r+b") as stream:
        content = stream.read()
        keep = content.rfind(b"\n") + 1
        # a power cut may also leave a whole line of zeros
        while keep:
            start = content.rfind(b"\n", 0, keep - 1) + 1
            try:
                json.loads(content[start : keep - 1])
                break
            except (ValueError, RecursionError):
                keep = start
        if keep < len(content):
            stream.truncate(keep)
            stream.flush()
            os.fsync(stream.fileno())
        return len(content) - keep


def open_storage(folder: Path, url: str | None = None) -> Any:
    """The Optuna storage of a study folder: `study.journal` in it, or the database at `url`.

    Raises:
        TuneError: the URL's kind is unknown, its driver is missing, or the database cannot be opened.
    """
    if url is not None:
        return _open_database(url)
    from optuna.storages import JournalStorage

    path = folder / "study.journal"
    folder.mkdir(parents=True, exist_ok=True)
    lock = _JournalLock(path)
    if path.exists():
        with lock.held():
            cut_torn_line(path)
    try:
        return JournalStorage(_backend(path, lock))
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise TuneError(
            f"{path} is damaged or no journal of a study ({type(error).__name__}: {str(error)[:200]}); "
            "restore it or use another version=."
        ) from error


def _backend(path: Path, lock: _JournalLock) -> Any:
    """Optuna's journal file; a write that fails leaves no torn line, to this process neither."""
    from optuna.storages.journal import JournalFileBackend

    class Journal(JournalFileBackend):
        _held: list[dict[str, Any]] | None = None

        @contextlib.contextmanager
        def together(self) -> Iterator[None]:
            """Write what is logged in the block as one; it is read back with what follows."""
            self._held = []
            try:
                yield
                logs = self._held
            finally:
                self._held = None
            self.append_logs(logs)

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            if self._held is not None:
                self._held += logs
                return
            text = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in logs)
            with lock.held(), named_errors(path):
                try:
                    with path.open("ab") as stream:
                        stream.write(text.encode())
                        stream.flush()
                        os.fsync(stream.fileno())
                except OSError:
                    with contextlib.suppress(OSError):
                        cut_torn_line(path)
                    raise

    return Journal(str(path), lock_obj=lock)  # type: ignore[arg-type]


def _open_database(url: str) -> Any:
    if not url.startswith(("sqlite:///", "postgresql://", "postgresql+", "mysql")):
        raise TuneError(
            f"The storage {masked(url)!r} is not understood; leave it out for a journal file, or give "
            "sqlite:///FILE or postgresql://USER@HOST/NAME."
        )
    try:
        from optuna.storages import RDBStorage
        from sqlalchemy import event
    except ImportError as error:
        raise TuneError(
            f"The storage {masked(url)} needs SQLAlchemy and alembic: pip install 'darts-core[sql]'."
        ) from error
    options: dict[str, Any] = {}
    if url.startswith("sqlite"):
        options = {"connect_args": {"timeout": 60}}
    full = with_password(url)
    try:
        storage = RDBStorage(full, engine_kwargs=options)
    except Exception as error:  # drivers raise their own kinds
        first = str(error).splitlines()[0].replace(full, str(masked(url)))
        # no `from`: the driver's own text may hold the password
        raise TuneError(f"The storage {masked(url)} cannot be opened ({first}).") from None
    if url.startswith("sqlite"):
        # a plain BEGIN takes the write lock late and then fails instead of waiting
        event.listen(storage.engine, "connect", _manual_transactions)
        event.listen(storage.engine, "begin", _begin_immediate)
        storage.engine.dispose()
    return storage


def _manual_transactions(connection: Any, _record: Any) -> None:
    connection.isolation_level = None


def _begin_immediate(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
