"""`jobs suggest LOG`: the metrics a printed log holds, as `general.metrics` of a job file."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from darts_core.autosearch.terminal import Terminal
from darts_core.errors import JobError
from darts_core.reading import MAX_LINES, read_bytes
from darts_core.report.tables import neutral, render
from darts_core.store.jobs import Store
from darts_core.study.metric_names import less_is_better

__all__ = ["Suggestion", "log_lines", "suggest"]

_LINES, _CHARACTERS = 100_000, 10_000
_WORD = r"[A-Za-z_][\w@/.-]*"
# a name of one to four words (in a printed dict they stand in quotes), a separator, and a number that is not
# the start of something longer
_NAME = (
    rf"(?<![\w@.-])(?:(?:DEBUG|INFO|WARNING) )?({_WORD}(?: {_WORD}){{0,3}})"
    r"(['\"]?[ \t]*[=:][ \t]*|[ \t]+)"
)
_PAIR = re.compile(_NAME + r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w/:.]|-\d)")
# 1541/2000 (77%): the share counts
_SHARE = re.compile(_NAME + r"(\d+/\d+ ?\()\d+\.?\d*(?: ?%)")
_NUMBER = r"([-+.\deE]+)"
# a number behind one of these belongs to a sentence: "expects num_layers greater than 1"
_PROSE = {
    "than",
    "got",
    "is",
    "was",
    "at",
    "to",
    "of",
    "by",
    "with",
    "after",
    "about",
    "and",
    "or",
    "in",
    "for",
}
_COUNTERS = ("epoch", "step", "iter", "iteration", "batch", "trial", "line", "rank", "seed", "eta")


@dataclass(frozen=True)
class Suggestion:
    """A metric found in a log: its name, the pattern that finds it, and what the pattern found."""

    name: str
    regex: str
    mode: str
    lines: int
    first: float
    last: float


def _parts(words: str) -> list[str]:
    return [part for part in re.split(r"[\W_]+", words.lower()) if part]


def _pattern(words: str, separator: str, others: Iterable[str]) -> str:
    mark = separator.strip()
    between = rf"\s*{mark}\s*" if mark else r"\s+"
    if "/" in separator:
        between = rf"\s*{separator.partition('/')[0].strip()}\s*\d+/\d+ ?\("
    # `accuracy` is not `val accuracy`: where both are printed, no word may stand before the shorter
    alone = r"(?<![A-Za-z_] )" if any(other.endswith(f" {words}") for other in others) else ""
    # nor is `loss` what stands in `val/loss`
    longer = tuple(f"{sign}{words}" for sign in "@./-")
    begins = r"(?<![\w@./-])" if any(other.endswith(longer) for other in others) else r"\b"
    return rf"{alone}{begins}{re.escape(words)}{between}{_NUMBER}".replace("\\ ", " ")


def _values(pattern: re.Pattern[str], lines: Iterable[str]) -> list[float]:
    values = []
    for line in lines:
        # the last one of a line, as the zero-code mode reads it
        hits = pattern.findall(line)
        with contextlib.suppress(ValueError):
            values += [float(hits[-1])] if hits else []
    return values


def suggest(lines: Iterable[str]) -> list[Suggestion]:
    """Metrics in the lines of a log, most frequent first, in the order of their first appearance.

    Counters (epoch, step ...) are left out. Every pattern is tried on the same lines: the values
    stated are those that it finds.
    """
    kept = [line[:_CHARACTERS] for _, line in zip(range(_LINES), lines, strict=False)]
    found: dict[str, str] = {}
    for line in kept:
        shares = [(words, f"{separator}/") for words, separator, _ in _SHARE.findall(line)]
        for words, separator in [*_PAIR.findall(line), *shares]:
            parts = _parts(words)
            if (
                parts
                and parts[-1] not in _COUNTERS
                and parts[-1] not in _PROSE
                and len(words) <= 64
            ):
                found.setdefault(words, separator)
    result = []
    for words, separator in found.items():
        name = re.sub(r"\W+", "_", words, flags=re.ASCII).strip("_")[:64]
        regex = _pattern(words, separator, found)
        values = _values(re.compile(regex), kept)
        if values and re.match(r"[A-Za-z_]", name):
            mode = "min" if less_is_better(name) else "max"
            result.append(Suggestion(name, regex, mode, len(values), values[0], values[-1]))
    return sorted(result, key=lambda item: -item.lines)


def log_lines(raw: bytes) -> list[str]:
    """The lines of a printed log as a terminal shows them; `>` in PowerShell writes UTF-16."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raw = raw.decode("utf-16", "replace").encode()
    terminal = Terminal()
    return [*terminal.feed(raw), *terminal.finish()]


def run_suggest(store: Store, args: argparse.Namespace) -> int:
    """`jobs suggest`."""
    if args.log == "-":
        raw = sys.stdin.buffer.read()
    else:
        raw = read_bytes(args.log, JobError, limit=MAX_LINES)
    found = suggest(log_lines(raw))
    if not found:
        raise JobError(
            "No line holds a name and a number, such as 'accuracy 0.91' or 'loss=0.3'; write the "
            "pattern by hand: general.metrics: [{name: ..., regex: ...}]."
        )
    rows: list[dict[str, Any]] = [vars(item) for item in found]
    print(render(("name", "lines", "first", "last", "mode", "regex"), rows, args.form))
    if args.form == "text":
        print(
            "\nFor the job file (keep what you need; `mode` is a guess from the name):\ngeneral:\n  metrics:"
        )
        for item in found:
            quoted = neutral(item.regex, 500).replace("'", "''")
            print(f"    - {{name: {item.name}, regex: '{quoted}'}}")
    return 0
