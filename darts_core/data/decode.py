"""Decoding encoded images (JPEG, PNG, ...) into one uint8 array, for folders and parquet files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from darts_core.data.images import (
    GREY_MODES,
    frames_of,
    left_out,
    open_image,
    pixels_of,
    quietly,
    warn_left_out,
    warn_of_frames,
)
from darts_core.data.source import check_memory
from darts_core.errors import DataError

__all__ = ["channels_of", "decode_images"]

log = logging.getLogger("darts_core")

# images a task: a task costs as much as decoding a small image
_CHUNK = 64


def channels_of(source: Path | bytes, label: str | None = None) -> int:
    """1 for a grey image, else 3.

    Raises:
        DataError: it is unreadable.
    """
    with quietly(), open_image(source, label or str(source)) as image:
        return 1 if image.mode in GREY_MODES else 3


def decode_images(
    sources: Sequence[Path | bytes],
    label_of: Callable[[int], str],
    *,
    image_size: int | None,
    channels: int | None,
    origin: str,
    as_first: bool = False,
) -> np.ndarray:
    """All images as uint8 [N, C, S, S].

    Args:
        sources: a path or the encoded bytes of each image.
        label_of: position -> how an error message names that image.
        image_size: S; None takes the size of the first image and asks the same of all others.
        channels: 1 or 3; None takes 1 when the first image is grey, else 3. Grey images become
            colour by repetition, colour images grey by their luminance.
        origin: names the data set in error messages.
        as_first: `channels` are those of some first image; colour that is lost by it is told.

    Raises:
        DataError: an image is unreadable, announces absurd dimensions, or has another size.
    """
    if not sources:
        raise DataError(f"{origin} holds no images; at least a few a class are needed.")
    with quietly(), open_image(sources[0], label_of(0)) as first:
        width, height = (image_size, image_size) if image_size else first.size
        threads = 8 if first.width * first.height > 64 * 64 else 1
    as_first = as_first or channels is None
    channels = channels or channels_of(sources[0], label_of(0))
    check_memory(len(sources) * channels * width * height, origin)
    result = np.empty((len(sources), channels, height, width), np.uint8)

    several: list[int] = []
    colored: list[int] = []
    unread: dict[str, list[int]] = {}

    def fill(start: int) -> None:
        for position in range(start, min(start + _CHUNK, len(sources))):
            label = label_of(position)
            with open_image(sources[position], label) as image:
                if image.size != (width, height) and not image_size:
                    raise DataError(
                        f"{label} is {image.width}x{image.height}, the first image {width}x{height}; "
                        "data.image_size=32 (or another size) resizes all."
                    )
                if frames_of(image):
                    several.append(position)
                if channels == 1 and image.mode not in GREY_MODES:
                    colored.append(position)
                result[position] = pixels_of(image, (width, height), channels, label)
                for what in left_out(image):
                    unread.setdefault(what, []).append(position)

    # Pillow decodes outside the interpreter lock, which pays for large images only
    with (
        quietly(),
        ThreadPoolExecutor(max_workers=threads, thread_name_prefix="darts-decode") as workers,
    ):
        for _ in workers.map(fill, range(0, len(sources), _CHUNK)):
            pass
    warn_of_frames([label_of(position) for position in sorted(several)])
    for what, found in sorted(unread.items()):
        warn_left_out(what, [label_of(position) for position in sorted(found)])
    if colored and as_first:
        log.warning(
            "%d of %d images of %s are in colour (%s) and are read as grey, as the first one is; "
            "data.channels=3 keeps colour",
            len(colored),
            len(sources),
            origin,
            label_of(min(colored)),
        )
    return result
