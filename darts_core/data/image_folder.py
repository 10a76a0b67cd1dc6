"""A folder of images with one sub-folder a class, optionally below `train` and `test`."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection
from pathlib import Path

import numpy as np

from darts_core.data.decode import channels_of, decode_images
from darts_core.data.encoded import EncodedImages
from darts_core.data.source import RawData, existing, register_source
from darts_core.errors import ConfigError, DataError
from darts_core.memory import free_bytes
from darts_core.processors import usable_processors

__all__ = ["load_image_folder"]

log = logging.getLogger("darts_core")

_SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".bmp",
        ".ppm",
        ".pgm",
        ".webp",
        ".tif",
        ".tiff",
        ".gif",
    }
)
# folders beside `train` that may be the test set: the first one is
_TEST = ("test", "val", "valid", "validation")
# words in names of folders that hold a part of a set, in anybody's spelling: Training, seg_train, TEST
_TRAIN_WORDS = frozenset({"train", "training"})
_TEST_WORDS = frozenset({*_TEST, "testing", "eval", "evaluation"})
_MOST_WORKERS = 64
# of free host memory, that decoded images may take before they are streamed
_MEMORY_SHARE = 0.25
_HOLDS = (
    "a folder with one sub-folder of images a class "
    "(or train/ and test/ that hold such sub-folders)"
)


def _class_folders(folder: Path) -> dict[str, Path]:
    return {
        p.name: p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")
    }


def _files(folder: Path, classes: tuple[str, ...]) -> tuple[list[Path], np.ndarray]:
    files: list[Path] = []
    others: list[Path] = []
    linked: list[Path] = []
    labels: list[int] = []
    folders = _class_folders(folder)
    strangers = sorted(set(folders) - set(classes))
    if strangers:
        raise DataError(
            f"{folder} has the class folder {strangers[0]!r}, which the training folder lacks; "
            "allowed "
            f"are {', '.join(classes[:20])}."
        )
    for label, name in enumerate(classes):
        if name not in folders:
            continue
        found = [p for p in sorted(folders[name].rglob("*")) if not _hidden(p, folder)]
        own = [p for p in found if p.suffix.lower() in _SUFFIXES and not p.is_dir()]
        rest = [p for p in found if p.suffix.lower() not in _SUFFIXES]
        others += [p for p in rest if not p.is_dir()]
        linked += [p for p in rest if p.is_symlink() and p.is_dir()]
        files += own
        labels += [label] * len(own)
    if others:
        log.warning(
            "image_folder: %d files below %s are left out, as their endings are no image's (%s)",
            len(others), folder, ", ".join(sorted({p.suffix or p.name for p in others})[:5]),
        )  # fmt: skip
    _tell_unread(folder, [*_beside(folder, folders.values()), *linked])
    return files, np.asarray(labels, np.int64)


def _beside(folder: Path, read: Collection[Path]) -> list[Path]:
    """The folders and images that stand in `folder` itself and are none of those that are read."""
    found = sorted(set(folder.iterdir()) - set(read))
    held = [p for p in found if p.suffix.lower() in _SUFFIXES or p.is_dir()]
    # where a file system takes Train for train, a folder that is read has another name here
    return [
        p
        for p in held
        if not _hidden(p, folder) and not (p.is_dir() and any(p.samefile(one) for one in read))
    ]


def _tell_unread(folder: Path, unread: list[Path]) -> None:
    """A warning for images and folders that somebody may take for samples."""
    if unread:
        names = ", ".join(str(p.relative_to(folder)) for p in unread[:5])
        log.warning(
            "image_folder: of %s are not read: %s%s (images stand in a folder of their class; linked folders "
            "below it are not followed)",
            folder, names, ", ..." if len(unread) > 5 else "",
        )  # fmt: skip


def _hidden(path: Path, folder: Path) -> bool:
    """Whether it, or a folder on the way to it, is hidden: thumbnails and the like are no samples."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


@register_source("image_folder", description="your images: one sub-folder a class")
def load_image_folder(
    path: Path | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    stream: bool | None = None,
    workers: int | None = None,
) -> RawData:
    """The images of a folder; `test/` (else `val/`, `valid/`, `validation/`) beside `train/` is the test set.

    A `train/` without folders in it and without a test set beside it is a class like the others.

    Args:
        path: the folder.
        image_size: resize the short side to this and take the middle; None asks that all have one size.
        channels: 1 or 3; None decides by the first image; it is told where others lose their colour.
        stream: decode images batch by batch, so that memory holds some batches alone; None: when all of
            them would take more than a quarter of what is free.
        workers: of a stream: processes that decode; None: one fewer than there are cores, at most 8; 0: none.

    Raises:
        ConfigError: an option is out of range, or a stream has no image_size.
        DataError: there is no such folder, or its files do not fit.
    """
    if workers is not None and not (type(workers) is int and 0 <= workers <= _MOST_WORKERS):
        raise ConfigError(
            f"data.workers={workers} is not allowed; choose 0..{_MOST_WORKERS} or null."
        )
    if channels not in (None, 1, 3):
        raise ConfigError(f"data.channels={channels} is not allowed; choose 1, 3 or null.")
    folder = existing(path, "image_folder", _HOLDS)
    if not folder.is_dir():
        raise DataError(f"data.path={folder} is a file; needed is {_HOLDS}.")
    train, test = folder, None
    beside = [folder / name for name in _TEST if (folder / name).is_dir()]
    if (folder / "train").is_dir() and (beside or _class_folders(folder / "train")):
        train = folder / "train"
        test = beside[0] if beside else None
        if test is not None:
            log.info("image_folder: %s is the test split", test)
        _tell_unread(folder, _beside(folder, [train, *beside]))
        for other in beside[1:]:
            log.warning("image_folder: %s is not read: val is drawn from %s", other, train)
    classes = tuple(_class_folders(train))
    if len(classes) < 2:
        raise DataError(
            f"{train} has {len(classes)} class sub-folders ({', '.join(classes) or 'none'}); "
            "needed are "
            f"at least two: {_HOLDS}."
        )
    _refuse_parts(train)
    _tell_levels(train)

    parts = {part: _files(part, classes) for part in (train, test) if part is not None}
    for part, (files, _) in parts.items():
        if not files and part == test:
            raise DataError(
                f"{test}, the test set, holds no images in folders called as the classes. Images without a "
                "class judge nothing: move them elsewhere, and a part of the others is held out."
            )
        if not files:
            raise DataError(f"{part} holds no images; at least a few a class are needed.")
    as_first = channels is None
    channels = channels or channels_of(parts[train][0][0])
    count = sum(len(files) for files, _ in parts.values())
    streams = _streams(stream, count, channels, image_size)

    def read(part: Path) -> tuple[np.ndarray | EncodedImages, np.ndarray]:
        files, labels = parts[part]
        if streams and image_size is not None:
            names = [str(file) for file in files]
            images = EncodedImages(
                names, channels, image_size, _workers(workers), as_first=as_first
            )
            return images, labels
        decoded = decode_images(
            files,
            lambda i: str(files[i]),
            image_size=image_size,
            channels=channels,
            origin=str(part),
            as_first=as_first,
        )
        return decoded, labels

    return RawData(*read(train), classes, str(folder), *(read(test) if test is not None else ()))


def _refuse_parts(folder: Path) -> None:
    """Refuse a training and a test set under other names than ours, which would be learned as two classes."""
    found: list[str] = []
    for words in (_TRAIN_WORDS, _TEST_WORDS):
        named = (
            (name, path)
            for name, path in _class_folders(folder).items()
            if words.intersection(re.findall("[a-z]+", name.lower()))
        )
        # a class of that name holds images itself
        found += [name for name, path in named if _holds_folders_alone(path)][:1]
    if len(set(found)) == 2:
        raise DataError(
            f"{folder} holds {found[0]} and {found[1]}, in which there are folders alone, and both would be "
            "classes. If they are a training and a test set, call them train and test, with one sub-folder a "
            "class right in each."
        )


def _tell_levels(folder: Path) -> None:
    """A warning where all classes hold the same folders, which may be the classes, or parts of the set."""
    classes = _class_folders(folder)
    inner = {_names_of_folders(path) for path in classes.values()}
    below = inner.pop()
    if inner or len(below) < 2 or not all(map(_holds_folders_alone, classes.values())):
        return
    log.warning(
        "image_folder: the classes of %s are %s, and each holds the folders %s, which are read together; if "
        "those are the classes, let them stand right in it (if they are parts of the set, above the classes)",
        folder, ", ".join([*classes][:5]), ", ".join(below[:5]),
    )  # fmt: skip


def _names_of_folders(folder: Path) -> tuple[str, ...]:
    """Without a look at each file: a class may hold a million."""
    with os.scandir(folder) as entries:
        return tuple(sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir()))


def _holds_folders_alone(folder: Path) -> bool:
    inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    images = any(path.suffix.lower() in _SUFFIXES and not path.is_dir() for path in inside)
    return not images and any(path.is_dir() for path in inside)


def _streams(wanted: bool | None, count: int, channels: int, size: int | None) -> bool:
    """Whether the images stay in their files."""
    if wanted and size is None:
        raise ConfigError(
            "data.stream=true needs data.image_size: the side of all images, such as 224."
        )
    if wanted is not None or size is None:
        return bool(wanted)
    free = free_bytes()
    decoded = count * channels * size * size
    if free is None or decoded <= _MEMORY_SHARE * free:
        return False
    log.info("image_folder: %.0f MiB of images are decoded batch by batch", decoded / 2**20)
    return True


def _workers(wanted: int | None) -> int:
    if wanted is not None:
        return wanted
    return max(1, min(8, usable_processors() - 1))
