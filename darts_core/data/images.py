"""The one reader of encoded images: data sets and `predict` see the same pixels of the same file.

What is read: JPEG, PNG, BMP, PPM, WebP, TIFF and GIF, by their content, whatever the file's name. Rules:
8 bits a channel only (16-bit, 32-bit and float images are refused: which values mean black and white is
not in the file); CMYK and YCbCr become RGB by the plain formulas, without colour profiles; EXIF rotation
and transparency are left out, and that is said; of several frames the first is taken, and that is
said; at most 64 million pixels.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from darts_core.errors import DataError
from darts_core.reading import regular_file

__all__ = [
    "FORMATS",
    "GREY_MODES",
    "frames_of",
    "left_out",
    "open_image",
    "pixels_of",
    "quietly",
    "warn_left_out",
    "warn_of_frames",
]

log = logging.getLogger("darts_core")

# named, since Pillow also knows formats that start other programs (EPS calls Ghostscript)
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "WEBP", "TIFF", "GIF")
MAX_PIXELS = 64_000_000
GREY_MODES = ("1", "L", "LA")
_MODES = (*GREY_MODES, "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_TIFF_BITS, _ORIENTATION = 258, 274
_LEFT_OUT = {
    "transparency": "transparent parts are read in the colour that lies under them, often black; paint them "
    "on a ground where that is not meant",
    "rotation": "stored turned (EXIF), and read as it is stored; turn the pixels where that is not meant "
    "(PIL.ImageOps.exif_transpose)",
}


def open_image(source: Path | bytes, label: str) -> Any:
    """A Pillow image whose header fits the rules; its pixels are not read yet.

    Args:
        source: a path, or the encoded bytes.
        label: how messages call the image.

    Raises:
        DataError: the file is absent or no regular one, no image of the named formats, has more than
            64 million pixels, or other than 8 bits a channel.
    """
    from PIL import Image

    stream = io.BytesIO(source) if isinstance(source, bytes) else regular_file(source)
    try:
        image = Image.open(stream, formats=FORMATS)
        deep = _deep(image)
    except Exception as error:  # Pillow's readers let nearly every built-in exception through
        raise DataError(
            f"{label} is not a readable image ({_first_line(error)}); allowed are "
            f"{', '.join(FORMATS)}. Replace or remove it."
        ) from error
    problem = None
    if image.width * image.height > MAX_PIXELS:
        problem = f"announces {image.width}x{image.height} pixels; at most {MAX_PIXELS:,} are read"
    elif deep or image.mode not in _MODES:
        problem = f"has mode {image.mode}{deep}; convert it to 8 bits a channel, grey or RGB"
    if problem is not None:
        image.close()
        raise DataError(f"{label} {problem}.")
    return image


def _deep(image: Any) -> str:
    """What of a file has more than 8 bits a channel, where Pillow's mode does not tell it; or nothing."""
    arguments = image.tile[0].args if image.tile else ""
    if image.format == "PNG" and ";16" in str(arguments):
        return " of 16 bits a channel"
    if image.format == "PPM" and isinstance(arguments, tuple) and arguments[-1] > 255:
        return f" with values up to {arguments[-1]}"
    if image.format == "TIFF" and max(image.tag_v2.get(_TIFF_BITS, (1,))) > 8:
        return f" of {max(image.tag_v2[_TIFF_BITS])} bits a channel"
    return ""


@contextmanager
def quietly() -> Iterator[None]:
    """A block without Pillow's warnings about sizes and metadata. Not to be entered by threads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


def frames_of(image: Any) -> bool:
    """Whether the file holds more than the one image that is read."""
    return bool(getattr(image, "is_animated", False))


def warn_of_frames(labels: list[str]) -> None:
    """Say that of the files called `labels` the first frame was taken."""
    if labels:
        more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
        log.warning("%s%s: several frames in a file; the first is taken", labels[0], more)


def left_out(image: Any) -> tuple[str, ...]:
    """What an image says that is not in its pixels, which were read: keys of `_LEFT_OUT`."""
    try:
        turned = image.getexif().get(_ORIENTATION) in range(2, 9)
        keyed = "A" in image.getbands() or "transparency" in image.info
        whole = image.convert("RGBA").getchannel("A").getextrema()[0] == 255 if keyed else True
    except Exception:  # damaged notes beside pixels that are sound
        return ()
    return ("transparency",) * (not whole) + ("rotation",) * turned


def warn_left_out(what: str, labels: list[str]) -> None:
    """Say of the files called `labels` that it is left out, and what that means."""
    if labels:
        more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
        log.warning("%s%s: %s", labels[0], more, _LEFT_OUT[what])


def pixels_of(image: Any, size: tuple[int, int], channels: int, label: str) -> np.ndarray:
    """The first frame as uint8 [C, H, W], resized bilinearly to `size` (width, height).

    Its shape is kept: the middle of the image is taken where that of `size` is another one.

    Args:
        image: from `open_image`.
        size: (W, H).
        channels: 1 (luminance) or 3 (RGB; a grey image is repeated).
        label: how messages call the image.

    Raises:
        DataError: the pixels are damaged.
    """
    from PIL import Image, ImageOps

    try:
        plain = image.convert("L" if channels == 1 else "RGB")
    except Exception as error:  # as above: decoders raise whatever they meet
        raise DataError(
            f"{label} cannot be decoded ({_first_line(error)}); replace or remove it."
        ) from error
    if plain.size != size:
        plain = ImageOps.fit(plain, size, Image.Resampling.BILINEAR)
    pixels = np.asarray(plain, np.uint8)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
