"""CIFAR-10 and CIFAR-100 from the folders of their python version.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from darts_core.data.restricted_pickle import read_pickle
from darts_core.data.source import RawData, existing, register_source
from darts_core.errors import ConfigError, DataError

__all__ = ["load_cifar10", "load_cifar100"]

_ROW = 3 * 32 * 32


def _folder(path: Path | None, name: str, inner: str, first: str) -> Path:
    holds = (
        f"the folder {inner} that the archive of the python version unpacks to (with {first} in it)"
    )
    path = existing(path, name, holds)
    for folder in (path, path / inner):
        if (folder / first).is_file():
            return folder
    raise DataError(f"data.path={path} has no file {first}; the data set {name!r} needs {holds}.")


def _batch(path: Path, label_key: str) -> tuple[np.ndarray, np.ndarray]:
    if not path.is_file():
        raise DataError(f"The file {path} is missing; unpack the data set's archive again.")
    content = read_pickle(path)
    for key in ("data", label_key):
        if key not in content:
            raise DataError(
                f"{path} has no entry {key!r}, only {sorted(content)}; it is another file."
            )
    data, labels = content["data"], content[label_key]
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != _ROW:
        shape = data.shape if isinstance(data, np.ndarray) else type(data).__name__
        raise DataError(
            f"{path} has images of shape {shape}; needed is one row of {_ROW} bytes an image."
        )
    if not isinstance(labels, list) or not all(isinstance(label, int) for label in labels):
        raise DataError(f"{path} has {label_key} that are not a list of whole numbers.")
    if any(not 0 <= label < 1000 for label in labels):
        wrong = next(label for label in labels if not 0 <= label < 1000)
        raise DataError(f"{path} has the label {wrong}, which is no class; fetch the file again.")
    if len(labels) != len(data):
        raise DataError(f"{path} holds {len(data)} images but {len(labels)} labels; it is damaged.")
    return data.reshape(-1, 3, 32, 32), np.asarray(labels, np.int64)


def _names(path: Path, key: str) -> tuple[str, ...]:
    if not path.is_file():
        raise DataError(
            f"The file {path} with the class names is missing; unpack the archive again."
        )
    names: Any = read_pickle(path).get(key)
    if not isinstance(names, list) or not names:
        raise DataError(f"{path} has no list {key!r} of class names; unpack the archive again.")
    return tuple(n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in names)


@register_source(
    "cifar10", description="CIFAR-10: 50,000 + 10,000 photographs, 32x32, python version"
)
def load_cifar10(path: Path | None = None) -> RawData:
    """CIFAR-10 with its official test set."""
    folder = _folder(path, "cifar10", "cifar-10-batches-py", "data_batch_1")
    train = [_batch(folder / f"data_batch_{i}", "labels") for i in range(1, 6)]
    test_images, test_labels = _batch(folder / "test_batch", "labels")
    return RawData(
        np.concatenate([images for images, _ in train]),
        np.concatenate([labels for _, labels in train]),
        _names(folder / "batches.meta", "label_names"),
        str(folder),
        test_images,
        test_labels,
    )


@register_source(
    "cifar100", description="CIFAR-100: 50,000 + 10,000 photographs, 32x32, python version"
)
def load_cifar100(path: Path | None = None, label: str = "fine") -> RawData:
    """CIFAR-100 with its official test set; `label` is "fine" (100 classes) or "coarse" (20)."""
    if label not in ("fine", "coarse"):
        raise ConfigError(f"data.label={label!r} is not allowed; choose fine or coarse.")
    folder = _folder(path, "cifar100", "cifar-100-python", "train")
    images, labels = _batch(folder / "train", f"{label}_labels")
    test_images, test_labels = _batch(folder / "test", f"{label}_labels")
    names = _names(folder / "meta", f"{label}_label_names")
    return RawData(images, labels, names, str(folder), test_images, test_labels)
