"""Arrays in a `.npz` file: `x`, `y` of any kind; `images`, `labels`; or `x_train ... y_test` as Keras has.

The header of each member is checked before any of its values is read: what it announces is the
memory that numpy would take, and object arrays would need pickle.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from darts_core.data.arrays import column, group_numbers, numbers, read_array, texts
from darts_core.data.checks import tell_rounded
from darts_core.data.source import RawData, existing, register_source
from darts_core.errors import ConfigError, DataError
from darts_core.named_inputs import pack
from darts_core.reading import DAMAGE, regular_file

__all__ = ["load_npz"]

log = logging.getLogger("darts_core")

_TRAIN = (
    ("images", "labels"), ("x_train", "y_train"), ("train_images", "train_labels"), ("x", "y"),
)  # fmt: skip
_TEST = (("x_test", "y_test"), ("test_images", "test_labels"))
_VAL = (("x_val", "y_val"), ("val_images", "val_labels"), ("x_valid", "y_valid"))
_HOLDS = (
    "a .npz file with uint8 arrays images [N,H,W], [N,H,W,C] or [N,C,H,W] and labels [N] "
    "(or x_train, y_train, x_test, y_test); or with x [N,C,H,W], [N,C,T], [N,T] (token numbers) or "
    "[N,F] (numbers) and y; or with several inputs by name, x_NAME, and y"
)
# arrays of several inputs begin so
_NAMED = "x_"
_LAYOUTS = ("auto", "nhwc", "nchw")
# so many arrays that are not read are named
_MOST_NAMED = 10


def _read(archive: zipfile.ZipFile, key: str, path: Path) -> np.ndarray:
    info = archive.getinfo(f"{key}.npy")
    with archive.open(info) as stream:
        found = read_array(stream, info.file_size, f"{path}: {key}")
        # reading past the end makes zipfile compare the checksum
        stream.read(1)
    return found


def _layout(images: np.ndarray, layout: str, key: str, path: Path, free: bool) -> np.ndarray:
    if not free and images.dtype != np.uint8:
        raise DataError(
            f"{path}: {key} has dtype {images.dtype}; store uint8 with values 0..255 (images in 0..1: "
            "multiply by 255, round, cast), or call the arrays x and y: they may hold any numbers."
        )
    if free:
        return numbers(images, f"{path}: {key}", layout)
    if images.ndim == 3:
        return images[:, None]
    if images.ndim != 4:
        raise DataError(f"{path}: {key} has shape {images.shape}; needed is {_HOLDS}.")
    last, first = images.shape[3] in (1, 3), images.shape[1] in (1, 3)
    if layout == "auto" and last == first:
        raise DataError(
            f"{path}: {key} has shape {images.shape}, in which channels are not recognised; set "
            "data.layout=nhwc or nchw."
        )
    if layout == "nhwc" or (layout == "auto" and last):
        images = images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images)


@register_source(
    "npz", description="your arrays in a .npz file: images and labels, or x and y of any kind"
)
def load_npz(path: Path | None = None, layout: str = "auto") -> RawData:
    """The arrays of a `.npz` file.

    Several inputs of a network of your own stand in `x_NAME` each and reach its `forward(NAME=...)`.
    Beside inputs and targets it may hold `class_names` or `classes` (texts), `group` (a number or a name a
    sample) with `groups` (their names), `mask` (True: the target counts), `vocabulary` (texts: what token
    numbers stand for) and `rate` (samples a second).

    Args:
        path: the file.
        layout: "nhwc" or "nchw" when "auto" cannot tell where the channels stand.
    """
    if layout not in _LAYOUTS:
        raise ConfigError(f"data.layout={layout!r} is not allowed; choose {', '.join(_LAYOUTS)}.")
    path = existing(path, "npz", _HOLDS)
    try:
        with zipfile.ZipFile(regular_file(path)) as archive:
            return _load(archive, path, layout)
    except DAMAGE as e:
        raise DataError(f"{path} cannot be read ({e}); needed is {_HOLDS}.") from e


def _load(archive: zipfile.ZipFile, path: Path, layout: str) -> RawData:
    members = archive.namelist()
    if len(set(members)) != len(members):
        raise DataError(f"{path} holds two members of one name; save it again with numpy.savez.")
    keys = {name[:-4] for name in members if name.endswith(".npy")}
    read: set[str] = set()

    def take(key: str) -> np.ndarray:
        read.add(key)
        return _read(archive, key, path)

    def optional(*names: str) -> np.ndarray | None:
        return next((take(name) for name in names if name in keys), None)

    # a pair of them is a set of its own, one alone an input of that name
    sets = {x for x, y in (*_TRAIN, *_TEST, *_VAL) if y in keys}
    named = {key for key in keys if key.startswith(_NAMED)} - sets - {"x_train", "x_test"}
    if named and "y" in keys and not keys & {"x", "images"}:
        raw = _several(path, named, take, optional)
    else:
        raw = _one(path, keys, layout, take, optional)
        read |= _val(keys)  # of which it tells
    if unread := sorted(keys - read):
        more = ", ..." if len(unread) > _MOST_NAMED else ""
        log.warning("npz: of %s are not read: %s%s", path, ", ".join(unread[:_MOST_NAMED]), more)
    return raw


def _val(keys: set[str]) -> set[str]:
    """The arrays of a validation set."""
    return {key for pair in _VAL if keys.issuperset(pair) for key in pair}


Take = Callable[[str], np.ndarray]
Optional = Callable[..., np.ndarray | None]


def _one(path: Path, keys: set[str], layout: str, take: Take, optional: Optional) -> RawData:
    """One input, perhaps with a test set."""
    pair = next((p for p in _TRAIN if keys.issuperset(p)), None)
    if pair is None:
        raise DataError(
            f"{path} holds {', '.join(sorted(keys)) or 'no arrays'}; needed is {_HOLDS}."
        )
    test = next((p for p in _TEST if keys.issuperset(p)), None)
    rows = [pair] if test is None else [pair, test]
    if unread := sorted(_val(keys)):
        log.warning(
            "npz: %s of %s are not read: val is drawn from %s", " and ".join(unread), path, pair[0]
        )
    free = pair[0] == "x"  # of any kind, and so is its test set
    inputs = [_layout(take(x), layout, x, path, free) for x, _ in rows]
    targets = [column(take(y)) for _, y in rows]
    rate = optional("rate")
    if rate is not None and (rate.size != 1 or rate.dtype.kind not in "uif"):
        raise DataError(f"{path}: rate must be one number, samples a second.")
    return replace(
        _sample_data(path, inputs[0], targets[0], optional),
        test_inputs=None if test is None else inputs[1],
        test_targets=None if test is None else targets[1],
        vocabulary=texts(optional("vocabulary"), f"{path}: vocabulary"),
        rate=None if rate is None else float(rate.reshape(-1)[0]),
    )


def _several(path: Path, keys: set[str], take: Take, optional: Optional) -> RawData:
    """Inputs by name: `x_image` and `x_words` are `forward(image=..., words=...)`."""
    arrays = {key.removeprefix(_NAMED): take(key) for key in sorted(keys)}
    rows, named = pack(arrays, str(path))
    for one in named:
        if not one.tokens:
            tell_rounded(arrays[one.name], f"{path}: its inputs x_{one.name}")
    return replace(_sample_data(path, rows, column(take("y")), optional), named=named)


def _sample_data(
    path: Path, inputs: np.ndarray, targets: np.ndarray, optional: Optional
) -> RawData:
    """Inputs and targets with what may stand beside them, one value a sample."""
    group = optional("group")
    numbered = group is not None and group.dtype.kind in "ui"
    called = optional("groups", "group_names") if numbered else None
    groups, group_names = group_numbers(group, called, str(path))
    mask = optional("mask")
    if mask is not None and mask.dtype != np.bool_:
        raise DataError(f"{path}: mask has dtype {mask.dtype}; save booleans (True: counts).")
    return RawData(
        inputs,
        targets,
        texts(optional("class_names", "classes"), f"{path}: class_names"),
        str(path),
        mask=mask,
        groups=groups,
        group_names=group_names,
    )
