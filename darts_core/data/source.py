"""What a data source returns, and the table of sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from darts_core import memory
from darts_core.data.encoded import EncodedImages
from darts_core.errors import DataError, first_line
from darts_core.named_inputs import NamedInput
from darts_core.registry import Registry

__all__ = [
    "MIN_SIZE",
    "SOURCES",
    "RawData",
    "check_memory",
    "existing",
    "register_source",
]

# of images: two stride-2 reductions must leave at least 2x2 features
MIN_SIZE = 8
_ARRAYS = ("inputs", "targets", "test_inputs", "test_targets", "mask", "groups")
_NAMES = ("names", "group_names", "vocabulary")


@dataclass(frozen=True)
class RawData:
    """Inputs and targets in host memory, as a source read them; not yet divided into splits.

    Images may stay in their files (`EncodedImages`) and be decoded batch by batch. Lists, tensors and columns
    of tables are taken as arrays, any texts or numbers as names.

    Shapes: inputs [N, C, H, W] (images: uint8, or any numbers), [N, C, T] (series) or [N, T] (token
    numbers); targets [N], or what else `darts_core.tasks.TARGETS` names; the test arrays likewise.

    Attributes:
        inputs, targets: see above.
        names: of the classes, labels or columns; of the tokens where these are predicted.
        origin: the file or folder, for messages.
        test_inputs, test_targets: None when there is no official test set: one is then held out.
        mask: True where a target counts, of the targets' shape, or one value a sample, which leaves
            samples out; None: all do.
        groups: of every sample, a number into `group_names`, or the name itself: a speaker, a patient.
        group_names: what the groups are called.
        vocabulary: what token numbers in the inputs stand for.
        rate: samples a second of a series, where it is known.
        named: what the row of a sample is made of, where a network takes several inputs by name.
        ordered: neighbours belong together (windows of one text), so splits are whole stretches.

    Raises:
        DataError: something that should be an array makes none.
    """

    inputs: np.ndarray | EncodedImages
    targets: np.ndarray
    names: tuple[str, ...]
    origin: str
    test_inputs: np.ndarray | EncodedImages | None = None
    test_targets: np.ndarray | None = None
    mask: np.ndarray | None = None
    groups: np.ndarray | None = None
    group_names: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()
    rate: float | None = None
    named: tuple[NamedInput, ...] = ()
    ordered: bool = False

    def __post_init__(self) -> None:
        """Make arrays and tuples of what a source of somebody's own gives in their place."""
        for name in _ARRAYS:
            value = getattr(self, name)
            if value is not None and not isinstance(value, (np.ndarray, EncodedImages)):
                object.__setattr__(self, name, _array(name, value, self.origin))
        for name in _NAMES:
            given = getattr(self, name)
            object.__setattr__(self, name, () if given is None else tuple(map(str, given)))


def _array(name: str, value: Any, origin: str) -> np.ndarray:
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of unequal length; a GPU's tensor
        raise DataError(
            f"The {name} of {origin} are a {type(value).__name__} of which no array can be made "
            f"({first_line(error)[:200]}); give a numpy array."
        ) from error


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
