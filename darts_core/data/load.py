"""`load_data`: name -> DataBundle: read a source, check it, divide it, move it to the device."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import numpy as np
import torch

from darts_core.data.bundle import DataBundle
from darts_core.data.checks import check_channels_first
from darts_core.data.encoded import EncodedImages
from darts_core.data.make import check_task, check_types, make_bundle
from darts_core.data.source import MIN_SIZE, SOURCES, Loader, RawData, check_memory
from darts_core.errors import ConfigError, DataError, unknown_name
from darts_core.settings.field import check_value, kind_words, type_of_hint
from darts_core.tasks import Task

__all__ = ["load_data", "make_bundle"]

_BUILT_IN = ("digits", "idx", "cifar", "image_folder", "parquet", "npz", "npy", "text", "synthetic")


def load_data(
    name: str,
    path: str | Path | None = None,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    description: str = "",
    limit: int | None = None,
    test_limit: int | None = None,
    alpha_fraction: float = 0.5,
    val_fraction: float = 0.15,
    test_fraction: float = 0.2,
    image_size: int | None = None,
    resident: bool | None = None,
    split_by: str | None = None,
    leave_out: Any = None,
    task: Task | None = None,
    **options: Any,
) -> DataBundle:
    """The data set `name`, checked, divided into params/alpha/val/test and placed on the device.

    Args:
        name: a registered source: digits, mnist, fashion_mnist, cifar10, cifar100, image_folder,
            parquet, npz, npy, text, synthetic, or one added with `register_source`.
        path: file or folder of the data; None for the embedded sets.
        seed: divides params, alpha and val. The test split is the same for every seed.
        device: where batches appear.
        description: ignored; it lets a YAML file of `conf/data` be passed whole.
        limit: use only so many non-test images, classes in proportion; None for all.
        test_limit: use only so many test images; None for all.
        alpha_fraction: share of the training images that trains alpha (the rest trains params).
        val_fraction: share of the non-test images held out for selection.
        test_fraction: share of all images held out as test split where no official one exists.
        image_size: resize the short side of all images to this and take the middle; None keeps them.
        resident: True keeps the images on the device, False streams them from host memory, None
            decides by the device's free memory.
        split_by: "group": each split holds whole groups (speakers, patients); None draws samples.
        leave_out: name or number of the group that is the test split; it implies `split_by="group"`.
        task: what is to be learned; None takes the task that the targets call for.
        **options: the source's own options.

    Raises:
        ConfigError: an unknown name or option, or a number out of range.
        DataError: missing, damaged or unsuitable data.
        DeviceError: the device is not there.
    """
    del description
    for module in _BUILT_IN:
        importlib.import_module(f"darts_core.data.{module}")
    loader = SOURCES[name]
    known = _check_options(name, loader, options)
    numbers: dict[str, Any] = {
        "seed": seed,
        "limit": limit,
        "test_limit": test_limit,
        "alpha_fraction": alpha_fraction,
        "val_fraction": val_fraction,
        "test_fraction": test_fraction,
    }
    # before a large set is read
    check_types(load_data, image_size=image_size, **numbers)
    check_task(task)
    if image_size is not None and not MIN_SIZE <= image_size <= 1024:
        raise ConfigError(
            f"data.image_size={image_size} is not allowed; choose {MIN_SIZE}..1024 or null."
        )
    if "image_size" in known:  # a source that decodes files resizes while it decodes
        options["image_size"] = image_size
    raw = loader(None if path is None else Path(path).expanduser(), **options)
    if not isinstance(raw, RawData):
        raise DataError(
            f"The data set {name!r} gives a {type(raw).__name__}; its function must return a "
            "darts_core.data.RawData."
        )
    if image_size is not None:
        raw = _resized(raw, image_size)
    return make_bundle(
        name,
        raw,
        device=device,
        resident=resident,
        split_by=split_by,
        leave_out=leave_out,
        task=task,
        **numbers,
    )


def _check_options(name: str, loader: Loader, options: Mapping[str, Any]) -> list[str]:
    """The options that `loader` knows; those given are among them, and of the types that it states.

    Raises:
        ConfigError: an option is unknown, missing or of another type.
    """
    known = {n: p for n, p in inspect.signature(loader).parameters.items() if n != "path"}
    for option in options:
        if option not in known:
            raise ConfigError(unknown_name(f"option of the data set {name!r}", option, known))
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    for option, parameter in known.items():
        missing = option not in (*options, "image_size") and parameter.kind in named
        if missing and parameter.default is inspect.Parameter.empty:
            raise ConfigError(f"The data set {name!r} needs data.{option}=...; give it.")
    try:
        hints = get_type_hints(loader)
    except Exception:  # somebody's own, of words or of types that only a checker sees
        return list(known)
    for option, value in options.items():
        kind, optional = type_of_hint(hints.get(option, Any))
        optional = optional or known[option].default is None
        kind = get_origin(kind) or kind  # what a list holds is the source's to check
        if kind_words(kind) is not None:
            check_value(f"data.{option}", _plain(value), kind, optional, None)
    return list(known)


def _plain(value: Any) -> Any:
    """A path as text and a number of numpy's as one of Python's: callers in Python give both."""
    if isinstance(value, Path):
        return str(value)
    return value.item() if isinstance(value, np.generic) else value


def _resized(raw: RawData, size: int) -> RawData:
    def resize(images: np.ndarray | EncodedImages) -> np.ndarray | EncodedImages:
        if isinstance(images, EncodedImages):
            return images  # of that size already
        if images.ndim != 4 or images.dtype != np.uint8:
            raise DataError(
                f"data.image_size={size} resizes images of uint8; {raw.origin} holds {images.dtype} of "
                f"shape {images.shape}. Leave it out."
            )
        check_channels_first(images.shape, f"The images of {raw.origin}")
        if images.shape[2:] == (size, size):
            return images
        check_memory(images.shape[0] * images.shape[1] * size * size, f"data.image_size={size}")
        result = np.empty((*images.shape[:2], size, size), np.uint8)
        # the short side becomes `size`, and of the long one the middle is taken
        short = min(images.shape[2:])
        sides = [round(side * size / short) for side in images.shape[2:]]
        top, left = ((side - size) // 2 for side in sides)
        for start in range(0, len(images), 1000):
            block = torch.from_numpy(
                np.array(images[start : start + 1000])
            ).float()  # often read-only
            smooth = torch.nn.functional.interpolate(
                block, size=sides, mode="bilinear", antialias=True, align_corners=False
            )[:, :, top : top + size, left : left + size]
            result[start : start + 1000] = smooth.round().clamp(0, 255).to(torch.uint8).numpy()
        return result

    test = None if raw.test_inputs is None else resize(raw.test_inputs)
    return replace(raw, inputs=resize(raw.inputs), test_inputs=test)
