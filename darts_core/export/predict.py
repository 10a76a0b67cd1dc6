"""Class predictions for image files, with the preprocessing that the manifest states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from darts_core.data.images import frames_of, open_image, pixels_of, quietly, warn_of_frames
from darts_core.errors import DataError
from darts_core.export.runtime import LoadedModel, load

__all__ = ["Prediction", "predict", "read_image"]


@dataclass(frozen=True)
class Prediction:
    """One image's result: the best class, its probability, and all probabilities by class name."""

    image: str
    label: str
    probability: float
    probabilities: dict[str, float]


def predict(
    model: str | Path | LoadedModel,
    images: Sequence[str | Path],
    *,
    runtime: str | None = None,
    batch_size: int = 32,
    **options: Any,
) -> list[Prediction]:
    """Predictions for image files, in their order.

    Args:
        model: an export folder, or a model that `load` gave.
        images: paths of image files, read as the data sets read theirs (`darts_core.data.images`
            states the formats and rules); they are converted to the model's channels and resized to
            its height and width.
        runtime: the artifact to run, if `model` is a folder.
        batch_size: images a call.
        options: further arguments of `load`.

    Raises:
        DataError: a file is missing or no image.
        ExportError: the folder cannot be loaded.
    """
    loaded = model if isinstance(model, LoadedModel) else load(model, runtime, **options)
    results: list[Prediction] = []
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        x = torch.stack([prepare(read_image(path, loaded.input_shape), loaded) for path in part])
        probability = loaded(x).float().softmax(1).cpu()
        for path, row in zip(part, probability, strict=True):
            best = int(row.argmax())
            results.append(
                Prediction(
                    str(path),
                    loaded.classes[best],
                    float(row[best]),
                    {name: float(p) for name, p in zip(loaded.classes, row, strict=True)},
                )
            )
    return results


def read_image(path: str | Path, input_shape: Sequence[int]) -> np.ndarray:
    """The image as uint8 [C, H, W]: one channel means grey, three mean RGB.

    Raises:
        DataError: the file is missing, no image, or the model takes neither 1 nor 3 channels.
    """
    channels, height, width = input_shape
    if channels not in (1, 3):
        raise DataError(f"The model takes {channels} channels; image files give 1 or 3.")
    with quietly(), open_image(Path(path), str(path)) as image:
        if frames_of(image):
            warn_of_frames([str(path)])
        return pixels_of(image, (width, height), channels, str(path))


def prepare(pixels_CHW: np.ndarray, model: LoadedModel) -> torch.Tensor:
    """Normalised float32 [C, H, W] for `model` from uint8 pixels."""
    mean = torch.tensor(model.manifest["mean"], dtype=torch.float32).view(-1, 1, 1)
    std = torch.tensor(model.manifest["std"], dtype=torch.float32).view(-1, 1, 1)
    return (torch.from_numpy(np.array(pixels_CHW)).float() / 255.0 - mean) / std
