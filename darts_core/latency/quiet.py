"""Trainings that share a device step aside while one of them is timed.

`device_lock` keeps two timings apart, but a timing beside a neighbour's training is slow all the same.
Trainings hold a shared lock and look up between epochs; whoever times asks for the lock alone. Two
lock files: who waits at the gate keeps others from entering, so that a timing waits for one epoch at most.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from darts_core.device import require_device
from darts_core.latency import device as _device

try:  # file locks of this kind exist on Linux and macOS only
    import fcntl
except ImportError:  # pragma: no cover
    fcntl = None  # type: ignore[assignment]

__all__ = ["SharedDevice", "alone_on"]


def _path(device: torch.device, kind: str) -> Path:
    # the same index means another GPU to a process that sees others
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "") if device.type == "cuda" else ""
    return _device.lock_path(
        f"{device.type}{device.index or 0}-{zlib.crc32(seen.encode()):08x}-{kind}"
    )


def _locked(path: Path, how: str) -> Any:
    """The open file that holds the lock (closing lets go of it); None where it is taken and `how` is try."""
    stream = path.open("a", encoding="utf-8")
    if fcntl is None:  # pragma: no cover
        return stream
    flags = {"shared": fcntl.LOCK_SH, "alone": fcntl.LOCK_EX, "try": fcntl.LOCK_EX | fcntl.LOCK_NB}
    try:
        fcntl.flock(stream, flags[how])
    except BlockingIOError:
        stream.close()
        return None
    return stream


class SharedDevice:
    """A training's use of a device, as a `with` block; call `step_aside` between epochs."""

    def __init__(self, device: str | torch.device) -> None:
        self.device = require_device(device)
        self._use: Any = None

    def __enter__(self) -> SharedDevice:
        with contextlib.closing(_locked(_path(self.device, "gate"), "alone")):
            self._use = _locked(_path(self.device, "use"), "shared")
        return self

    def __exit__(self, *_: object) -> None:
        self._use.close()

    def step_aside(self) -> None:
        """Wait here while another process times on the device, if one wants to."""
        gate = _locked(_path(self.device, "gate"), "try")
        if gate is not None:
            gate.close()
            return
        self._use.close()
        self.__enter__()


@contextlib.contextmanager
def alone_on(device: str | torch.device) -> Iterator[None]:
    """Keep this program's trainings off the device for the block; waits for the end of their epoch."""
    found = require_device(device)
    with (
        contextlib.closing(_locked(_path(found, "gate"), "alone")),
        contextlib.closing(_locked(_path(found, "use"), "alone")),
    ):
        yield
