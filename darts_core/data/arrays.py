"""Arrays from files: headers checked before values are read, and what their values must be.

Shapes: N samples, F features, C channels, H W height and width, T positions.
"""

from __future__ import annotations

import logging
import math
from typing import IO

import numpy as np
from numpy.lib import format as npy

from darts_core.data.source import check_memory
from darts_core.errors import DataError

__all__ = ["column", "group_numbers", "numbers", "read_array", "texts"]

log = logging.getLogger("darts_core")
# numbers of a table that are looked at, and what of its widest column's spread another one may have at least
_LOOKED_AT, _HIDDEN = 2**22, 1e-3
# numbers of groups up to this are counted from 0; of larger ones, such as those of patients, few are there
_MOST_COUNTED = 100_000
# so many values on each side are a picture, and so many times as many channels as positions are doubtful
_SIDE, _MANY = 8, 4
# samples that tell whether bytes are more than yes and no
_SOME = 100


def read_array(stream: IO[bytes], size_bytes: int, label: str) -> np.ndarray:
    """The array in the `.npy` format at the start of `stream`, of `size_bytes` bytes.

    Args:
        stream: at the beginning of the array.
        size_bytes: of the whole array with its header.
        label: how messages call it.

    Raises:
        DataError: it holds objects, or announces another size than it has.
    """
    version = npy.read_magic(stream)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise DataError(f"{label} has npy version {version}; save it again with numpy.")
    shape, column_major, dtype = readers[version](stream)
    if dtype.hasobject:
        raise DataError(
            f"{label} holds Python objects, which are never loaded; save plain numbers."
        )
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or stream.tell() + size != size_bytes:
        raise DataError(
            f"{label} announces shape {shape} ({size:,} bytes) in a member of {size_bytes:,} bytes; the file "
            "is damaged."
        )
    check_memory(size, label)
    data = stream.read(size)
    if len(data) != size:
        raise DataError(f"{label} is truncated; copy the file again.")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if column_major else "C")


def numbers(inputs: np.ndarray, label: str, layout: str = "auto") -> np.ndarray:
    """Inputs of any kind; rows of floats [N, F] become series of one channel [N, 1, F].

    Args:
        inputs: see the message below.
        label: how messages call them.
        layout: of images, "nhwc" or "nchw"; "auto" takes 1 or 3 at the end, and neither in the second place,
            for channels that stand last: no image is so narrow.

    Raises:
        DataError: they are no numbers, or of no known shape.
    """
    if inputs.dtype.kind not in "uifb" or inputs.ndim not in (2, 3, 4):
        raise DataError(
            f"{label} has dtype {inputs.dtype} and shape {inputs.shape}; needed are numbers "
            "[N,C,H,W] (images), [N,C,T] (series), [N,T] (whole: token numbers) or [N,F] (floats: features)."
        )
    if inputs.ndim == 2 and inputs.dtype.kind == "f":
        _tell_scales(inputs, label)
        return inputs[:, None]
    if layout == "auto" and inputs.ndim == 4 and inputs.shape[3] in (1, 3):
        layout = "nchw" if inputs.shape[1] in (1, 3) else "nhwc"
    if layout == "auto":
        _tell_layout(inputs, label)
    if inputs.ndim == 4 and layout == "nhwc":
        return np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))
    return np.ascontiguousarray(inputs)


def _tell_layout(inputs: np.ndarray, label: str) -> None:
    """A warning where the shape reads as ours and looks like another usual one."""
    channels, *rest = inputs.shape[1:]
    doubt = None
    if inputs.ndim == 4 and channels == rest[0] > rest[1] >= _SIDE:
        doubt = f"images of {channels} channels; if channels stand last: x.transpose(0, 3, 1, 2)"
    elif inputs.ndim == 3 and _may_be_grey(inputs):
        doubt = f"series of {channels} channels; grey images have one channel: x[:, None]"
    elif inputs.ndim == 3 and channels >= _MANY * rest[0] > _MANY:
        doubt = (
            f"series of {channels} channels and {rest[0]} positions; if positions stand first: "
            "x.transpose(0, 2, 1)"
        )
    if doubt is not None:
        log.warning("%s: shape %s is read as %s", label, inputs.shape, doubt)


def _may_be_grey(inputs: np.ndarray) -> bool:
    """Whether bytes [N, C, T] may be pictures: letters of which each is a channel are 0 and 1 alone."""
    if inputs.dtype != np.uint8 or min(inputs.shape[1:]) < _SIDE:
        return False
    return inputs.shape[1] == inputs.shape[2] or int(inputs[:_SOME].max(initial=0)) > 1


def _tell_scales(rows_NF: np.ndarray, label: str) -> None:
    """A warning where one column of a table hides the others: a row is normalised as one series."""
    some = rows_NF[:: rows_NF.size // _LOOKED_AT + 1].astype(np.float64)
    if not len(some) or not np.isfinite(some).all():  # refused later
        return
    spread = some.std(0)
    known = spread[(some != some[0]).any(0)]  # that of a constant may be rounding
    if len(known) > 1 and float(np.median(known)) < _HIDDEN * float(known.max()):
        log.warning(
            "%s: half of its columns vary by less than a thousandth of column %d (counted from 0), and all "
            "are normalised together, as a series is. Give each a scale of its own: "
            "x = (x - x.mean(0)) / (x.std(0) + 1e-9), or x[:, :, None] for a network of your own",
            label,
            int(spread.argmax()),
        )


def column(targets: np.ndarray) -> np.ndarray:
    """Targets in one column of whole numbers as a plain list of them: class numbers of [N, 1] are [N]."""
    whole = targets.dtype.kind in "uib"
    return targets[:, 0] if targets.ndim == 2 and targets.shape[1] == 1 and whole else targets


def texts(found: np.ndarray | None, label: str) -> tuple[str, ...]:
    """A list of texts; none where there is no array.

    Raises:
        DataError: it is something else.
    """
    if found is None:
        return ()
    if found.ndim != 1 or found.dtype.kind not in "US":
        raise DataError(f"{label} must be a list of texts, not {found.dtype} {found.shape}.")
    return tuple(str(name) for name in found.astype(str))


def group_numbers(
    found: np.ndarray | None, names: np.ndarray | None, label: str
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """(group of every sample as a number, names of the groups), from numbers or names.

    Raises:
        DataError: a group has no name, or they are neither numbers nor texts.
    """
    if found is None:
        return None, ()
    if found.ndim != 1 or found.dtype.kind not in "uiUS":
        raise DataError(
            f"{label}: group must hold one whole number or name a sample, not {found.dtype} {found.shape}."
        )
    if found.dtype.kind in "US":
        known, index = np.unique(found.astype(str), return_inverse=True)
        return index.astype(np.int64), tuple(str(name) for name in known)
    given = texts(names, f"{label}: groups")
    low, high = (int(found.min()), int(found.max())) if len(found) else (0, 0)
    if low < 0 or (given and high >= len(given)):
        raise DataError(
            f"{label}: group holds {low if low < 0 else high}; allowed are numbers from 0 up"
            + (
                f" to {len(given) - 1}, one for each of the {len(given)} names in groups."
                if given
                else "."
            )
        )
    if not given and high > _MOST_COUNTED:
        known, index = np.unique(found, return_inverse=True)
        return index.astype(np.int64), tuple(str(number) for number in known)
    return found.astype(np.int64), given or tuple(str(i) for i in range(high + 1))
