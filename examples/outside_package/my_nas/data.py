"""One data set: bars that lie or stand, with noise."""

from pathlib import Path

import numpy as np

from darts_core.data import RawData, register_source


@register_source("bars", description="made-up 8x8 images of a lying or a standing bar")
def load_bars(path: Path | None = None, count: int = 200) -> RawData:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 120, (count, 1, 8, 8)).astype(np.uint8)
    labels = np.arange(count) % 2
    for image, label, place in zip(images, labels, rng.integers(1, 7, count), strict=True):
        if label:
            image[0, place, :] = 255
        else:
            image[0, :, place] = 255
    return RawData(images, labels, ("standing", "lying"), origin="bars")
