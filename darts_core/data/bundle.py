"""DataBundle: the splits of one data set, resident on the device when they fit.

Shapes: B batch, C channels, H W height and width, T positions, N samples of a split.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from darts_core.data.batches import BatchTransform, Preparation, iterate
from darts_core.data.kinds import kind_of, sample_words
from darts_core.data.pool import Pool, Split
from darts_core.data.splits import SPLITS, cut
from darts_core.errors import ConfigError, DataError, unknown_name
from darts_core.named_inputs import NamedInput, shapes_of
from darts_core.tasks import Task

__all__ = ["DataBundle"]

log = logging.getLogger("darts_core")
Names = str | Sequence[str]
# targets that are read to tell data apart
_AT_ONCE = 10_000


@dataclass
class DataBundle:
    """One data set, divided into splits.

    `params` trains weights, `alpha` the architecture, `val` selects, `test` judges.

    Attributes:
        name: of the data set.
        class_names: what the network's outputs are called: classes, labels, columns or tokens.
        mean, std: one number a channel, from the params split alone; of uint8 images on the scale 0..1.
        device: where batches appear.
        pool, parts: the samples, and which of them a split holds.
        task: what is learned, fitted to these data.
        streamed: the inputs lie in host memory or in files and travel to the device batch by batch.
        test_reads: how often the test split was taken; only a final evaluation should do that.
        vocabulary: what token numbers in the inputs stand for.
        rate: samples a second of a series, where it is known.
        named: what the row of a sample is made of, where a network takes several inputs by name.
    """

    name: str
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device
    pool: Pool
    parts: dict[str, Tensor]
    task: Task
    streamed: bool = False
    test_reads: int = 0
    vocabulary: tuple[str, ...] = ()
    rate: float | None = None
    named: tuple[NamedInput, ...] = ()
    _affine_cache: dict[torch.device, tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def num_outputs(self) -> int:
        """How many numbers a network gives a sample (or a position): the task says."""
        return self.task.outputs

    @property
    def num_classes(self) -> int:
        """The number of names of outputs: of classes, where these are predicted."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input: (C, H, W) of images, (C, T) of series, (T,) of tokens."""
        return tuple(self.pool.inputs_N.shape[1:])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image.

        Raises:
            DataError: the inputs are no images.
        """
        if self.named:
            raise DataError(
                f"{self.name} holds named inputs ({shapes_of(self.named)}); this needs images."
            )
        if self.kind != "image":
            raise DataError(
                f"{self.name} holds {sample_words(len(self.input_shape))} of shape {self.input_shape}; "
                "this needs images (channels, height, width)."
            )
        channels, height, width = self.input_shape
        return channels, height, width

    @property
    def kind(self) -> str:
        """What the inputs are: image, series or tokens; or named, several of a sample."""
        return "named" if self.named else kind_of(len(self.input_shape)).name

    @property
    def _words(self) -> str:
        """What its samples are called in a sentence."""
        return "samples" if self.named else sample_words(len(self.input_shape))

    @property
    def in_channels(self) -> int:
        """What a network's first layer must take: channels, or of tokens how many there are."""
        return len(self.vocabulary) if self.kind == "tokens" else self.input_shape[0]

    @property
    def sizes(self) -> dict[str, int]:
        """The number of images in each split; this is not a read of the test split."""
        return {name: int(index.numel()) for name, index in self.parts.items()}

    @property
    def mark(self) -> str:
        """What tells data apart that have changed: the splits but for test, their targets, and the names.

        The inputs' own values do not count: images that are streamed would have to be read for it.
        """
        return self._mark([index for name, index in self.parts.items() if name != "test"])

    @cached_property
    def marks(self) -> dict[str, str]:
        """The same of each split by its name, worked out once; that of test is no read of it."""
        return {name: self._mark([index]) for name, index in self.parts.items()}

    def _mark(self, kept: Sequence[Tensor]) -> str:
        about = ascii((self.class_names, [len(index) for index in kept])).encode()
        found = zlib.crc32(about)
        # some at a time: those of a text are as large as its inputs
        for some in (some for index in kept for some in index.split(_AT_ONCE)):
            found = zlib.crc32(self.pool.targets_N[some].cpu().numpy().tobytes(), found)
        return f"{found:08x}"

    def _names(self, names: Names) -> tuple[str, ...]:
        wanted = (names,) if isinstance(names, str) else tuple(names)
        if not wanted or len(set(wanted)) != len(wanted):
            raise ConfigError(
                f"Splits {list(wanted)} are not allowed; name each of {SPLITS} at most once."
            )
        for name in wanted:
            if name not in self.parts:
                if name == "test":
                    raise DataError(
                        "This data bundle was made without its test split; selection uses 'val'."
                    )
                raise ConfigError(unknown_name("split", name, self.parts))
        return wanted

    def size(self, names: Names) -> int:
        """The number of images in the named splits together; not a read of the test split."""
        return sum(int(self.parts[name].numel()) for name in self._names(names))

    def split(self, names: Names) -> Split:
        """The named split, or several joined in the given order.

        Raises:
            ConfigError: a split is unknown or named twice.
            DataError: the test split is asked of a bundle made by `without_test`.
        """
        wanted = self._names(names)
        if "test" in wanted:
            self.test_reads += 1
            log.info("the test split of %s is read (%d)", self.name, self.test_reads)
        index = torch.cat([self.parts[name] for name in wanted])
        return Split(self.pool, index)

    @property
    def test(self) -> Split:
        """The test split; each use is counted in `test_reads`."""
        return self.split("test")

    def without_test(self) -> DataBundle:
        """The same bundle without its test split: what search, tuning and selection are given."""
        parts = {name: index for name, index in self.parts.items() if name != "test"}
        return replace(self, parts=parts, test_reads=0)

    def take(self, name: str, count: int, *, seed: int = 0) -> DataBundle:
        """The same bundle with the split `name` cut to `count` images of all classes (stratified).

        Raises:
            DataError: the split holds fewer than `count` images.
        """
        self._names(name)
        index = self.parts[name]
        if not 1 <= count <= index.numel():
            raise DataError(
                f"{count} {self._words} cannot be taken from the split {name!r} of {self.name}; it holds "
                f"{index.numel()}."
            )
        labels = self.pool.targets_N[index].cpu().numpy()
        if labels.ndim > 1 or labels.dtype.kind == "f":  # no classes to keep in proportion
            labels = np.zeros(len(labels), np.int64)
        kept = cut(labels, np.arange(len(labels)), count, np.random.default_rng(seed))
        few = index[torch.from_numpy(kept).to(index.device)]
        return replace(self, parts={**self.parts, name: few})

    @property
    def unit(self) -> int:
        """What stored values are divided by before they are normalised: 255 for bytes, else 1."""
        return 255 if self.pool.of_bytes else 1

    def normalize(self, inputs: Tensor) -> Tensor:
        """float32 inputs with zero mean and unit variance a channel (over the params split); tokens as int64.

        Shapes: [B, C, H, W] or [B, C, T] of the pool's dtype -> float32, the same shape and device.
        """
        if self.kind == "tokens":
            return inputs.long()
        scale, shift = self._affine(inputs.device)
        return torch.addcmul(shift, inputs.to(torch.float32), scale)

    def _affine(self, device: torch.device) -> tuple[Tensor, Tensor]:
        # kept: making them anew would copy from the host, and so wait for the device, at each step
        if device not in self._affine_cache:
            pairs = list(zip(self.mean, self.std, strict=True))
            # plain tensors, also where an evaluation in inference mode is the first to ask
            with torch.inference_mode(False):
                scale = torch.tensor(
                    [1 / (self.unit * s) for _, s in pairs], dtype=torch.float32, device=device
                )
                shift = torch.tensor([-m / s for m, s in pairs], dtype=torch.float32, device=device)
            shape = (1, -1, *[1] * (len(self.input_shape) - 1))
            self._affine_cache[device] = (scale.view(shape), shift.view(shape))
        return self._affine_cache[device]

    def steps(self, names: Names, batch_size: int, *, drop_last: bool = True) -> int:
        """The number of batches an epoch.

        Raises:
            ConfigError: `batch_size` is below 1.
            DataError: not one whole batch fits into the split and `drop_last` is set.
        """
        size = self.size(names)
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} is not allowed; choose 1 or more.")
        if drop_last and batch_size > size:
            where = names if isinstance(names, str) else "+".join(names)
            raise DataError(
                f"batch_size={batch_size} is larger than the split {where!r} of {self.name}, which "
                f"holds {size} {self._words}; choose at most {size}."
            )
        return size // batch_size if drop_last else -(-size // batch_size)

    def batches(
        self,
        names: Names,
        batch_size: int,
        *,
        seed: int = 0,
        epoch: int = 0,
        augment: BatchTransform | None = None,
        start: int = 0,
        drop_last: bool = True,
        shuffle: bool = True,
        pixels: bool = False,
        later: Preparation | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """An iterator over one epoch of (images, labels) on the device.

        Order and augmentation are functions of (seed, epoch, step, split names) alone: starting
        again at `start=k` gives batch k and its successors bit for bit.

        Shapes: float32 [B, C, H, W] normalised and augmented, int64 [B].

        Args:
            names: one split or several joined.
            batch_size: images a batch; with `drop_last` off the last batch may be smaller.
            seed: not negative.
            epoch: not negative.
            augment: see `darts_core.data.batches.BatchTransform`; None leaves the images alone.
            start: the step to begin with.
            drop_last: leave out an incomplete last batch.
            shuffle: draw a new order each epoch; off keeps the split's own.
            pixels: give the uint8 images, without normalising and what comes after it.
            later: give the images as they are; the caller applies this preparation, in place of
                `augment`, to each before it asks for the next.

        Raises:
            ConfigError: a number is out of range or a split unknown.
            DataError: the batch is larger than the split.
        """
        steps = self.steps(names, batch_size, drop_last=drop_last)
        if min(seed, epoch, start) < 0:
            raise ConfigError(
                f"seed={seed}, epoch={epoch}, start={start}: none of them may be negative."
            )
        split = self.split(names)
        tag = "+".join(self._names(names))
        steps_left = range(start, steps)
        return iterate(
            self, split, tag, batch_size, steps_left, (seed, epoch), later or Preparation(self, augment),
            shuffle, "gathered" if later is not None else "pixels" if pixels else "images",
        )  # fmt: skip
