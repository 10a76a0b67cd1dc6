"""Two `.npy` files: inputs and targets of any kind."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from darts_core.data.arrays import column, group_numbers, numbers, read_array
from darts_core.data.source import RawData, existing, register_source
from darts_core.errors import DataError
from darts_core.reading import DAMAGE, regular_file

__all__ = ["load_npy"]

log = logging.getLogger("darts_core")
_HOLDS = "a .npy file with inputs [N,C,H,W], [N,C,T], [N,T] (token numbers) or [N,F] (numbers)"


@register_source(
    "npy", description="your arrays in .npy files: inputs, targets, perhaps groups and a mask"
)
def load_npy(
    path: Path | None = None,
    targets: str | None = None,
    groups: str | None = None,
    mask: str | None = None,
    rate: float | None = None,
) -> RawData:
    """The arrays of `.npy` files.

    Args:
        path: the inputs; images as [N, C, H, W], or [N, H, W, C] of 1 or 3 channels.
        targets: file of the targets.
        groups: file with a group number or name a sample.
        mask: file of booleans of the targets' shape; True: counts.
        rate: samples a second of a series.
    """
    path = existing(path, "npy", _HOLDS)
    if targets is None:
        raise DataError("The data set 'npy' needs data.targets=FILE, a .npy file with the targets.")
    numbered, names = group_numbers(_array(groups) if groups else None, None, str(groups))
    given = _array(targets)
    wanted = column(given)
    if wanted.ndim < given.ndim:
        log.info("%s: its one column of whole numbers is taken for classes", targets)
    counts = _array(mask) if mask else None
    if counts is not None and counts.dtype != np.bool_:
        raise DataError(f"{mask} has dtype {counts.dtype}; save booleans (True: counts).")
    return RawData(
        numbers(_array(path), str(path)),
        wanted,
        (),
        str(path),
        mask=counts,
        groups=numbered,
        group_names=names,
        rate=rate,
    )


def _array(name: str | Path) -> np.ndarray:
    path = regular_file(Path(name).expanduser())
    try:
        with path.open("rb") as stream:
            return read_array(stream, path.stat().st_size, str(path))
    except DAMAGE as error:
        raise DataError(f"{path} cannot be read ({error}); needed is {_HOLDS}.") from error
