"""A folder of images with one sub-folder a class, optionally below `train` and `test`."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from darts_core.data.decode import decode_images
from darts_core.data.source import RawData, existing, register_source
from darts_core.errors import ConfigError, DataError

__all__ = ["load_image_folder"]

log = logging.getLogger("darts_core")

_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff", ".gif"}
)
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
        own = [
            p
            for p in sorted(folders[name].rglob("*"))
            if p.suffix.lower() in _SUFFIXES and not p.name.startswith(".") and not p.is_dir()
        ]
        files += own
        labels += [label] * len(own)
    return files, np.asarray(labels, np.int64)


@register_source("image_folder", description="your images: one sub-folder a class")
def load_image_folder(
    path: Path | None = None, image_size: int | None = None, channels: int | None = None
) -> RawData:
    """The images of a folder; `test/` (else `val/` or `valid/`) beside `train/` is the test set.

    Args:
        path: the folder.
        image_size: resize to this height and width; None asks that all images have one size.
        channels: 1 or 3; None decides by the first image.
    """
    if channels not in (None, 1, 3):
        raise ConfigError(f"data.channels={channels} is not allowed; choose 1, 3 or null.")
    folder = existing(path, "image_folder", _HOLDS)
    if not folder.is_dir():
        raise DataError(f"data.path={folder} is a file; needed is {_HOLDS}.")
    train, test = folder, None
    if (folder / "train").is_dir():
        train = folder / "train"
        test = next((folder / n for n in ("test", "val", "valid") if (folder / n).is_dir()), None)
        if test is not None:
            log.info("image_folder: %s is the test split", test)
    classes = tuple(_class_folders(train))
    if len(classes) < 2:
        raise DataError(
            f"{train} has {len(classes)} class sub-folders ({', '.join(classes) or 'none'}); "
            "needed are "
            f"at least two: {_HOLDS}."
        )

    def read(part: Path) -> tuple[np.ndarray, np.ndarray]:
        files, labels = _files(part, classes)
        images = decode_images(
            files,
            lambda i: str(files[i]),
            image_size=image_size,
            channels=channels,
            origin=str(part),
        )
        return images, labels

    images, labels = read(train)
    if test is None:
        return RawData(images, labels, classes, str(folder))
    channels = images.shape[1]
    return RawData(images, labels, classes, str(folder), *read(test))
