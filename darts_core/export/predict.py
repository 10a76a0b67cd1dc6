"""What an exported model says of files, with the preprocessing that the manifest states."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from darts_core.data.arrays import read_array
from darts_core.data.images import (
    frames_of,
    left_out,
    open_image,
    pixels_of,
    quietly,
    warn_left_out,
    warn_of_frames,
)
from darts_core.errors import DataError, ExportError
from darts_core.export.runtime import LoadedModel, load
from darts_core.export.saved import open_saved, saved_file
from darts_core.named_inputs import pack, shapes_of
from darts_core.reading import DAMAGE, regular_file

__all__ = ["Numbers", "Prediction", "predict", "read_image"]

log = logging.getLogger("darts_core")
_BESIDE = re.compile(r"<[^<>]+>|\[[^\[\]]+\]")


@dataclass(frozen=True)
class Prediction:
    """One file's result: the best class, its probability, and all probabilities by name."""

    image: str
    label: str
    probability: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Numbers:
    """One file's result where numbers are predicted: each by name, in the targets' own unit."""

    image: str
    values: dict[str, float]


def predict(
    model: str | Path | LoadedModel,
    images: str | Path | Iterable[str | Path],
    *,
    runtime: str | None = None,
    prefer: str | None = None,
    batch_size: int = 32,
    **options: Any,
) -> list[Prediction | Numbers]:
    """Predictions for files, in their order.

    Args:
        model: an export folder, a model.pt of ours or the folder of one, or a model that `load` gave.
        images: one path or several, of image files, read as the data sets read theirs
            (`darts_core.data.images` states the formats and rules); they are converted to the model's
            channels and resized to its height and width. Of any other model, and of images that are no
            bytes: `.npy` files with one sample each, of the model's shape and in the data's own numbers,
            `.npz` files of the inputs of a network of several; a text file for a model of characters.
        runtime: the artifact to run, if `model` is an export folder.
        prefer: instead, `speed` or `exact`; see `load`.
        batch_size: samples a call.
        options: further arguments of `load`, if `model` is a folder.

    Raises:
        DataError: a file is missing, damaged or of another shape.
        ExportError: the folder cannot be loaded, its task is not registered here, `batch_size` is below 1, or
            a model is given with what would not count: one that is loaded already, or is no export.
    """
    if batch_size < 1:
        raise ExportError(f"batch_size={batch_size} must be at least 1.")
    files = [images] if isinstance(images, str | Path) else list(images)
    if isinstance(model, LoadedModel):
        loaded = model
        _refuse_late(model, {"runtime": runtime, "prefer": prefer, **options})
    else:
        loaded = _opened(model, runtime, prefer, options)
    task = loaded.task
    if task is None:
        raise ExportError(
            f"The model belongs to the task {str(loaded.described.task.get('name'))[:80]!r}, which is not "
            "registered here; import the module that registers it (predict --plugins MODULE)."
        )
    results: list[Prediction | Numbers] = []
    unread: dict[str, list[str]] = {}
    for start in range(0, len(files), batch_size):
        part = files[start : start + batch_size]
        x = torch.stack([_sample(path, loaded, unread) for path in part])
        answers = task.read(loaded(x)).cpu()
        for path, row in zip(part, answers, strict=True):
            named = task.answers(row)
            if not all(map(math.isfinite, named.values())):
                log.warning("%s: the model gives NaN or infinity for it, which is no answer", path)
            if not task.ranked:
                results.append(Numbers(str(path), named))
                continue
            best = max(named, key=named.__getitem__)
            results.append(Prediction(str(path), best, named[best], named))
    _tell_unread(unread)
    return results


def _refuse_late(model: LoadedModel, given: Mapping[str, Any]) -> None:
    """Refuse what only loading reads, of a model that is loaded already."""
    named = [name for name, value in given.items() if value is not None]
    if named:
        raise ExportError(
            f"The model is loaded already, as {model.runtime!r} on {model.device}: {', '.join(named)} would "
            "not count; give it to load()."
        )


def _opened(
    place: str | Path, runtime: str | None, prefer: str | None, options: dict[str, Any]
) -> LoadedModel:
    saved = saved_file(place)
    if saved is None:
        return load(place, runtime, prefer=prefer, **options)
    if runtime not in (None, "eager") or prefer is not None:
        raise ExportError(
            f"{saved} is not exported: it runs eagerly, not as {runtime or prefer!r}."
        )
    # trust is a permission, which nothing needs here
    late = [
        name for name, v in options.items() if v is not None and name not in ("device", "trust")
    ]
    if late:
        raise ExportError(
            f"{saved} is not exported: it runs eagerly, and {', '.join(late)} would not count; leave it out."
        )
    return open_saved(saved, options.get("device"))


def _sample(path: str | Path, model: LoadedModel, unread: dict[str, list[str]]) -> torch.Tensor:
    """One file as the model takes it; what of it is not read is put into `unread`."""
    if model.described.named:
        return _row(path, model)
    if Path(path).suffix.lower() == ".npy":
        return prepare(_array(path, model), model)
    if len(model.input_shape) == 1:
        return _text(path, model)
    if len(model.input_shape) != 3 or model.described.unit != 255:
        raise DataError(
            f"{path}: the model takes values of shape {list(model.input_shape)}; give .npy files, one sample "
            "each."
        )
    return prepare(read_image(path, model.input_shape, unread), model)


def _row(path: str | Path, model: LoadedModel) -> torch.Tensor:
    """A sample of several inputs: a .npz file with one array for each, `image` or `x_image`."""
    try:
        with np.load(regular_file(Path(path)), allow_pickle=False) as archive:
            found = {name.removeprefix("x_"): archive[name][None] for name in archive.files}
    except (*DAMAGE, ValueError, AttributeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); the model takes .npz files of "
            f"{shapes_of(model.described.named)}."
        ) from error
    rows, _ = pack(found, str(path), model.described.named)
    return torch.from_numpy(rows[0])


def _array(path: str | Path, model: LoadedModel) -> np.ndarray:
    """A sample of a .npy file as the data sets hold it; images as well as [H, W, C].

    Raises:
        DataError: it is damaged, or no sample of the model's: shape, numbers that are no bytes, tokens that
            are none, what is not finite.
    """
    try:
        file = regular_file(Path(path))
        with file.open("rb") as stream:
            found = read_array(stream, file.stat().st_size, str(path))
    except DAMAGE as error:
        raise DataError(f"{path} cannot be read as an array ({error}).") from error
    shape = tuple(model.input_shape)
    sample = _shaped(found, shape)
    if sample is None or found.dtype.kind not in "uifb":
        raise DataError(
            f"{path} holds {found.dtype} of shape {list(found.shape)}; the model takes one sample of shape "
            f"{list(shape)}."
        )
    if found.dtype.kind == "f" and not np.isfinite(sample).all():
        raise DataError(f"{path} holds NaN or infinity; replace what is missing.")
    tokens = len(shape) == 1
    if tokens or model.described.unit == 255:
        most = len(model.described.vocabulary) or 2**31 if tokens else 256
        low, high = float(sample.min()), float(sample.max())
        if found.dtype.kind not in "ui" or low < 0 or high >= most:
            what = "token numbers" if tokens else "bytes, as its training data were,"
            raise DataError(
                f"{path} holds {found.dtype} from {low:g} to {high:g}; the model takes {what} whole numbers "
                f"from 0 to {most - 1}."
            )
    return sample


def _shaped(found: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """`found` as one sample of `shape`; None where its own shape says that it is none."""
    one = found[0] if found.ndim == len(shape) + 1 and len(found) == 1 else found
    if one.shape == shape:
        return one
    if len(shape) > 1 and shape[0] == 1 and one.shape == shape[1:]:
        return one[None]
    if len(shape) == 3 and one.shape == (*shape[1:], shape[0]):
        return one.transpose(2, 0, 1)
    return None


def _text(path: str | Path, model: LoadedModel) -> torch.Tensor:
    """The end of a text as token numbers."""
    vocabulary, length = model.described.vocabulary, model.input_shape[0]
    # what stands beside the characters, such as <pad>, is in no text
    tokens = [token for token in vocabulary if not _BESIDE.fullmatch(token)]
    if not tokens or any(len(token) != 1 for token in tokens):
        raise DataError(
            f"{path}: the model's tokens are no single characters, so texts are not cut up for it; give .npy "
            f"files of {length} token numbers, one sample each."
        )
    numbers = {text: number for number, text in enumerate(vocabulary)}
    try:
        content = regular_file(Path(path)).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}).") from error
    end = content[-length:]
    strange = sorted({text for text in end if text not in numbers})
    if strange or len(end) < length:
        why = f"holds {strange[0]!r}, which the model has not seen" if strange else "is too short"
        raise DataError(f"{path} {why}; the model reads the last {length} characters of a text.")
    return torch.tensor([numbers[text] for text in end])


def read_image(
    path: str | Path, input_shape: Sequence[int], unread: dict[str, list[str]] | None = None
) -> np.ndarray:
    """The image as uint8 [C, H, W]: one channel means grey, three mean RGB.

    Args:
        path: the file.
        input_shape: (C, H, W).
        unread: takes what of the file is not read, for many of which one line is enough; None: it is told.

    Raises:
        DataError: the file is missing, no image, or the model takes neither 1 nor 3 channels.
    """
    channels, height, width = input_shape
    if channels not in (1, 3):
        raise DataError(
            f"The model takes {channels} channels; image files give 1 or 3. Give .npy files, one sample each."
        )
    with quietly(), open_image(Path(path), str(path)) as image:
        pixels = pixels_of(image, (width, height), channels, str(path))
        found = {} if unread is None else unread
        for what in (*left_out(image), *(["frames"] if frames_of(image) else [])):
            found.setdefault(what, []).append(str(path))
    if unread is None:
        _tell_unread(found)
    return pixels


def _tell_unread(unread: Mapping[str, list[str]]) -> None:
    for what, files in sorted(unread.items()):
        if what == "frames":
            warn_of_frames(files)
        else:
            warn_left_out(what, files)


def prepare(sample: np.ndarray, model: LoadedModel) -> torch.Tensor:
    """One sample as the model takes it: normalised float32, or int64 token numbers."""
    known = model.described
    if sample.ndim == 1:
        return torch.from_numpy(sample.astype(np.int64))
    shape = (-1, *[1] * (sample.ndim - 1))
    mean = torch.tensor(known.mean, dtype=torch.float32).view(shape)
    std = torch.tensor(known.std, dtype=torch.float32).view(shape)
    # numpy's conversion: torch takes neither a foreign byte order nor long doubles
    with np.errstate(over="ignore"):
        values = torch.from_numpy(sample.astype(np.float32))
    return (values / known.unit - mean) / std
