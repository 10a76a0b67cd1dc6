"""Images that stay in their files and are decoded when they are asked for: a set larger than memory.

Shapes: N images, B batch, C channels, S side.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from darts_core.data.images import (
    GREY_MODES,
    frames_of,
    left_out,
    open_image,
    pixels_of,
    warn_left_out,
    warn_of_frames,
)

__all__ = ["EncodedImages"]

log = logging.getLogger("darts_core")


class EncodedImages:
    """The files of a set, which reads like a uint8 array [N, C, S, S] as far as data sets need.

    Args:
        files: of the images.
        channels: 1 or 3.
        size: S.
        workers: processes that decode batches ahead; 0 decodes in the training process.
        as_first: whether `channels` are those of the first image, not asked for: colour that is lost is told.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self,
        files: Sequence[str],
        channels: int,
        size: int,
        workers: int,
        *,
        as_first: bool = False,
    ) -> None:
        self.files, self.channels, self.size = list(files), channels, size
        self.workers, self.as_first = workers, as_first
        # what was told, of which file: shared with what is cut from it or joined to it, so that each thing is
        # told once
        self.told: dict[str, str] = {}
        # of a process that decodes for another, which tells: it is begun anew for each pass over the images
        self.silent = False

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
                if frames_of(image):
                    self.tell("frames", label)
                if self.channels == 1 and self.as_first and image.mode not in GREY_MODES:
                    self.tell("colour", label)
                found[place] = pixels_of(image, (self.size, self.size), self.channels, label)
                for what in left_out(image):
                    self.tell(what, label)
        return found

    def tell(self, what: str, label: str) -> None:
        """Say once what of a file is not read."""
        if what in self.told:
            return
        self.told[what] = label
        if self.silent:
            return
        if what == "frames":
            warn_of_frames([label])
        elif what == "colour":
            log.warning(
                "%s is in colour and is read as grey, as the first image is, and so are all others; "
                "data.channels=3 keeps colour",
                label,
            )
        else:
            warn_left_out(what, [label])

    def subset(self, index: np.ndarray) -> EncodedImages:
        """The set of these positions alone."""
        return self._of([self.files[int(position)] for position in index])

    def joined(self, other: EncodedImages | None) -> EncodedImages:
        """This set with `other` behind it."""
        return self if other is None else self._of([*self.files, *other.files])

    def _of(self, files: list[str]) -> EncodedImages:
        made = EncodedImages(files, self.channels, self.size, self.workers, as_first=self.as_first)
        made.told = self.told
        return made
