"""What a shrinking took, over all of its sittings: kept whenever something is safe on disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from darts_core.runlog import read_mapping, write_json
from darts_core.stages.timing import stopwatch

__all__ = ["Spent", "spent_on"]


class Spent:
    """Seconds on the device, of this sitting and of those before it.

    Attributes:
        seconds: of all sittings; final when the block of `spent_on` has ended.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.earlier = _kept(path)
        self.seconds = self.earlier
        self._began = self._told = time.perf_counter()

    def keep(self, every: float = 0.0) -> None:
        """Note on disk what was spent until now, unless it was noted within the last `every` seconds."""
        now = time.perf_counter()
        if self._path is None or now - self._told < every:
            return
        self._told = now
        seconds = self.earlier + now - self._began
        write_json(self._path, {"schema_version": 1, "device_seconds": seconds})


def _kept(path: Path | None) -> float:
    found = read_mapping(path) if path is not None and path.is_file() else {}
    seconds = found.get("device_seconds")
    return float(seconds) if isinstance(seconds, (int, float)) else 0.0


@contextmanager
def spent_on(device: torch.device, path: Path | None) -> Iterator[Spent]:
    """Count the seconds of the block.

    Args:
        device: that it computes on.
        path: the file that keeps them over sittings; None: nothing is kept.
    """
    spent = Spent(path)
    with stopwatch(device) as watch:
        yield spent
    spent.seconds = spent.earlier + watch.seconds
