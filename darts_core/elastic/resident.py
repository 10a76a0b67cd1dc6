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

# what the process may grow beyond what a pass took before memory is given back: a share of that, at least
# so many bytes, as giving back little costs time and spares nobody
_SHARE, _BYTES = 0.2, 64 * 2**20


class ResidentMemory:
    """The resident memory of this process, held near what one pass takes.

    The first pass after each time that memory was given back shows what one takes. The very first alone may
    leave little, where the allocator returns all of its tensors and keeps those of later ones; measured by
    it, memory would be given back at every pass. Elsewhere than on a CPU, or with another C library than
    GNU's, it does nothing.

    Attributes:
        trims: how often memory was given back.
    """

    def __init__(self) -> None:
        self.trims = 0
        # values of the largest batch so far; bytes after memory was given back, and that a pass takes at most
        self._size = self._least = self._need = 0
        self._measures = False

    def begin(self, x: Tensor) -> None:
        """A step over the batch `x` begins: the first one, and each larger one, is measured."""
        if x.device.type == "cpu" and x.numel() > self._size and _malloc_trim() is not None:
            self._size, self._need = x.numel(), 0
            self._give_back()

    def passed(self) -> None:
        """The gradients of a sub-network, of the whole network first, are formed, its activations freed."""
        if not self._size:
            return
        now = _resident()
        self._least = min(self._least, now)  # other parts of the process may have freed theirs
        taken = now - self._least
        if self._measures:
            self._measures, self._need = False, max(self._need, taken)
        elif taken > self._need + max(_SHARE * self._need, _BYTES):
            self._give_back()

    def _give_back(self) -> None:
        trim = _malloc_trim()
        assert trim is not None
        trim(0)
        self.trims += 1
        self._least, self._measures = _resident(), True


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


@cache
def _malloc_trim() -> Callable[[int], Any] | None:
    if not sys.platform.startswith("linux"):
        return None
    found: Callable[[int], Any] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return found
