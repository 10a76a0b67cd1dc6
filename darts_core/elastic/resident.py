"""Gives freed memory back to the system, where a training on a CPU comes to hold more than it needs.

oneDNN compiles each layer anew for every shape, and keeps what it compiled (1,024 of them by default). These
small pieces come to stand between the tensors in the allocator's heap, which then grows although the tensors
do not: freed pieces are too short for the next large tensor. `malloc_trim` of the GNU C library returns their
pages. The next tensors have to ask for pages again, so it runs only after the process has grown.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import psutil
from torch import Tensor

__all__ = ["ResidentMemory"]

# of what the whole network's first pass took, that may stand before memory is given back
_SLACK = 1.2


class ResidentMemory:
    """The resident memory of this process, held near what one pass of the whole network takes.

    Elsewhere than on a CPU, or with another C library than GNU's, it does nothing.

    Attributes:
        trims: how often memory was given back.
    """

    def __init__(self) -> None:
        self.trims = 0
        # values of the largest batch so far; bytes after memory was given back, and that one pass takes
        self._size = self._least = self._need = 0
        self._measures = False

    def begin(self, x: Tensor) -> None:
        """A step over the batch `x` begins: the first one, and each larger one, is measured."""
        if x.device.type == "cpu" and x.numel() > self._size and _malloc_trim() is not None:
            self._size, self._measures = x.numel(), True
            self._give_back()

    def passed(self) -> None:
        """The gradients of a sub-network, of the whole network first, are formed, its activations freed."""
        if not self._size:
            return
        now = _resident()
        if self._measures:
            self._measures, self._need = False, now - self._least
        elif now > self._least + _SLACK * self._need:
            self._give_back()

    def _give_back(self) -> None:
        trim = _malloc_trim()
        assert trim is not None
        trim(0)
        self.trims += 1
        self._least = _resident()


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


@cache
def _malloc_trim() -> Callable[[int], Any] | None:
    if not sys.platform.startswith("linux"):
        return None
    found: Callable[[int], Any] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return found
