"""How far a version is, shown in place while it runs: in a notebook or on a terminal, nothing elsewhere."""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

from darts_core.errors import DartsError
from darts_core.report.html import render
from darts_core.report.job_summary import seen_summary
from darts_core.report.progress import progress
from darts_core.report.tables import neutral, short, span
from darts_core.store.version import Version

__all__ = ["status_line", "watching"]

_SECONDS = 1.0


def status_line(version: Version) -> str:
    """State, progress, time left and best value in one line."""
    record, state = version.record(), version.state()
    parts = [f"{version.label}: {state}"]
    far = progress(version, record)
    if far is not None:
        parts.append(far.text)
        if far.seconds_left is not None and state == "running":
            parts.append(f"about {span(far.seconds_left)} left")
    known = seen_summary(version, state)
    if known.get("best") is not None:
        parts.append(f"{neutral(known['metric'])} {short(known['best'])}")
    return ", ".join(parts)


class _Line:
    """One line that is written over, where there is somebody to look at it."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._shell = _notebook()
        self._width = 0

    def show(self, text: str) -> None:
        """Write it in the place of the last one."""
        if self._shell is not None:
            page = self._shell.HTML(render("commands_line", text=text))
            if self._handle is None:
                self._handle = self._shell.display(page, display_id=True)
            else:
                self._handle.update(page)
        elif sys.stderr.isatty():
            sys.stderr.write("\r" + text.ljust(self._width))
            sys.stderr.flush()
            self._width = len(text)

    def end(self) -> None:
        """Leave the last line standing."""
        if self._shell is None and self._width:
            sys.stderr.write("\n")


def _notebook() -> Any:
    """IPython's display functions where a notebook's kernel runs us, else None."""
    shell = sys.modules.get("IPython")
    if (
        shell is None
        or shell.get_ipython() is None
        or "IPKernelApp" not in shell.get_ipython().config
    ):
        return None
    return importlib.import_module("IPython.display")


@contextlib.contextmanager
def watching(version: Version, *, shown: bool = True) -> Iterator[None]:
    """Show how far the version is until the block ends."""
    over, line = threading.Event(), _Line()

    def look() -> None:
        while not over.wait(_SECONDS):
            with contextlib.suppress(DartsError, OSError):
                line.show(status_line(version))

    thread = threading.Thread(target=look, daemon=True)
    if shown:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if shown:
            thread.join(10)
            with contextlib.suppress(DartsError, OSError):
                line.show(status_line(version))
            # of a terminal that was closed meanwhile nothing can be said, and nothing went wrong
            with contextlib.suppress(OSError):
                line.end()
