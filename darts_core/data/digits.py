"""scikit-learn's digits: 1,797 real 8x8 images, embedded, so nothing needs to be downloaded.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (test part).
"""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from darts_core.data.source import RawData, register_source
from darts_core.errors import DataError

__all__ = ["load_digits"]


@register_source("digits", description="1,797 real 8x8 digits of scikit-learn (embedded)")
def load_digits(path: Path | None = None) -> RawData:
    """The digits as uint8 [1797, 1, 8, 8]; their 17 grey levels 0..16 are spread over 0..255."""
    if path is not None:
        raise DataError(
            "The data set 'digits', which is taken where none is named, is embedded and reads no "
            f"data.path={path}; name the one that reads it, such as data=npz or data=image_folder, or remove "
            "it."
        )
    values = _packaged_values()
    if values is None:
        from sklearn.datasets import load_digits as sklearn_digits

        bunch = sklearn_digits()
        values = np.column_stack([bunch.data, bunch.target])
    images = np.rint(values[:, :64].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    names = tuple(str(i) for i in range(10))
    return RawData(images, values[:, 64].astype(np.int64), names, "scikit-learn's digits")


def _packaged_values() -> np.ndarray | None:
    """The rows of scikit-learn's own file, 64 pixels and the class, or None when it has moved.

    Importing scikit-learn takes seconds, and each process of a study would pay them.
    """
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            with gzip.open(file, "rt", encoding="ascii") as stream:
                values = np.loadtxt(stream, delimiter=",")
            return values if values.shape == (1797, 65) else None
    return None
