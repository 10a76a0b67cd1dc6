"""Arrays in a `.npz` file: `images`, `labels`, or `x_train ... y_test` as Keras and MedMNIST have.

The header of each member is checked before any of its values is read: what it announces is the
memory that numpy would take, and object arrays would need pickle.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from darts_core.data.source import RawData, check_memory, existing, register_source
from darts_core.errors import ConfigError, DataError
from darts_core.reading import DAMAGE, regular_file

__all__ = ["load_npz"]

_TRAIN = (("images", "labels"), ("x_train", "y_train"), ("train_images", "train_labels"))
_TEST = (("x_test", "y_test"), ("test_images", "test_labels"))
_HOLDS = (
    "a .npz file with uint8 arrays images [N,H,W], [N,H,W,C] or [N,C,H,W] and labels [N] "
    "(or x_train, y_train, x_test, y_test)"
)
_LAYOUTS = ("auto", "nhwc", "nchw")


def _read(archive: zipfile.ZipFile, key: str, path: Path) -> np.ndarray:
    info = archive.getinfo(f"{key}.npy")
    with archive.open(info) as stream:
        version = npy.read_magic(stream)
        readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        if version not in readers:
            raise DataError(
                f"{path}: {key} has npy version {version}; save it again with numpy.savez."
            )
        shape, column_major, dtype = readers[version](stream)
        if dtype.hasobject:
            raise DataError(
                f"{path}: {key} holds Python objects, which are never loaded; save plain numbers."
            )
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or stream.tell() + size != info.file_size:
            raise DataError(
                f"{path}: {key} announces shape {shape} ({size:,} bytes) in a member of "
                f"{info.file_size:,} bytes; the file is damaged."
            )
        check_memory(size, path)
        data = stream.read(size)
        # reading past the end makes zipfile compare the checksum
        stream.read(1)
    if len(data) != size:
        raise DataError(f"{path}: {key} is truncated; copy the file again.")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if column_major else "C")


def _layout(images: np.ndarray, layout: str, key: str, path: Path) -> np.ndarray:
    if images.dtype != np.uint8:
        raise DataError(
            f"{path}: {key} has dtype {images.dtype}; store uint8 with values 0..255 (images in "
            "0..1: "
            "multiply by 255, round, cast)."
        )
    if images.ndim == 3:
        return images[:, None]
    if images.ndim != 4:
        raise DataError(f"{path}: {key} has shape {images.shape}; needed is {_HOLDS}.")
    last, first = images.shape[3] in (1, 3), images.shape[1] in (1, 3)
    if layout == "auto" and last == first:
        raise DataError(
            f"{path}: {key} has shape {images.shape}, in which channels are not recognised; set "
            "data.layout=nhwc or nchw (1 or 3 channels)."
        )
    if layout == "nhwc" or (layout == "auto" and last):
        images = images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images)


def _labels(labels: np.ndarray, key: str, path: Path) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{path}: {key} has dtype {labels.dtype} and shape {labels.shape}; needed are whole "
            "numbers, one an image."
        )
    if len(labels) and (labels.min() < 0 or labels.max() > 100_000):
        wrong = int(labels.min() if labels.min() < 0 else labels.max())
        raise DataError(
            f"{path}: {key} holds {wrong}; labels are class numbers 0, 1, 2, ... up to 100000."
        )
    return labels.astype(np.int64)


@register_source("npz", description="your arrays: images and labels in a .npz file")
def load_npz(path: Path | None = None, layout: str = "auto") -> RawData:
    """The arrays of a `.npz` file; `class_names` (texts) in it name the classes.

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
    pair = next((p for p in _TRAIN if keys.issuperset(p)), None)
    if pair is None:
        raise DataError(
            f"{path} holds {', '.join(sorted(keys)) or 'no arrays'}; needed is {_HOLDS}."
        )
    images = _layout(_read(archive, pair[0], path), layout, pair[0], path)
    labels = _labels(_read(archive, pair[1], path), pair[1], path)
    test = next((p for p in _TEST if keys.issuperset(p)), None)
    test_images = test_labels = None
    if test is not None:
        test_images = _layout(_read(archive, test[0], path), layout, test[0], path)
        test_labels = _labels(_read(archive, test[1], path), test[1], path)
    if "class_names" in keys:
        names = _read(archive, "class_names", path)
        if names.ndim != 1 or names.dtype.kind not in "US":
            raise DataError(
                f"{path}: class_names must be a list of texts, not {names.dtype} {names.shape}."
            )
        texts = names.astype(str)
        classes = tuple(str(name) for name in texts)
    else:
        classes = tuple(str(i) for i in range(int(labels.max()) + 1 if len(labels) else 0))
    return RawData(images, labels, classes, str(path), test_images, test_labels)
