"""A text file whose next character is to be predicted."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from darts_core.data.source import RawData, check_memory, existing, register_source
from darts_core.errors import ConfigError, DataError
from darts_core.reading import regular_file

__all__ = ["load_text"]

_HOLDS = "a text file in UTF-8"
_MOST_CHARACTERS = 10_000


@register_source("text", description="a text file: the next character is predicted")
def load_text(path: Path | None = None, length: int = 64) -> RawData:
    """Windows of `length` characters that do not overlap; targets are the characters that follow.

    Each distinct character is a token, in the order of their code points. Splits are whole stretches of the
    text: its end is the test split, what stands before that the val split.

    Args:
        path: the file.
        length: T, characters a window, 2..65536.
    """
    if not 2 <= length <= 65536:
        raise ConfigError(f"data.length={length} is not allowed; choose 2..65536 characters.")
    path = existing(path, "text", _HOLDS)
    file = regular_file(path)
    check_memory(16 * file.stat().st_size, path)
    try:
        content = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}); needed is {_HOLDS}.") from error
    codes = np.frombuffer(content.encode("utf-32-le"), np.uint32)
    if len(codes) <= 10 * length:
        raise DataError(
            f"{path} holds {len(codes):,} characters; windows of data.length={length} need more than "
            f"{10 * length:,}. Use a longer text or a smaller length."
        )
    known, tokens = np.unique(codes, return_inverse=True)
    if len(known) > _MOST_CHARACTERS:
        raise DataError(
            f"{path} holds {len(known):,} different characters; at most {_MOST_CHARACTERS:,} are taken as "
            "tokens. Give token numbers in a .npz file instead."
        )
    if len(known) < 2:
        raise DataError(f"{path} holds one character only; there is nothing to predict.")
    count = (len(tokens) - 1) // length
    inputs = tokens[: count * length].reshape(count, length).astype(np.int32)
    targets = tokens[1 : count * length + 1].reshape(count, length).astype(np.int32)
    names = tuple(chr(code) for code in known)
    return RawData(inputs, targets, names, str(path), vocabulary=names, ordered=True)
