"""File locks: released by the system when their holder dies, whatever way it dies."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from darts_core.errors import JobError

__all__ = ["FileLock", "device_lock_path", "file_lock"]


class FileLock:
    """An exclusive lock on a file, held until `release` or the end of the process."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._handle: int | None = None

    def try_acquire(self) -> bool:
        """Take the lock if it is free."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
        handle = os.open(self.path, flags, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return False
        self._handle = handle
        return True

    def acquire(
        self,
        timeout_seconds: float | None = None,
        *,
        stop: Callable[[], bool] | None = None,
        poll_seconds: float = 0.05,
    ) -> bool:
        """Wait for the lock; False after the timeout or when `stop()` says so."""
        begun = time.monotonic()
        while not self.try_acquire():
            if stop is not None and stop():
                return False
            if timeout_seconds is not None and time.monotonic() - begun > timeout_seconds:
                return False
            time.sleep(poll_seconds)
        return True

    def release(self) -> None:
        """Let the lock go."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


@contextlib.contextmanager
def file_lock(path: str | Path, timeout_seconds: float = 30.0) -> Iterator[None]:
    """Hold the lock at `path` inside the block.

    Raises:
        JobError: it stayed taken for `timeout_seconds`.
    """
    lock = FileLock(path)
    if not lock.acquire(timeout_seconds):
        raise JobError(
            f"{path} has been locked by another command for {timeout_seconds:.0f} s; try again later."
        )
    try:
        yield
    finally:
        lock.release()


def device_lock_path(root: str | Path, device: str) -> Path:
    """Where the lock of a device lies: `cpu` slots in the root, GPUs once for all of a user's roots.

    Raises:
        JobError: the device's name is not `cpu`, `cpu:N`, `cuda` or `cuda:N`.
    """
    if not re.fullmatch(r"(cpu|cuda)(:\d{1,3})?", device):
        raise JobError(f"Unknown device {device!r}; use cpu, cpu:0, cuda, cuda:0 and so on.")
    name = device if ":" in device else f"{device}:0"
    if name.startswith("cpu"):
        return Path(root) / ".locks" / f"{name.replace(':', '-')}.lock"
    shared = Path(tempfile.gettempdir()) / f"darts-core-{getpass.getuser()}"
    shared.mkdir(mode=0o700, exist_ok=True)
    if shared.stat().st_uid != os.getuid():
        raise JobError(f"{shared} belongs to another user; remove it or set TMPDIR.")
    return shared / f"{name.replace(':', '-')}.lock"
