"""A space of 16 architectures whose best one is known, with data made for it.

A cell adds two edges. Edge 0 sees an image in which the sign of the correlation between neighbours
(distance 1) tells the class, edge 1 one in which that at distance 4 does. Nothing else around the cell
looks sideways. A 3x3 convolution compares pixels at distances 1 and 2, one with dilation 2 at 2 and 4:
so exactly one operation is right on each edge.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from darts_core.spaces.base import SearchSpace, register_space

__all__ = ["PLANTED", "TOY", "planted_images"]

TOY = register_space(
    "toy",
    SearchSpace(
        name="toy",
        ops=("skip_connect", "nor_conv_1x1", "nor_conv_3x3", "dil_conv_3x3"),
        cell_kinds=("cell",),
        inputs=2,
        nodes=1,
        skeleton="toy",
    ),
    description="toy: 2 edges, 16 architectures, one of which is planted in its data",
)

PLANTED = ("nor_conv_3x3", "dil_conv_3x3")
"""The right operation on edge 0 and edge 1; a random architecture has both with probability 1/16."""

_DISTANCES = (1, 4)
_SIZE = 12
STRENGTHS = (0.2, 0.95)


def planted_images(
    count: int, *, strengths: tuple[float, float] = STRENGTHS, seed: int = 0
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images [N, 3, 12, 12] and labels [N] in 0..3: the signs of the two planted correlations.

    Channel 0 is for edge 0, channel 1 for edge 1, channel 2 is noise.

    Args:
        count: number of images.
        strengths: correlation, between -1 and 1, of the pixels at the planted distance of each channel.
        seed: of everything random.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    signs = np.stack([2 * (labels % 2) - 1, 2 * (labels // 2) - 1])
    images = rng.standard_normal((count, 3, _SIZE, _SIZE))
    for channel, (distance, strength) in enumerate(zip(_DISTANCES, strengths, strict=True)):
        # a first-order autoregression with lag `distance` along columns, then along rows: its correlation
        # at the lag is +- strength in both directions, and nothing at lags that are not its multiples
        correlation = (signs[channel] * strength)[:, None]
        for field in (images[:, channel], images[:, channel].swapaxes(1, 2)):
            for line in range(distance, _SIZE):
                field[:, :, line] *= np.sqrt(1 - strength**2)
                field[:, :, line] += correlation * field[:, :, line - distance]
    pixels = np.clip(np.round(128 + 40 * images), 0, 255)
    return pixels.astype(np.uint8), labels.astype(np.int64)
