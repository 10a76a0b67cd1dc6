"""A pool of processes that decode batches ahead of their use.

Which images a batch holds is decided before: the number of processes changes nothing but the time.
"""

from __future__ import annotations

import multiprocessing
import signal
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from darts_core.data.encoded import EncodedImages
from darts_core.errors import DataError
from darts_core.reading import why

__all__ = ["decoded", "usable_workers"]

# batches that every process keeps ready: more would only take memory
_AHEAD = 2


class _Batches(Dataset[tuple[Tensor, dict[str, str]] | DataError]):
    """Batch by batch, whole: a process decodes one after the other; beside it what is to be told of files."""

    def __init__(self, images: EncodedImages, parts: Sequence[np.ndarray]) -> None:
        self.images, self.parts = images, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, step: int) -> tuple[Tensor, dict[str, str]] | DataError:
        try:
            batch = _sendable(torch.from_numpy(self.images[self.parts[step]]))
            return batch, dict(self.images.told)
        except DataError as error:
            return error  # raised in the process that trains, as the sentence that it is


def _sendable(batch: Tensor) -> Tensor:
    """The batch, of a decoding process in the memory that it shares with the one that trains.

    A queue would put it there in a thread whose errors nobody hears: the training would wait for ever.

    Raises:
        DataError: there is no room for it, as in a container, whose `/dev/shm` has 64 MiB.
    """
    if get_worker_info() is None:
        return batch
    try:
        return batch.share_memory_()
    except RuntimeError as error:
        raise DataError(
            f"The memory that processes share (/dev/shm) lacks room for a batch of {batch.nbytes / 2**20:.1f}"
            f" MiB ({why(error)}); start the container with more (docker run --shm-size=2g), or give a "
            "smaller data.workers, 0 for none."
        ) from None


def usable_workers(images: EncodedImages) -> int:
    """How many processes may decode: none below a process that must not start others."""
    return 0 if multiprocessing.current_process().daemon else images.workers


def decoded(images: EncodedImages, parts: Sequence[np.ndarray], *, pin: bool) -> Iterator[Tensor]:
    """The batches [B, C, S, S] of these positions, in this order.

    Args:
        images: the files; their `workers` processes decode.
        parts: positions of every batch.
        pin: in pinned memory.

    Raises:
        DataError: a file is gone or damaged; it is named.
    """
    with warnings.catch_warnings():
        # how many processes pay is the user's own word
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        batches = iter(
            DataLoader(
                _Batches(images, parts),
                batch_size=None,
                num_workers=usable_workers(images),
                prefetch_factor=_AHEAD,
                pin_memory=pin,
                worker_init_fn=_quiet,
                # without one of its own it would draw from the global generator
                generator=torch.Generator(),
            )
        )
    for found in batches:
        if isinstance(found, DataError):
            raise found
        batch, told = found
        for what, label in told.items():
            images.tell(what, label)
        yield batch


def _quiet(_: int) -> None:
    own = get_worker_info()
    if own is not None and isinstance(own.dataset, _Batches):
        own.dataset.images.silent = True
    # the training process ends its decoders; a Ctrl-C reaches them, too
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.filterwarnings("ignore", module="PIL")
