"""`load_data`: name -> DataBundle: read a source, check it, divide it, move it to the device."""

from __future__ import annotations

import importlib
import inspect
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from darts_core.data.bundle import DataBundle
from darts_core.data.pool import Pool
from darts_core.data.source import MIN_SIZE, SOURCES, RawData, check_memory, check_raw
from darts_core.data.splits import divide
from darts_core.device import require_device
from darts_core.errors import ConfigError, unknown_name

__all__ = ["load_data", "make_bundle"]

log = logging.getLogger("darts_core")

_BUILT_IN = ("digits", "idx", "cifar", "image_folder", "parquet", "npz", "synthetic")
# enough images that mean and standard deviation are exact to well below a grey level
_STATISTICS_IMAGES = 10_000
# share of the free device memory that images may take; the rest is for the network
_RESIDENT_SHARE = 0.5


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
    **options: Any,
) -> DataBundle:
    """The data set `name`, checked, divided into params/alpha/val/test and placed on the device.

    Args:
        name: a registered source: digits, mnist, fashion_mnist, cifar10, cifar100, image_folder,
            parquet, npz, synthetic, or one added with `register_source`.
        path: file or folder of the data; None for the embedded sets.
        seed: divides params, alpha and val. The test split is the same for every seed.
        device: where batches appear.
        description: ignored; it lets a YAML file of `conf/data` be passed whole.
        limit: use only so many non-test images, classes in proportion; None for all.
        test_limit: use only so many test images; None for all.
        alpha_fraction: share of the training images that trains alpha (the rest trains params).
        val_fraction: share of the non-test images held out for selection.
        test_fraction: share of all images held out as test split where no official one exists.
        image_size: resize all images to this height and width; None keeps them.
        resident: True keeps the images on the device, False streams them from host memory, None
            decides by the device's free memory.
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
    known = [p for p in inspect.signature(loader).parameters if p != "path"]
    for option in options:
        if option not in known:
            raise ConfigError(unknown_name(f"option of the data set {name!r}", option, known))
    if image_size is not None and not MIN_SIZE <= image_size <= 1024:
        raise ConfigError(
            f"data.image_size={image_size} is not allowed; choose {MIN_SIZE}..1024 or null."
        )
    if "image_size" in known:  # a source that decodes files resizes while it decodes
        options["image_size"] = image_size
    raw = loader(None if path is None else Path(path).expanduser(), **options)
    if image_size is not None:
        raw = _resized(raw, image_size)
    return make_bundle(
        name,
        raw,
        seed=seed,
        device=device,
        limit=limit,
        test_limit=test_limit,
        alpha_fraction=alpha_fraction,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        resident=resident,
    )


def make_bundle(
    name: str,
    raw: RawData,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    limit: int | None = None,
    test_limit: int | None = None,
    alpha_fraction: float = 0.5,
    val_fraction: float = 0.15,
    test_fraction: float = 0.2,
    resident: bool | None = None,
) -> DataBundle:
    """A DataBundle of arrays in memory; see `load_data` for the arguments and errors."""
    check_raw(raw)
    official = 0 if raw.test_images is None else len(raw.test_images)
    images, labels = raw.images, raw.labels
    if raw.test_images is not None and raw.test_labels is not None:
        images = np.concatenate([images, raw.test_images])
        labels = np.concatenate([labels, raw.test_labels])
    labels = labels.astype(np.int64)
    parts = divide(
        labels,
        raw.class_names,
        official_test=official,
        seed=seed,
        alpha_fraction=alpha_fraction,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        limit=limit,
        test_limit=test_limit,
    )
    mean, std = _statistics(images, parts["params"])
    used = np.concatenate(list(parts.values()))
    if len(used) < len(labels):  # images cut away by a limit need no memory
        images, labels = images[used], labels[used]
        ends = np.cumsum([len(index) for index in parts.values()])
        starts = [0, *ends[:-1]]
        parts = {n: np.arange(a, b) for n, a, b in zip(parts, starts, ends, strict=True)}
    target = _device(device)
    place = target if _fits(images.nbytes, target, resident, name) else torch.device("cpu")
    pool = Pool(
        torch.from_numpy(np.require(images, requirements=["C", "W"])).to(place),
        torch.from_numpy(labels).to(place),
    )
    index = {n: torch.from_numpy(i.astype(np.int64)).to(place) for n, i in parts.items()}
    streamed = resident is False or place != target
    return DataBundle(name, raw.class_names, mean, std, target, pool, index, streamed=streamed)


def _device(device: str | torch.device) -> torch.device:
    """The device with its number: what tensors on it say."""
    target = require_device(device)
    if target.type == "cuda" and target.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return target


def _fits(size_bytes: int, device: torch.device, resident: bool | None, name: str) -> bool:
    if device.type != "cuda":
        return True
    if resident is None:
        free, _ = torch.cuda.mem_get_info(device)
        resident = size_bytes <= _RESIDENT_SHARE * free
    log.info(
        "%s: %.0f MiB of images %s",
        name,
        size_bytes / 2**20,
        f"are resident on {device}" if resident else "are streamed from host memory",
    )
    return resident


def _statistics(
    images: np.ndarray, index: np.ndarray
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation a channel, on the scale 0..1, of evenly chosen images."""
    chosen = index[:: max(1, len(index) // _STATISTICS_IMAGES)]
    values = np.arange(256) / 255
    mean, std = [], []
    for channel in range(images.shape[1]):
        counts = np.zeros(256)
        for start in range(0, len(chosen), 1000):
            block = images[chosen[start : start + 1000], channel]
            counts += np.bincount(block.reshape(-1), minlength=256)
        share = counts / counts.sum()
        centre = float(share @ values)
        mean.append(centre)
        # a channel that never changes is left at its scale instead of being divided by nothing
        std.append(float(np.sqrt(share @ (values - centre) ** 2)) or 1.0)
    return tuple(mean), tuple(std)


def _resized(raw: RawData, size: int) -> RawData:
    def resize(images: np.ndarray) -> np.ndarray:
        if images.ndim != 4 or images.dtype != np.uint8 or images.shape[2:] == (size, size):
            return images
        check_memory(images.shape[0] * images.shape[1] * size * size, f"data.image_size={size}")
        result = np.empty((*images.shape[:2], size, size), np.uint8)
        for start in range(0, len(images), 1000):
            block = torch.from_numpy(np.ascontiguousarray(images[start : start + 1000])).float()
            smooth = torch.nn.functional.interpolate(
                block, size=(size, size), mode="bilinear", antialias=True, align_corners=False
            )
            result[start : start + 1000] = smooth.round().clamp(0, 255).to(torch.uint8).numpy()
        return result

    test = None if raw.test_images is None else resize(raw.test_images)
    return RawData(
        resize(raw.images), raw.labels, raw.class_names, raw.origin, test, raw.test_labels
    )
