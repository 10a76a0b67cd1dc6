"""MNIST and Fashion-MNIST from idx files, gzip-packed or plain.

An idx file is a big-endian header (two zero bytes, a type code, the number of dimensions, then one
32-bit size a dimension) followed by the values. Debian's `dataset-fashion-mnist` has this layout.

Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database, 1998; H. Xiao, K. Rasul, R. Vollgraf,
Fashion-MNIST, 2017.
"""

from __future__ import annotations

import gzip
import logging
import math
import struct
from pathlib import Path

import numpy as np

from darts_core.data.source import RawData, check_memory, existing, register_source
from darts_core.errors import DataError
from darts_core.reading import DAMAGE, regular_file

__all__ = ["load_fashion_mnist", "load_mnist", "read_idx"]

log = logging.getLogger("darts_core")

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_UNSIGNED_BYTE = 0x08
_HOLDS = (
    "a folder with train-images-idx3-ubyte, train-labels-idx1-ubyte and their t10k twins "
    "(.gz or plain)"
)


def _find(folder: Path, stem: str) -> Path:
    # some mirrors write a dot before "idx"
    candidates = [
        folder / (variant + suffix)
        for variant in (stem, stem.replace("-idx", ".idx"))
        for suffix in ("", ".gz")
    ]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise DataError(
        f"The folder {folder} has neither {stem} nor {stem}.gz; data.path needs {_HOLDS}."
    )


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The unsigned bytes of an idx file, with the shape that its header states.

    Args:
        path: a plain file, or a gzip one whatever its name.
        dimensions: the number of dimensions that the file must have.

    Raises:
        DataError: not an idx file of that kind, or shorter or longer than its header says.
    """
    regular_file(path)
    try:
        with path.open("rb") as probe:
            packed = probe.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as stream:
            header = stream.read(4)
            if (
                len(header) < 4
                or header[:3] != bytes([0, 0, _UNSIGNED_BYTE])
                or header[3] != dimensions
            ):
                raise DataError(
                    f"{path} begins with {header.hex() or 'nothing'}; an idx file of unsigned "
                    "bytes with "
                    f"{dimensions} dimensions begins with 000008{dimensions:02x}. Download it "
                    "again."
                )
            sizes = stream.read(4 * dimensions)
            if len(sizes) < 4 * dimensions:
                raise DataError(f"{path} ends within its header; download it again.")
            shape = struct.unpack(f">{dimensions}I", sizes)
            count = math.prod(shape)
            if not count:
                raise DataError(f"{path} announces shape {shape}, which holds nothing.")
            check_memory(count, path)
            values = stream.read(count)
            longer = bool(stream.read(1))
    except DAMAGE as error:
        raise DataError(f"{path} cannot be read ({error}); download it again.") from error
    if len(values) < count or longer:
        found = f"more than {count:,}" if longer else f"{len(values):,}"
        raise DataError(
            f"{path} holds {found} bytes where its header announces {count:,} (shape {shape}); it "
            "is "
            "truncated or damaged, download it again."
        )
    return np.frombuffer(values, np.uint8).reshape(shape)


def _load(folder: Path, class_names: tuple[str, ...]) -> RawData:
    if not folder.is_dir():
        raise DataError(f"data.path={folder} is a file; needed is {_HOLDS}.")
    arrays = [
        read_idx(_find(folder, f"{part}-{kind}"), dimensions)
        for part in ("train", "t10k")
        for kind, dimensions in (("images-idx3-ubyte", 3), ("labels-idx1-ubyte", 1))
    ]
    images, labels, test_images, test_labels = arrays
    return RawData(
        images[:, None],
        labels.astype(np.int64),
        class_names,
        str(folder),
        test_images[:, None],
        test_labels.astype(np.int64),
    )


@register_source("mnist", description="MNIST: 60,000 + 10,000 digits, 28x28 grey, idx files")
def load_mnist(path: Path | None = None) -> RawData:
    """MNIST with its official test set."""
    return _load(existing(path, "mnist", _HOLDS), tuple(str(i) for i in range(10)))


@register_source(
    "fashion_mnist", description="Fashion-MNIST: 60,000 + 10,000 clothes, 28x28 grey, idx files"
)
def load_fashion_mnist(path: Path | None = None) -> RawData:
    """Fashion-MNIST with its official test set; without a path, Debian's folder where it exists."""
    if path is None and DEBIAN_FASHION_MNIST.is_dir():
        log.info("fashion_mnist: reading %s", DEBIAN_FASHION_MNIST)
        path = DEBIAN_FASHION_MNIST
    holds = (
        f"{_HOLDS}; Debian's package dataset-fashion-mnist installs one at {DEBIAN_FASHION_MNIST}"
    )
    return _load(existing(path, "fashion_mnist", holds), FASHION_CLASSES)
