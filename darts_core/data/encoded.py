"""Images that stay in their files and are decoded when they are asked for: a set larger than memory.

Shapes: N images, B batch, C channels, S side.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from darts_core.data.images import frames_of, open_image, pixels_of, warn_of_frames

__all__ = ["EncodedImages"]

log = logging.getLogger("darts_core")


class EncodedImages:
    """The files of a set, which reads like a uint8 array [N, C, S, S] as far as data sets need.

    Args:
        files: of the images.
        channels: 1 or 3.
        size: S.
        workers: processes that decode batches ahead; 0 decodes in the training process.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, files: Sequence[str], channels: int, size: int, workers: int) -> None:
        self.files, self.channels, self.size = list(files), channels, size
        self.workers = workers
        self._told = False

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[N, C, S, S]."""
        return len(self.files), self.channels, self.size, self.size

    @property
    def nbytes(self) -> int:
        """Of all images, decoded."""
        return int(np.prod(self.shape))

    def __getitem__(self, index_B: np.ndarray) -> np.ndarray:
        """The images [B, C, S, S] of these positions, decoded.

        Raises:
            DataError: a file is gone or damaged; it is named.
        """
        found = np.empty((len(index_B), *self.shape[1:]), np.uint8)
        for place, position in enumerate(index_B):
            label = self.files[int(position)]
            with open_image(Path(label), label) as image:
                if frames_of(image) and not self._told:
                    self._told = True
                    warn_of_frames([label])
                found[place] = pixels_of(image, (self.size, self.size), self.channels, label)
        return found

    def subset(self, index: np.ndarray) -> EncodedImages:
        """The set of these positions alone."""
        files = [self.files[int(position)] for position in index]
        return EncodedImages(files, self.channels, self.size, self.workers)

    def joined(self, other: EncodedImages | None) -> EncodedImages:
        """This set with `other` behind it."""
        if other is None:
            return self
        files = [*self.files, *other.files]
        return EncodedImages(files, self.channels, self.size, self.workers)
