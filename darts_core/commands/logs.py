"""Log lines: on the terminal as they are, in the version's `log.txt` with their times."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

__all__ = ["configure_logging"]


def configure_logging(folder: Path | None = None) -> None:
    """Send `darts_core`'s log to stderr and, when given, to `folder/log.txt`; safe to call again."""
    log = logging.getLogger("darts_core")
    log.setLevel(logging.INFO)
    log.propagate = False
    if not any(type(handler) is logging.StreamHandler for handler in log.handlers):
        terminal = logging.StreamHandler(sys.stderr)
        terminal.setFormatter(logging.Formatter("%(message)s"))
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
    file = logging.FileHandler(path, encoding="utf-8", delay=True)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(file)
