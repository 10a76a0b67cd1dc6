"""Decoding encoded images (JPEG, PNG, ...) into one uint8 array, for folders and parquet files."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from darts_core.data.source import check_memory
from darts_core.errors import DataError

__all__ = ["FORMATS", "decode_images"]

# named, since Pillow also knows formats that start other programs (EPS calls Ghostscript)
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "WEBP", "TIFF", "GIF")
_MAX_PIXELS = 64_000_000
# images a task: a task costs as much as decoding a small image
_CHUNK = 64
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "F")


def _open(source: Path | bytes, label: str) -> Any:
    from PIL import Image

    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        image = Image.open(stream, formats=FORMATS)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{label} is not a readable image ({error}); allowed are {', '.join(FORMATS)}. "
            "Replace or "
            "remove it."
        ) from error
    if image.width * image.height > _MAX_PIXELS:
        raise DataError(
            f"{label} announces {image.width}x{image.height} pixels; at most {_MAX_PIXELS:,} are "
            "allowed."
        )
    return image


def decode_images(
    sources: Sequence[Path | bytes],
    label_of: Callable[[int], str],
    *,
    image_size: int | None,
    channels: int | None,
    origin: str,
) -> np.ndarray:
    """All images as uint8 [N, C, S, S].

    Args:
        sources: a path or the encoded bytes of each image.
        label_of: position -> how an error message names that image.
        image_size: S; None takes the size of the first image and asks the same of all others.
        channels: 1 or 3; None takes 1 when the first image is grey, else 3. Grey images become
            colour by repetition, colour images grey by their luminance.
        origin: names the data set in error messages.

    Raises:
        DataError: an image is unreadable, announces absurd dimensions, or has another size.
    """
    if not sources:
        raise DataError(f"{origin} holds no images; at least a few a class are needed.")
    with _open(sources[0], label_of(0)) as first:
        width, height = (image_size, image_size) if image_size else first.size
        threads = 8 if first.width * first.height > 64 * 64 else 1
        if channels is None:
            channels = 1 if first.mode in _GREY_MODES else 3
    check_memory(len(sources) * channels * width * height, origin)
    result = np.empty((len(sources), channels, height, width), np.uint8)

    def fill(start: int) -> None:
        for position in range(start, min(start + _CHUNK, len(sources))):
            label = label_of(position)
            with _open(sources[position], label) as image:
                pixels = _pixels(image, (width, height), channels, bool(image_size), label)
            result[position] = pixels

    # Pillow decodes outside the interpreter lock, which pays for large images only
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="darts-decode") as workers:
        for _ in workers.map(fill, range(0, len(sources), _CHUNK)):
            pass
    return result


def _pixels(
    image: Any, size: tuple[int, int], channels: int, resize: bool, label: str
) -> np.ndarray:
    from PIL import Image

    if image.size != size and not resize:
        raise DataError(
            f"{label} is {image.width}x{image.height}, the first image {size[0]}x{size[1]}; "
            "data.image_size=32 (or another size) resizes all."
        )
    try:
        if image.mode in ("I", "I;16", "F"):
            raise DataError(f"{label} has mode {image.mode}; convert it to 8 bits a channel.")
        plain = image.convert("L" if channels == 1 else "RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{label} cannot be decoded ({error}); replace or remove it.") from error
    if plain.size != size:
        plain = plain.resize(size, Image.Resampling.BILINEAR)
    pixels = np.asarray(plain, np.uint8)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
