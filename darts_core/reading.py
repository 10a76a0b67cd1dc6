"""Reading files that others wrote: regular files, UTF-8, plain values, within limits, one kind of error.

A file from outside may be a pipe that never answers, a device without end, a few bytes that unfold to
gigabytes, or a text whose numbers and nesting no program of ours can use. Every reader of the project
begins here, so that each of them ends such a file in a sentence. Nothing in a file decides about types:
YAML dates stay texts, tags beyond plain values are refused.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
import re
import stat
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

from darts_core.errors import DartsError, DataError, ResumeError

__all__ = [
    "DAMAGE",
    "check_plain",
    "check_stored",
    "csv_rows",
    "finite",
    "is_number",
    "parse_json",
    "read_bytes",
    "read_json",
    "read_jsonl",
    "read_mapping",
    "read_text",
    "regular_file",
    "unusable",
    "why",
]

Kind = type[DartsError]
log = logging.getLogger("darts_core")

MAX_TEXT = 64 * 2**20
MAX_LINES = 512 * 2**20
MAX_YAML = 2 * 2**20
MAX_DEPTH = 64
# values after aliases are unfolded: a page of anchors can stand for more than any memory holds
MAX_VALUES = 500_000
# what a 64-bit field holds, signed or not; larger numbers overflow wherever they are used
_INT_LIMIT = 2**64
LONGEST_NUMBER = 80
# what the readers of packed and binary files (zip, gzip, npy, parquet, pickle) raise for damaged ones
DAMAGE = (
    OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, SyntaxError,
    RuntimeError, MemoryError, SystemError, struct.error, zlib.error, zipfile.BadZipFile,
    tokenize.TokenError,
)  # fmt: skip
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def regular_file(path: str | Path, error: Kind = DataError) -> Path:
    """`path` as a `Path`, if it is a regular file or a link to one.

    Opening a named pipe waits for a writer, some devices act when they are opened: neither happens.

    Raises:
        DartsError: of the kind `error`; nothing is there, it may not be reached, or is no regular file.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise error(f"There is no file {path}.") from None
    except (OSError, ValueError) as reason:
        raise error(f"{path} cannot be reached ({why(reason)}).") from None
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in _KINDS if test(mode)), "no regular file")
        raise error(f"{path} is {kind}; name a regular file.")
    return path


def check_stored(file: str | Path | BinaryIO) -> None:
    """Nothing, if `file` is an archive as torch writes it: its members as large as the file says.

    A packed member of a few bytes could unfold to gigabytes; torch packs none.

    Raises:
        ValueError: a member is packed.
        zipfile.BadZipFile: it is no archive.
    """
    with zipfile.ZipFile(file) as archive:
        packed = [m.filename for m in archive.infolist() if m.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise ValueError(f"the member {packed[0]!r} is compressed")


def read_bytes(path: str | Path, error: Kind = DataError, *, limit: int = MAX_TEXT) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises:
        DartsError: of the kind `error`; the file is absent, no regular one, unreadable or too large.
    """
    path = regular_file(path, error)
    try:
        with _opened(path) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise error(f"{path} is no regular file any more; name one.")
            content = stream.read(limit + 1)
    except OSError as reason:
        raise error(f"{path} cannot be read ({why(reason)}).") from None
    if len(content) > limit:
        raise error(f"{path} is larger than {limit:,} bytes, the most that is read of such a file.")
    return content


def _opened(path: Path) -> BinaryIO:
    # without waiting: the file may have become a pipe since it was looked at
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")


def read_text(path: str | Path, error: Kind = DataError, *, limit: int = MAX_TEXT) -> str:
    """The text of a UTF-8 file, whatever the locale; a byte order mark is left out.

    Raises:
        DartsError: of the kind `error`; as `read_bytes`, or the file is no UTF-8 text.
    """
    content = read_bytes(path, error, limit=limit)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        line = content.count(b"\n", 0, reason.start) + 1
        raise error(
            f"{path}, line {line}: byte 0x{content[reason.start]:02x} is no UTF-8 text; save the "
            "file as UTF-8."
        ) from None


def read_json(path: str | Path, error: Kind = ResumeError) -> Any:
    """The plain values of a JSON file.

    Raises:
        DartsError: of the kind `error`; the file is absent or damaged.
    """
    return parse_json(read_text(path, error), str(path), error)


def read_mapping(path: str | Path, error: Kind = ResumeError) -> dict[str, Any]:
    """The mapping in a JSON file.

    Raises:
        DartsError: of the kind `error`; the file is absent, damaged or holds another value.
    """
    content = read_json(path, error)
    if not isinstance(content, dict):
        raise error(
            f"{path} holds a {type(content).__name__} where a mapping is needed; it is damaged."
        )
    return content


def parse_json(text: str | bytes, name: str, error: Kind = ResumeError) -> Any:
    """The plain values of a JSON text that messages call `name`.

    Raises:
        DartsError: of the kind `error`; it is no JSON, names a key twice, nests more than 64 deep, or
            holds a number or text that nothing can use.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [key for key, _ in pairs]
            twice = next(key for key in names if names.count(key) > 1)
            raise ValueError(f"the key {twice[:80]!r} stands twice")
        return found

    try:
        value = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as reason:
        raise error(f"{name} is not valid JSON ({why(reason)}); it is damaged.") from None
    check_plain(value, name, error)
    return value


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file, one mapping a line; no rows where there is no file.

    A torn last line (a kill while writing) is left out; so is any other line that is no JSON mapping,
    with a warning that names the first.

    Raises:
        ResumeError: it is no regular file, or larger than 512 MiB.
    """
    path = Path(path)
    if not path.exists():
        return []
    lines = read_bytes(path, ResumeError, limit=MAX_LINES).decode("utf-8", "replace").split("\n")
    rows: list[dict[str, Any]] = []
    junk = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line, f"{path}, line {number}", ResumeError)
        except ResumeError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif number < len(lines):
            junk.append(number)
    if junk:
        log.warning("%s: left out %d damaged lines, the first is line %d", path, len(junk), junk[0])
    return rows


def check_plain(value: Any, name: str, error: Kind) -> None:
    """Refuse what later steps cannot write, print or compute with."""
    stack = [(value, 1)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, dict):
            inner = [*item, *item.values()]
        elif isinstance(item, (list, tuple)):
            inner = list(item)
        else:
            problem = unusable(item)
            if problem:
                raise error(f"{name} holds {problem}.")
            continue
        if depth > MAX_DEPTH:
            raise error(f"{name} nests values more than {MAX_DEPTH} deep; it is damaged.")
        stack += [(part, depth + 1) for part in inner]


def unusable(item: Any) -> str:
    """Why nothing of ours can use a number or text; empty where it can."""
    if isinstance(item, int) and not -_INT_LIMIT < item < _INT_LIMIT:
        return f"a whole number of more than 64 bits (about 2 to the {item.bit_length()})"
    if isinstance(item, str) and not item.isascii():
        try:
            item.encode()
        except UnicodeEncodeError:
            return f"half a character ({item[:40]!a}), which is no text"
    return ""


def csv_rows(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of a CSV or TSV text that messages call `name`; the header is the first.

    Raises:
        DataError: a cell is longer than 128 KiB, or a line holds a null character.
    """
    first = text.split("\n", 1)[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in first else ",")
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as reason:
            raise DataError(f"{name}, line {rows.line_num}: {why(reason)}.") from None
        yield rows.line_num, row


def why(reason: Any) -> str:
    """One short line about an error: its system's text, or its own without line breaks."""
    text = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    line = re.sub(r"\s+", " ", str(text)).strip()
    return line[:200] or type(reason).__name__


def is_number(value: Any) -> TypeGuard[float]:
    """Whether `value` is a number; a truth value is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def finite(value: Any) -> float | None:
    """`value` as a float when it is a finite number, else None (text, NaN, booleans, absent)."""
    return float(value) if is_number(value) and math.isfinite(value) else None
