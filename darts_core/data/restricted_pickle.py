"""Reading the pickles of CIFAR's python version without letting them run anything.

A pickle may name any function and have it called. These files need three: a dtype, an array, and
the call that rebuilds the array. Each of those names is answered with a small stand-in of ours that
holds plain values; every other name is refused. The stand-ins admit arrays of bytes only, so numpy
itself never sees a value from the file other than the bytes and a checked shape.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from darts_core.errors import DataError
from darts_core.reading import read_bytes

__all__ = ["encode_latin1", "read_pickle"]


# the largest batch file of CIFAR has 154 MB
_MAX_BYTES = 2**29
# a batch file needs ten; tuples of tuples of one tuple cost time beyond any bound to compare
_MAX_TUPLES = 32


class _Dtype:
    """Stands in for numpy.dtype: admits unsigned bytes only."""

    def __init__(self, code: Any, *_: Any) -> None:
        text = code.decode("ascii") if isinstance(code, bytes) else code
        if text not in ("u1", "|u1", "uint8", "b"):
            raise pickle.UnpicklingError(
                f"an array of dtype {text!r}, where only bytes are allowed"
            )

    def __setstate__(self, state: Any) -> None:
        """Alignment and byte order mean nothing for single bytes."""


class _Array:
    """Stands in for numpy.ndarray: a checked shape and the bytes."""

    values: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, column_major, data = state
        self.values = _as_array(data, dtype, shape, "F" if column_major else "C")


def _as_array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes | bytearray):
        raise pickle.UnpicklingError("an array that is not made of bytes")
    sizes = tuple(shape)
    if len(sizes) > 4 or not all(isinstance(size, int) and size >= 0 for size in sizes):
        raise pickle.UnpicklingError(f"an array of shape {sizes!r}")
    if math.prod(sizes) != len(data):
        raise pickle.UnpicklingError(f"{len(data)} bytes for an array of shape {sizes!r}")
    return np.frombuffer(bytes(data), np.uint8).reshape(sizes, order="F" if order == "F" else "C")


def _reconstruct(_kind: Any, _shape: Any, _code: Any) -> _Array:
    return _Array()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.values = _as_array(data, dtype, shape, order)
    return array


def encode_latin1(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes, as Python 3 writes them into old pickles.

    Raises:
        UnpicklingError: anything else.
    """
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("a text encoding other than latin1")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): encode_latin1,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"the name {module}.{name}, which these files never hold"
            ) from None


def _check_size(packed: bytes) -> None:
    """Refuse the instructions by which a few bytes take any memory or time."""
    tuples = 0
    for opcode, argument, _ in pickletools.genops(packed):
        tuples += "TUPLE" in opcode.name or opcode.name == "FROZENSET"
        if tuples > _MAX_TUPLES:
            raise pickle.UnpicklingError(f"more than {_MAX_TUPLES} tuples")
        if "PUT" in opcode.name and isinstance(argument, int) and argument > len(packed):
            raise pickle.UnpicklingError(f"a place {argument} beyond the file")


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a CIFAR batch file: text keys; numpy bytes, lists, texts as values.

    Raises:
        DataError: the file is damaged, or asks for anything but the arrays of such files.
    """
    packed = read_bytes(path, limit=_MAX_BYTES)
    try:
        _check_size(packed)
        content = _Reader(io.BytesIO(packed), encoding="bytes").load()
    except Exception as error:  # a damaged pickle may fail with nearly every built-in exception
        if isinstance(error, pickle.UnpicklingError):
            reason = f"is damaged: it holds {error}. Nothing of it was run"
        else:
            reason = f"is truncated ({type(error).__name__}: {error})"
        raise DataError(
            f"{path} is not a CIFAR batch file or {reason}; fetch the data set's python version "
            "again."
        ) from error
    if not isinstance(content, dict):
        raise DataError(
            f"{path} holds a {type(content).__name__}; a CIFAR batch file holds a dictionary."
        )
    return {_text(key): _plain(value) for key, value in content.items()}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _plain(value: Any) -> Any:
    return value.values if isinstance(value, _Array) else value
