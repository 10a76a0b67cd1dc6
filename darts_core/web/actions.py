"""What the page starts: each a child process of its own, its command line and its words kept."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from darts_core.credentials import masked
from darts_core.errors import ConfigError
from darts_core.store import procs
from darts_core.web.verbs import Order

__all__ = ["Action", "Actions"]

_KEPT, _AT_ONCE = 200, 8
_SHOWN_BYTES = 64 * 1024


@dataclass(frozen=True)
class Action:
    """A command that was started, running or ended."""

    name: str
    verb: str
    words: tuple[str, ...]
    folder: Path
    shows: str
    process: subprocess.Popen[bytes]
    started: float

    @property
    def command_line(self) -> str:
        """As a person would type it; of a database's address without the password."""
        words = (str(masked(word)) for word in self.words)
        return shlex.join(["darts-core", *words])

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self.process.poll()

    @property
    def state(self) -> str:
        """running, succeeded or failed."""
        status = self.status
        return "running" if status is None else "succeeded" if status == 0 else "failed"

    @property
    def mark(self) -> str:
        """Differs when it has ended or printed more, however much that was already."""
        try:
            return f"{self.state}-{(self.folder / 'said').stat().st_size}"
        except OSError:
            return self.state

    def said(self) -> str:
        """The end of what it has printed."""
        try:
            with (self.folder / "said").open("rb") as stream:
                size = stream.seek(0, 2)
                stream.seek(max(0, size - _SHOWN_BYTES))
                return stream.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def job_file(self) -> str:
        """The job file it was given or has written; "" for none."""
        path = self.folder / "job.yaml"
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


class Actions:
    """The actions of this process; their files lie in a folder that goes with it."""

    def __init__(self) -> None:
        self.folder = _fresh()
        self._known: OrderedDict[str, Action] = OrderedDict()
        self._lock = threading.Lock()

    def start(self, verb: str, order: Order) -> Action:
        """Start a command.

        Raises:
            ConfigError: too many run already.
        """
        with self._lock:
            running = sum(action.status is None for action in self._known.values())
            if running >= _AT_ONCE:
                raise ConfigError(f"{running} actions run already; wait until one has ended.")
            if not self.folder.is_dir():  # old temporary files are swept under a page of many days
                self.folder = _fresh()
            name = uuid.uuid4().hex[:12]
            folder = self.folder / name
            folder.mkdir()
            for file, text in order.files.items():
                (folder / file).write_text(text, encoding="utf-8")
            words = tuple(word.replace("{folder}", str(folder)) for word in order.words)
            action = Action(
                name, verb, words, folder, order.shows, _start(words, folder), time.time()
            )
            self._known[name] = action
            self._forget()
        return action

    def start_after(self, name: str) -> Action:
        """Start for good what an action has tried: the same words and files without `--dry-run`.

        Raises:
            ConfigError: there was no such dry run, or it did not succeed.
        """
        tried = self.get(name)
        if tried is None or "--dry-run" not in tried.words or tried.status != 0:
            raise ConfigError("Start follows a dry run that succeeded; do that first.")
        words = tuple(word for word in tried.words if word != "--dry-run")
        # the words name the files of the dry run, which stay
        return self.start("create", Order(words, {}, tried.shows))

    def get(self, name: str) -> Action | None:
        """The action of that name."""
        return self._known.get(name)

    def newest(self) -> Sequence[Action]:
        """All that are kept, the newest first."""
        return list(self._known.values())[::-1]

    def _forget(self) -> None:
        for name in list(self._known):
            if len(self._known) <= _KEPT:
                return
            if self._known[name].status is not None:
                shutil.rmtree(self._known.pop(name).folder, ignore_errors=True)

    def close(self) -> None:
        """Remove the files; what runs goes on."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _fresh() -> Path:
    return Path(tempfile.mkdtemp(prefix="darts-core-web-"))


def _start(words: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "said").open("wb") as stream:
        return subprocess.Popen(
            [*procs.program("darts_core.cli"), *words],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
