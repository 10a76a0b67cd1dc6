"""Log lines: on the terminal as they are, in the version's `log.txt` with their times."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from darts_core.report.escape import plain_text

__all__ = ["configure_logging"]


class _Terminal(logging.StreamHandler):
    """Writes to whatever `sys.stderr` is at the time: progress bars and tests put another one there."""

    @property
    def stream(self) -> Any:
        """The current stderr."""
        return sys.stderr

    @stream.setter
    def stream(self, value: Any) -> None:
        """Nothing: the stream is looked up."""


class _File(logging.FileHandler):
    """Writes `log.txt`; a line that cannot be written (a full disk) is on the terminal all the same.

    What the stage itself cannot write ends it in a sentence; the log adds no traceback of its own.
    """

    def handleError(self, record: logging.LogRecord) -> None:
        """Nothing."""


class _Plain(logging.Formatter):
    """One line a record: what a message quotes of files and names steers no terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, without control characters."""
        return plain_text(super().formatMessage(record), limit=20_000)


def configure_logging(folder: Path | None = None) -> None:
    """Send `darts_core`'s log to stderr and, when given, to `folder/log.txt`; safe to call again."""
    log = logging.getLogger("darts_core")
    log.setLevel(logging.INFO)
    if not any(isinstance(handler, _Terminal) for handler in log.handlers):
        terminal = _Terminal()
        terminal.setFormatter(_Plain("%(message)s"))
        log.addHandler(terminal)
    if folder is None:
        return
    path = str((folder / "log.txt").resolve())
    for handler in list(log.handlers):
        if isinstance(handler, logging.FileHandler):
            if handler.baseFilename == path:
                return
            log.removeHandler(handler)
            handler.close()
    folder.mkdir(parents=True, exist_ok=True)
    file = _File(path, encoding="utf-8", delay=True)
    file.setFormatter(_Plain("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(file)
