"""What a program prints, as a terminal shows it: progress bars that redraw a line leave its last state.

Standard library only, see contract.py.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

__all__ = ["Terminal"]

MAX_LINE_CHARACTERS = 2**20
_ROWS = 50  # how far up a program can still redraw
_CONTROL = re.compile(r"(\r|\n|\x08+|\x1b\[[0-9;?]*[A-Za-z])")
_CUT_ESCAPE = re.compile(r"\x1b(\[[0-9;?]*)?$")


class Terminal:
    r"""Turns bytes into the lines that a person would read.

    `\r` starts the line over, a backspace steps back, colours are dropped, and a line to which the
    program moves up again (nested bars) is given once more only if it has changed. Unlike on a screen,
    the tail of a longer earlier state does not stick out behind a shorter one (`99` over `100` is no
    `990`), and a bar that wipes itself away at its end is read as it was before.
    """

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._rest = ""
        self._rows: dict[int, str] = {}
        self._given: dict[int, str] = {}
        self._wiped: dict[int, str] = {}
        self._row = self._column = 0
        self._over = False  # the next text starts the line over

    def feed(self, raw: bytes) -> Iterator[str]:
        """The lines that these bytes complete."""
        text = self._rest + self._decode(raw)
        cut = _CUT_ESCAPE.search(text)
        self._rest = text[cut.start() :] if cut else ""
        for part in _CONTROL.split(text[: cut.start()] if cut else text):
            if part == "\n":
                yield from self._give(self._row)
                self._move(self._row + 1)
                self._column, self._over = 0, False
            elif part == "\r":
                self._column, self._over = 0, True
            elif part.startswith("\x08"):
                self._column = max(0, self._column - len(part))
            elif part.startswith("\x1b["):
                self._escape(part)
            elif part:
                self._write(part)

    def finish(self) -> Iterator[str]:
        """What stands in lines that were never ended."""
        for row in sorted(self._rows):
            yield from (line for line in self._give(row) if line)

    def _give(self, row: int) -> Iterator[str]:
        text = self._rows.get(row, "")
        text = text if text.strip() else self._wiped.get(row, text)
        if self._given.get(row) != text:
            self._given[row] = text
            yield text.rstrip()

    def _move(self, row: int) -> None:
        self._row = max(row, min(self._rows, default=0))
        self._rows.setdefault(self._row, "")
        for old in [r for r in self._rows if r < self._row - _ROWS]:
            for table in (self._rows, self._given, self._wiped):
                table.pop(old, None)

    def _keep(self) -> None:
        if self._rows.get(self._row, "").strip():
            self._wiped[self._row] = self._rows[self._row]

    def _escape(self, code: str) -> None:
        number = int(code[2:-1]) if code[2:-1].isdigit() else 0
        if code[-1] == "A":
            self._move(self._row - max(1, min(number, _ROWS)))
        elif code[-1] == "K":
            self._keep()
            line = self._rows.get(self._row, "")
            # 0 wipes to the end of the line, 1 to its beginning, 2 all of it
            left = (
                "" if number == 2 else " " * self._column if number == 1 else line[: self._column]
            )
            self._rows[self._row] = left + (line[self._column :] if number == 1 else "")

    def _write(self, text: str) -> None:
        line = self._rows.get(self._row, "")
        if self._over:
            self._keep()
            line, self._over = "", False
        start, end = self._column, self._column + len(text)
        self._rows[self._row] = (line[:start].ljust(start) + text + line[end:])[
            :MAX_LINE_CHARACTERS
        ]
        self._column = min(end, MAX_LINE_CHARACTERS)
