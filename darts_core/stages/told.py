"""What the log says of data: once a command, though each stage of a pipeline reads them anew."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["each_told_once"]

# by its place: importing the package would load torch
_DATA = Path(__file__).parents[1] / "data"


@contextmanager
def each_told_once() -> Iterator[None]:
    """Within the block, a warning of `darts_core.data` that was logged in the same words is left out."""
    told: set[str] = set()

    def new(record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING or Path(record.pathname).parent != _DATA:
            return True
        text = record.getMessage()
        fresh = text not in told
        told.add(text)
        return fresh

    log = logging.getLogger("darts_core")
    log.addFilter(new)
    try:
        yield
    finally:
        log.removeFilter(new)
