"""One epoch of batches: gathered, normalised and augmented on the device; any step can be redone.

Shapes: B batch, C channels, H W height and width, N images of a split.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from darts_core.data.decoders import decoded, usable_workers
from darts_core.data.encoded import EncodedImages
from darts_core.data.pool import Split

__all__ = ["BatchTransform", "Preparation", "derived_seed", "iterate"]

# batches copied to the device ahead of their use when the images stay in host memory
PREFETCH = 3


class BatchTransform(Protocol):
    """Changes a batch of images without changing its shape, drawing only from the generator.

    A plain function is applied to the uint8 pixels. An object may instead offer two methods of the
    same signature: `on_pixels`, before normalising, and `on_normalized`, after it. With an attribute
    `capturable` that is true it says that nothing is decided on the host, so that a CUDA graph of the
    search step may hold it.
    """

    def __call__(self, images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
        """The changed batch, same shape and device."""
        ...


class Images(Protocol):
    """Where batches come from, as far as this file needs it: a `DataBundle`."""

    device: torch.device
    streamed: bool

    def normalize(self, images_BCHW: Tensor) -> Tensor:
        """float32 images with zero mean and unit variance a channel."""
        ...


class Preparation:
    """From gathered pixels to the images of a step: augmented, normalised, augmented after it.

    Args:
        bundle: knows the normalisation and the device.
        augment: see `BatchTransform`; None only normalises.
    """

    def __init__(self, bundle: Images, augment: BatchTransform | None) -> None:
        self.bundle = bundle
        self.generator = torch.Generator(device=bundle.device) if augment is not None else None
        self.capturable: bool = augment is None or getattr(augment, "capturable", False)
        self._on_pixels = getattr(augment, "on_pixels", augment)
        self._on_normalized = getattr(augment, "on_normalized", None)

    def seed(self, tag: str, seed: int, epoch: int, step: int) -> None:
        """Make the random numbers those of a step, whatever was drawn before."""
        if self.generator is not None:
            self.generator.manual_seed(derived_seed(f"augment {tag}", seed, epoch, step))

    def pixels(self, images_BCHW: Tensor) -> Tensor:
        """Augmented uint8 images."""
        if self.generator is None or self._on_pixels is None:
            return images_BCHW
        changed: Tensor = self._on_pixels(images_BCHW, self.generator)
        return changed

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """float32 images [B, C, H, W], from uint8 of the same shape."""
        images_BCHW = self.bundle.normalize(self.pixels(images_BCHW))
        if self.generator is None or self._on_normalized is None:
            return images_BCHW
        changed: Tensor = self._on_normalized(images_BCHW, self.generator)
        return changed


def derived_seed(tag: str, *numbers: int) -> int:
    """A well-mixed 63-bit seed from a text and whole numbers that are not negative."""
    sequence = np.random.SeedSequence([zlib.crc32(tag.encode()), *numbers])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def _order(split: Split, tag: str, seed: int, epoch: int, shuffle: bool) -> Tensor:
    """The pool indices of the split in this epoch's order, where the pool lies."""
    if not shuffle:
        return split.index_N
    # drawn on the host: the same order on every kind of device
    generator = torch.Generator().manual_seed(derived_seed(f"order {tag}", seed, epoch))
    order = torch.randperm(len(split), generator=generator)
    return split.index_N[order.to(split.index_N.device)]


def _resident(
    split: Split, order_N: Tensor, batch: int, steps: range
) -> Iterator[tuple[Tensor, Tensor]]:
    for step in steps:
        yield split.pool.gather(order_N[step * batch : (step + 1) * batch])


def _from_files(
    split: Split, order_N: Tensor, batch: int, steps: range, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Decoded ahead by processes of their own."""
    images = split.pool.inputs_N
    assert isinstance(images, EncodedImages)
    parts = [order_N[step * batch : (step + 1) * batch] for step in steps]
    found = decoded(images, [part.numpy() for part in parts], pin=device.type == "cuda")
    for inputs_B, part in zip(found, parts, strict=True):
        targets_B = split.pool.targets_N.index_select(0, part)
        yield inputs_B.to(device, non_blocking=True), targets_B.to(device)


def _streamed(
    split: Split, order_N: Tensor, batch: int, steps: range, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Gather in a thread into pinned memory, copy while the device computes."""
    pool, pin = split.pool, device.type == "cuda"

    def gather(step: int) -> tuple[Tensor, Tensor]:
        images, labels = pool.gather(order_N[step * batch : (step + 1) * batch])
        return (images.pin_memory(), labels.pin_memory()) if pin else (images, labels)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="darts-data") as worker:
        waiting: list[Future[tuple[Tensor, Tensor]]] = []
        try:
            for step in [*steps, *[-1] * PREFETCH]:
                if step >= 0:
                    waiting.append(worker.submit(gather, step))
                if waiting and (step < 0 or len(waiting) > PREFETCH):
                    images, labels = waiting.pop(0).result()
                    yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        finally:
            for future in waiting:
                future.cancel()


def iterate(
    bundle: Images,
    split: Split,
    tag: str,
    batch: int,
    steps: range,
    seed_and_epoch: tuple[int, int],
    preparation: Preparation,
    shuffle: bool,
    ends_with: str,
) -> Iterator[tuple[Tensor, Tensor]]:
    """See `DataBundle.batches`, which checks the arguments."""
    order_N = _order(split, tag, *seed_and_epoch, shuffle)
    images = split.pool.inputs_N
    if isinstance(images, EncodedImages) and usable_workers(images):
        pairs = _from_files(split, order_N, batch, steps, bundle.device)
    elif bundle.streamed:
        pairs = _streamed(split, order_N, batch, steps, bundle.device)
    else:
        pairs = _resident(split, order_N, batch, steps)
    for step, (pixels_BCHW, labels_B) in zip(steps, pairs, strict=True):
        preparation.seed(tag, *seed_and_epoch, step)
        if ends_with == "gathered":
            yield pixels_BCHW, labels_B
        elif ends_with == "pixels":
            yield preparation.pixels(pixels_BCHW), labels_B
        else:
            yield preparation(pixels_BCHW), labels_B
