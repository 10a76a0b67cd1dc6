"""A made-up data set whose class can only be seen with a receptive field of a known width.

Two small patterns stand `reach` pixels apart, side by side or one above the other. Each pattern
alone says nothing about the class, nor does any sum of evidence from the two: the class is the
difference of their numbers, modulo the number of classes. So a network must see both at once. A
weaker local shortcut, a third pattern, tells the class for a share of the images; a search that
settles for it (short receptive fields, skip connections) ends at a known, lower accuracy.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from darts_core.data.source import RawData, register_source
from darts_core.errors import ConfigError, DataError

__all__ = ["load_synthetic"]

_PATTERN = 3


def _patterns(count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` clearly different 3x3 patterns of +-1 whose sum is one."""
    chosen: list[np.ndarray] = []
    while len(chosen) < count:
        pattern = rng.permutation(np.repeat([1.0, -1.0], [5, 4])).reshape(_PATTERN, _PATTERN)
        if all(abs((pattern * other).sum()) <= 5 for other in chosen):
            chosen.append(pattern)
    return np.stack(chosen)


def _stamp(canvas: np.ndarray, patterns: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> None:
    """Add one 3x3 pattern an image at its own place."""
    steps = np.arange(_PATTERN)
    image = np.arange(len(canvas))[:, None, None]
    np.add.at(
        canvas,
        (image, rows[:, None, None] + steps[:, None], columns[:, None, None] + steps),
        patterns,
    )


@register_source(
    "synthetic", description="made-up images with a planted receptive field and a shortcut"
)
def load_synthetic(
    path: Path | None = None,
    count: int = 2000,
    size: int = 16,
    classes: int = 2,
    reach: int = 5,
    shortcut: float = 0.6,
    noise: float = 0.3,
    data_seed: int = 0,
) -> RawData:
    """Grey images [count, 1, size, size] in equal classes.

    Args:
        path: must be None.
        count: number of images.
        size: height and width.
        classes: number of classes, 2..6.
        reach: pixels between the centres of the two patterns; 3..size-6. The class needs a
            receptive field of reach + 3.
        shortcut: share of images, 0..1, in which the third pattern shows the class; in the others
            it shows a random one.
        noise: standard deviation of the pixel noise, relative to the patterns' height.
        data_seed: makes the images; independent of the seed that divides them.
    """
    if path is not None:
        raise DataError(
            f"The data set 'synthetic' is computed and reads no data.path={path}; remove it."
        )
    for name, value, low, high in (
        ("classes", classes, 2, 6),
        ("size", size, 12, 256),
        ("reach", reach, _PATTERN, size - 6),
        ("count", count, 20 * classes, 10**6),
        ("shortcut", shortcut, 0, 1),
        ("noise", noise, 0, 10),
        ("data_seed", data_seed, 0, 2**62),
    ):
        if not low <= value <= high:
            raise ConfigError(f"data.{name}={value} is not allowed; choose {low}..{high}.")
    rng = np.random.default_rng([7, data_seed])
    patterns = _patterns(2 * classes, rng)
    labels = rng.permutation(np.arange(count) % classes)
    first = rng.integers(0, classes, count)
    second = (first + labels) % classes
    hint = np.where(rng.random(count) < shortcut, labels, rng.integers(0, classes, count))
    canvas = rng.normal(0.0, noise, (count, size, size))
    along = rng.random(count) < 0.5
    # the shortcut's row band at the bottom stays free of the pair
    room = size - _PATTERN
    rows = rng.integers(0, np.where(along, room - _PATTERN, room - _PATTERN - reach) + 1)
    columns = rng.integers(0, np.where(along, room - reach, room) + 1)
    _stamp(canvas, patterns[first], rows, columns)
    _stamp(
        canvas,
        patterns[second],
        rows + np.where(along, 0, reach),
        columns + np.where(along, reach, 0),
    )
    _stamp(canvas, patterns[classes + hint], np.full(count, room), rng.integers(0, room + 1, count))
    images = np.clip(np.rint(128 + 48 * canvas), 0, 255).astype(np.uint8)[:, None]
    return RawData(
        images, labels.astype(np.int64), tuple(f"class{i}" for i in range(classes)), "synthetic"
    )
