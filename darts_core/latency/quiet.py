"""Trainings that share a device step aside while one of them is timed.

`device_lock` keeps two timings apart, but a timing beside a neighbour's training is slow all the same.
Trainings hold a shared lock and look up between epochs; whoever times asks for the lock alone. Two
lock files: who waits at the gate keeps others from entering, so that a timing waits for one epoch at most.
A process that holds its lock without going on (stopped, or on a disk that hangs) holds nobody up for ever:
the wait is said, and after `PATIENCE` seconds the training goes on beside the timing, the timing beside the
training, with a warning.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
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

log = logging.getLogger("darts_core")

PATIENCE = 1800.0
_TELL_AFTER = 5.0


def _path(device: torch.device, kind: str) -> Path:
    # the same index means another GPU to a process that sees others
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "") if device.type == "cuda" else ""
    return _device.lock_path(
        f"{device.type}{device.index or 0}-{zlib.crc32(seen.encode()):08x}-{kind}"
    )


def _locked(path: Path, how: str, *, seconds: float = 0.0, what: str = "") -> Any:
    """The open file that holds the lock (closing lets go); None where it is still taken after `seconds`.

    Args:
        path: of the lock.
        how: `shared` or `alone`.
        seconds: to wait.
        what: is waited for, in the log.

    Raises:
        LatencyError: the file system has no locks.
    """
    stream = path.open("a+", encoding="utf-8")  # over NFS only what may read can share
    if fcntl is None:  # pragma: no cover
        return stream
    flags = (fcntl.LOCK_SH if how == "shared" else fcntl.LOCK_EX) | fcntl.LOCK_NB
    started, told = time.monotonic(), False
    while True:
        try:
            fcntl.flock(stream, flags)
            return stream
        except BlockingIOError:
            waited = time.monotonic() - started
        except OSError as error:
            stream.close()
            raise _device.no_locks(error, path) from error
        if waited >= seconds:
            stream.close()
            if seconds:
                log.warning("%s did not end within %.0f s (lock %s): going on", what, seconds, path)
            return None
        if waited > _TELL_AFTER and not told:
            told = True
            log.info("waiting for %s to end", what)
        time.sleep(0.02)


class SharedDevice:
    """A training's use of a device, as a `with` block; call `step_aside` between epochs."""

    def __init__(self, device: str | torch.device) -> None:
        self.device = require_device(device)
        self._use: Any = None
        self._patience = PATIENCE

    def __enter__(self) -> SharedDevice:
        gate = self._wait("gate", "alone")
        self._use = self._wait("use", "shared")
        _let_go(gate)
        return self

    def _wait(self, kind: str, how: str) -> Any:
        path, what = _path(self.device, kind), f"a timing on {self.device}"
        found = _locked(path, how, seconds=self._patience, what=what)
        if found is None:  # waited for once, not again in every epoch
            self._patience = 0.0
        return found

    def __exit__(self, *_: object) -> None:
        _let_go(self._use)

    def step_aside(self) -> None:
        """Wait here while another process times on the device, if one wants to."""
        gate = _locked(_path(self.device, "gate"), "alone")
        if gate is not None:
            gate.close()
            return
        _let_go(self._use)
        self.__enter__()


@contextlib.contextmanager
def alone_on(device: str | torch.device) -> Iterator[None]:
    """Keep this program's trainings off the device for the block; waits for the end of their epoch."""
    found = require_device(device)
    gate = _locked(
        _path(found, "gate"), "alone", seconds=PATIENCE, what=f"another timing on {found}"
    )
    use = _locked(
        _path(found, "use"), "alone", seconds=PATIENCE, what=f"the epochs of trainings on {found}"
    )
    try:
        yield
    finally:
        _let_go(use)
        _let_go(gate)


def _let_go(stream: Any) -> None:
    if stream is not None:
        stream.close()
