"""A study's database: how it is connected to, and the lock under which its books change.

No connection is kept between two pieces of work. A worker holds one for the milliseconds of a claim, a
report or the end of a trial, a second one while the beat of its lease falls into these, and none while its
trial runs; the workers of one process together never more than four. Where the server has no room, or is
away, it is asked again after a while; so far more workers than `max_connections` take turns.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from darts_core.credentials import masked, with_password
from darts_core.errors import TuneError, first_line

__all__ = ["Database", "lost", "open_database"]

log = logging.getLogger("darts_core")

Result = TypeVar("Result")

_FULL = ("too many clients", "connection slots", "too many connections")
_AWAY = (
    "refused", "starting up", "shutting down", "recovery mode", "not yet accepting", "timeout expired",
    "timed out", "unreachable", "no route", "closed the connection", "reset by peer",
)  # fmt: skip
# so that a host that is cut off is noticed; what the URL says goes first
_LIBPQ = {
    "connect_timeout": 10, "keepalives_idle": 20, "keepalives_interval": 5, "keepalives_count": 4,
    "tcp_user_timeout": 60_000,
}  # fmt: skip
# and so that the server notices it too: who is cut off with the study's lock must not keep it for hours
_OF_SERVER = (
    "-c tcp_keepalives_idle=20 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=4 "
    "-c tcp_user_timeout=60000"
)
# a pooler that does not pass it on says so in these words
_NOT_PASSED_ON = "startup parameter"
# more than this is said when a study begins
_CLOCK_SECONDS, _ANSWER_SECONDS = 30.0, 0.1
# the server is asked again for so long, with pauses that grow to the longer one
_PATIENCE_SECONDS = 300.0
_PAUSES_SECONDS = (0.02, 2.0)
# a process that holds many workers (of a cluster, as threads) uses so many connections at once
_ROOM = threading.BoundedSemaphore(4)
# a piece of work that lost its connection on the way is done again
_TIMES = 5
# what to install, and the name in a URL: without one SQLAlchemy 2.0 takes psycopg2 and MySQLdb
_DRIVERS = {"postgresql": ("'darts-core[sql]'", "psycopg"), "mysql": ("pymysql", "pymysql")}


def open_database(url: str) -> Any:
    """The Optuna storage at a URL.

    Raises:
        TuneError: the URL's kind is unknown, its driver is missing, or the database cannot be opened.
    """
    if not url.startswith(("sqlite:///", "postgresql://", "postgresql+", "mysql")):
        raise TuneError(
            f"The storage {masked(url)!r} is not understood; leave it out for a journal file, or give "
            "sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME."
        )
    try:
        from optuna.storages import RDBStorage
        from sqlalchemy import event
    except ImportError as error:
        raise TuneError(
            f"The storage {masked(url)} needs SQLAlchemy and alembic: pip install 'darts-core[sql]'."
        ) from error
    full = with_password(url)
    try:
        if url.startswith("sqlite"):
            storage = RDBStorage(full, engine_kwargs={"connect_args": {"timeout": 60}})
        else:
            storage = _server(RDBStorage, full)
    except TuneError:
        raise
    except Exception as error:  # drivers raise their own kinds
        first = first_line(error).replace(full, str(masked(url)))
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


def _server(kind: Any, url: str) -> Any:
    """A storage in a server, which keeps no connection open.

    Raises:
        TuneError: the driver that the URL asks for is not installed.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.pool import NullPool

    parsed = make_url(url)
    family: Any = parsed.get_dialect()
    try:
        dialect = family(dbapi=family.import_dbapi())
    except ImportError as error:
        backend = "postgresql" if parsed.get_backend_name() == "postgresql" else "mysql"
        package, name = _DRIVERS[backend]
        raise TuneError(
            f"The storage {masked(url)} needs a driver that is not installed ({error}); pip install {package}"
            f" and let the URL begin with {backend}+{name}://."
        ) from None
    arguments, options = dialect.create_connect_args(parsed)
    if dialect.driver.startswith("psycopg"):
        options = {**_LIBPQ, "options": _OF_SERVER, **options}

    def connected() -> Any:
        try:
            return dialect.connect(*arguments, **options)
        except Exception as error:  # drivers raise their own kinds
            if _NOT_PASSED_ON not in str(error) or options.pop("options", None) is None:
                raise
            return dialect.connect(*arguments, **options)

    connect = _Patient(connected)
    settings = {"poolclass": NullPool, "creator": connect}
    with _ROOM:
        storage = _opened(lambda: kind(url, engine_kwargs=settings))
    storage.patient = connect
    return storage


def _opened(open_it: Callable[[], Any]) -> Any:
    """What `open_it()` makes; again where another host has made the tables meanwhile."""
    from sqlalchemy.exc import IntegrityError, ProgrammingError

    for _ in range(_TIMES - 1):
        try:
            return open_it()
        except (IntegrityError, ProgrammingError):
            time.sleep(_PAUSES_SECONDS[0])
    return open_it()


class _Patient:
    """Opens connections; asks again where the server is full or, once it has been there, away."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._been_there = False
        # not the common generator: a study's draws must not depend on how full a server is
        self._chance = random.Random()
        self.back: Callable[[], None] = lambda: None

    def __call__(self) -> Any:
        end, pause, reason = time.monotonic() + _PATIENCE_SECONDS, _PAUSES_SECONDS[0], ""
        while True:
            try:
                connection = self._connect()
                break
            except Exception as error:  # drivers raise their own kinds
                text = str(error).lower()
                known = (*_FULL, *_AWAY) if self._been_there else _FULL
                if not any(words in text for words in known) or time.monotonic() > end:
                    raise
                if not reason:
                    reason = "is full" if any(words in text for words in _FULL) else "is away"
                    log.info(
                        "the database's server %s; it is asked again until there is room", reason
                    )
            time.sleep(pause * self._chance.uniform(0.5, 1.5))
            pause = min(2 * pause, _PAUSES_SECONDS[1])
        if reason == "is away":
            self.back()
        self._been_there = True
        return connection


def lost(error: BaseException | None) -> bool:
    """Whether an error means that the connection or the server went away."""
    try:
        from sqlalchemy.exc import InterfaceError, OperationalError, PendingRollbackError
    except ImportError:  # a journal needs none
        return False
    while error is not None:
        # the last kind is what the next statement on such a connection meets
        if isinstance(error, (OperationalError, InterfaceError, PendingRollbackError)):
            return True
        error = error.__cause__ or error.__context__
    return False


class Database:
    """A study's books in a database server: one connection for all that a thread does at once.

    Args:
        storage: of `open_database`.
        name: of the study.
        back: called when the server is back after it was away.
    """

    def __init__(self, storage: Any, name: str, back: Callable[[], None]) -> None:
        self._storage = storage
        storage.patient.back = back
        self._key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
        self._mine = threading.local()

    @contextlib.contextmanager
    def connected(self) -> Iterator[Any]:
        """One connection for what this thread does in the block, the storage's own work included."""
        mine = getattr(self._mine, "connection", None)
        if mine is not None:
            yield mine
            return
        sessions = self._storage.scoped_session
        sessions.remove()
        with _ROOM, self._storage.engine.connect() as connection:
            self._mine.connection = connection
            try:
                sessions(bind=connection)
                yield connection
            finally:
                self._mine.connection = None
                sessions.remove()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The study's lock, on the connection that does the work: the server frees it with that."""
        from sqlalchemy import text
        from sqlalchemy.exc import DBAPIError

        mysql = self._storage.engine.dialect.name == "mysql"
        take = "SELECT GET_LOCK(:key, -1)" if mysql else "SELECT pg_advisory_lock(:key)"
        give = "SELECT RELEASE_LOCK(:key)" if mysql else "SELECT pg_advisory_unlock(:key)"
        key = {"key": str(self._key) if mysql else self._key}
        with self.connected() as connection:
            connection.execute(text(take), key)
            connection.rollback()  # the lock is not the transaction's
            try:
                yield
            finally:
                # a connection that was lost has let go of it
                with contextlib.suppress(DBAPIError):
                    connection.execute(text(give), key)
                    connection.rollback()

    def look(self) -> None:
        """Say what of the server is not as one takes it for granted: another clock, slow answers."""
        from sqlalchemy import text

        mysql = self._storage.engine.dialect.name == "mysql"
        clock = "UNIX_TIMESTAMP(NOW(6))" if mysql else "EXTRACT(EPOCH FROM clock_timestamp())"
        # as long as what the books ask and are answered
        question = text(f"SELECT {clock}, REPEAT(' ', 4000)")
        with self.connected() as connection:
            began = time.perf_counter()
            there = float(connection.execute(question).one()[0])
            took = time.perf_counter() - began
            connection.rollback()
        ahead = time.time() - took / 2 - there
        if abs(ahead) > _CLOCK_SECONDS:
            log.warning(
                "this host's clock is %.3g minutes %s the database's; who runs which trial does not depend "
                "on it, but times in the results are those of each host",
                abs(ahead) / 60,
                "ahead of" if ahead > 0 else "behind",
            )
        if took > _ANSWER_SECONDS:
            log.warning(
                "the database answers slowly (%.0f ms for 4 kB); a trial asks some forty times, and others "
                "wait while its claim and its end hold the study's lock",
                1000 * took,
            )

    def run(self, step: Callable[[], Result]) -> Result:
        """`step()` on one connection; done again where that is lost, so it must bear to be.

        Raises:
            Exception: what `step` raises; the connection is lost time after time.
        """
        if getattr(self._mine, "connection", None) is not None:
            return step()
        for turn in range(_TIMES):
            try:
                with self.connected():
                    return step()
            except Exception as error:  # drivers raise their own kinds
                if turn == _TIMES - 1 or not lost(error):
                    raise
                log.warning(
                    "the connection to the database was lost (%s); what it was for is done again",
                    first_line(error.__cause__ or error)[:200],
                )
                time.sleep(_PAUSES_SECONDS[0])
        raise AssertionError("unreachable")
