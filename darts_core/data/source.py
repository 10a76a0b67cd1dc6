"""What a data source returns, the table of sources, and the checks that every source passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from darts_core import memory
from darts_core.errors import DataError
from darts_core.reading import unusable
from darts_core.registry import Registry

__all__ = [
    "MIN_SIZE",
    "SOURCES",
    "RawData",
    "check_memory",
    "check_raw",
    "existing",
    "register_source",
]

# two stride-2 reductions must leave at least 2x2 features
MIN_SIZE = 8


@dataclass(frozen=True)
class RawData:
    """Images and labels in host memory, as a source read them; not yet divided into splits.

    Shapes: images uint8 [N, C, H, W] with C 1 or 3, labels int64 [N]; the test arrays likewise.

    `test_images` is None when there is no official test set: one is then held out. `origin` names
    the file or folder in error messages.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    origin: str
    test_images: np.ndarray | None = None
    test_labels: np.ndarray | None = None


Loader = Callable[..., RawData]
SOURCES: Registry[Loader] = Registry("data set")


def register_source(name: str, *, description: str) -> Callable[[Loader], Loader]:
    """A decorator for a function `(path, **options) -> RawData`, found by `load_data(name)`.

    `path` is a `pathlib.Path` or None; the keyword options are the source's own and become keys of
    its YAML file under `conf/data/`.
    """
    return SOURCES.register(name, description=description)


def existing(path: Path | None, name: str, holds: str) -> Path:
    """`path`, when it exists.

    Raises:
        DataError: no path was given, or nothing is there.
    """
    if path is None:
        raise DataError(f"The data set {name!r} needs data.path=..., {holds}.")
    if not path.exists():
        raise DataError(
            f"There is nothing at data.path={path}; the data set {name!r} needs {holds}."
        )
    return path


def check_memory(needed_bytes: int, origin: str | Path) -> None:
    """Refuse data that would not fit into host memory, before any of it is allocated.

    A few bytes of a hostile or damaged file can announce terabytes.

    Raises:
        MemoryShortageError: `needed_bytes` exceeds what the host has free.
    """
    memory.check_memory(
        needed_bytes,
        f"{origin} announces",
        "use a smaller file (of images: data.image_size=...) or another machine",
    )


def _check_arrays(images: np.ndarray, labels: np.ndarray, raw: RawData, what: str) -> None:
    if images.dtype != np.uint8 or images.ndim != 4:
        raise DataError(
            f"The {what} images of {raw.origin} have dtype {images.dtype} and shape "
            f"{images.shape}; "
            "needed is uint8 [N, C, H, W]."
        )
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"The {what} labels of {raw.origin} have dtype {labels.dtype} and shape "
            f"{labels.shape}; "
            "needed are integers, one an image."
        )
    if len(images) != len(labels):
        raise DataError(
            f"{raw.origin} holds {len(images):,} {what} images but {len(labels):,} labels; their "
            "numbers must agree (is a file truncated?)."
        )
    if len(images) == 0:
        raise DataError(f"{raw.origin} holds no {what} images; at least a few a class are needed.")
    _, channels, height, width = images.shape
    if channels not in (1, 3):
        raise DataError(
            f"The {what} images of {raw.origin} have {channels} channels; 1 (grey) or 3 (colour) "
            "are allowed."
        )
    if height != width:
        raise DataError(
            f"The {what} images of {raw.origin} are {height}x{width}; they must be square. "
            "data.image_size=32 (or another size) resizes them."
        )
    if height < MIN_SIZE:
        raise DataError(
            f"The {what} images of {raw.origin} are {height}x{width}; at least "
            f"{MIN_SIZE}x{MIN_SIZE} is "
            f"needed. data.image_size={MIN_SIZE} (or more) enlarges them."
        )
    classes = len(raw.class_names)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise DataError(
            f"The {what} labels of {raw.origin} hold {wrong}; allowed are 0..{classes - 1} for its "
            f"{classes} classes. Correct the labels or the class names."
        )


def check_raw(raw: RawData) -> None:
    """Check shapes, dtypes, label range and classes.

    Raises:
        DataError: something does not fit; the sentence says what and where.
    """
    if not len(raw.labels):
        raise DataError(
            f"{raw.origin} holds no training images; a classifier needs some of each class."
        )
    if len(raw.class_names) < 2:
        raise DataError(
            f"{raw.origin} has one class only ({', '.join(raw.class_names) or 'none'}); a "
            "classifier "
            "needs at least two."
        )
    for name in raw.class_names:
        if unusable(name):
            raise DataError(f"A class name of {raw.origin} holds {unusable(name)}.")
    _check_arrays(raw.images, raw.labels, raw, "training")
    counts = np.bincount(raw.labels, minlength=len(raw.class_names))
    if (counts > 0).sum() < 2:
        only = raw.class_names[int(counts.argmax())]
        raise DataError(
            f"All training images of {raw.origin} belong to one class ({only!r}); a classifier "
            "needs "
            "at least two."
        )
    if (counts == 0).any():
        missing = [raw.class_names[i] for i in np.flatnonzero(counts == 0)[:5]]
        raise DataError(
            f"{raw.origin} has no training image of class {', '.join(map(repr, missing))}; number "
            "the "
            "labels without gaps or remove the class."
        )
    if raw.test_images is None or raw.test_labels is None:
        return
    _check_arrays(raw.test_images, raw.test_labels, raw, "test")
    if raw.test_images.shape[1:] != raw.images.shape[1:]:
        raise DataError(
            f"The test images of {raw.origin} have shape {raw.test_images.shape[1:]}, the training "
            f"images {raw.images.shape[1:]}; they must agree (data.image_size=... resizes both)."
        )
