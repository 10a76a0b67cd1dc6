"""scikit-learn's digits: 1,797 real 8x8 images, embedded, so nothing needs to be downloaded.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (test part).
"""

from __future__ import annotations

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
            f"The data set 'digits' is embedded and reads no data.path={path}; remove it."
        )
    from sklearn.datasets import load_digits as sklearn_digits

    bunch = sklearn_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    names = tuple(str(i) for i in range(10))
    return RawData(images, bunch.target.astype(np.int64), names, "scikit-learn's digits")
