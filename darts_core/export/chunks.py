"""Large batches in chunks, a thread each."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

__all__ = ["InChunks"]

Runner = Callable[[torch.Tensor], torch.Tensor]


class InChunks:
    """Large batches in chunks, each thread working on chunks of its own.

    Chunks stay in the cache of one core, and no operation waits for another core; small batches run
    on all threads together.
    """

    def __init__(self, whole: Runner, alone: Runner, chunk: int, threads: int) -> None:
        self._whole, self._alone, self._chunk = whole, alone, chunk
        self._pool = ThreadPoolExecutor(threads)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of the whole batch."""
        if len(x) < 2 * self._chunk:
            return self._whole(x)
        return torch.cat(list(self._pool.map(self._alone, x.split(self._chunk))))
