"""Where a study's trials are stored: a journal file, or SQLite/PostgreSQL by URL.

Optuna's own journal locks are files that outlive a killed holder for half a minute. Ours is the store's,
which the kernel releases with the process. A journal whose last line was torn by a kill makes Optuna
ignore everything appended later, so the tear is cut off on opening, under the lock.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from darts_core.errors import TuneError
from darts_core.runlog import append_bytes
from darts_core.store.locks import FileLock
from darts_core.study.database import Database, open_database

__all__ = ["FileBooks", "cut_torn_line", "in_books", "open_storage", "study_books"]

Result = TypeVar("Result")


class FileBooks:
    """What guards books in a file: a lock beside it. Nothing is connected to."""

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path)

    def held(self) -> contextlib.AbstractContextManager[None]:
        """The lock as a `with` block."""
        return self._lock.held()

    def look(self) -> None:
        """Nothing: files have no clock of their own."""

    def run(self, step: Callable[[], Result]) -> Result:
        """`step()`."""
        return step()


def in_books(step: Callable[[Any], Result]) -> Callable[[Any], Result]:
    """A method without arguments of what has `books`, as one of their steps (`run`)."""

    @functools.wraps(step)
    def run(self: Any) -> Result:
        return cast("Result", self.books.run(lambda: step(self)))

    return run


def study_books(
    folder: Path, url: str | None, name: str, storage: Any, back: Callable[[], None]
) -> FileBooks | Database:
    """The lock under which a study's books change: beside its journal or SQLite file, else in its server.

    Args:
        folder: of the study.
        url: of its database; None for a journal.
        name: of the study.
        storage: of `open_storage`.
        back: called when a server is back after it was away.
    """
    if url is None:
        return FileBooks(folder / "study.lock")
    if url.startswith("sqlite"):
        path = storage.engine.url.database
        return FileBooks(Path(f"{Path(path).resolve()}.lock") if path else folder / "study.lock")
    return Database(storage, name, back)


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
        return open_database(url)
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
            with lock.held():
                append_bytes(path, text.encode())

    return Journal(str(path), lock_obj=lock)  # type: ignore[arg-type]
