"""File locks: released by the system when their holder dies, whatever way it dies."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

from darts_core.device import own_folder
from darts_core.errors import JobError

__all__ = ["FileLock", "device_lock_path"]

_FOREVER = 1e9


class FileLock:
    """An exclusive lock between processes and threads on a file, held until `release` or the process ends.

    Not re-entrant: two objects on one path exclude each other, also in one thread.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        # a lock file that stands for the lock by being there outlives a killed holder
        self._lock = filelock.FileLock(self.path, thread_local=False, fallback_to_soft=False)

    def try_acquire(self) -> bool:
        """Take the lock if it is free.

        Raises:
            JobError: the file system offers no locks.
        """
        return self.acquire(0.0)

    def acquire(
        self,
        timeout_seconds: float | None = None,
        *,
        stop: Callable[[], bool] | None = None,
        poll_seconds: float = 0.02,
    ) -> bool:
        """Wait for the lock; False after the timeout or when `stop()` says so.

        Raises:
            JobError: the file system offers no locks.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # filelock refuses to wait without end for a lock of the same thread; `stop` may end such a wait
        if timeout_seconds is None:
            timeout_seconds = -1.0 if stop is None else _FOREVER
        try:
            self._lock.acquire(
                timeout=timeout_seconds,
                poll_interval=poll_seconds,
                cancel_check=stop,
            )
        except filelock.Timeout:
            return False
        except OSError as error:
            raise JobError(
                f"{self.path} cannot be locked ({error.strerror}); keep this folder on a file system "
                "with locks and where you may write."
            ) from error
        return True

    def release(self) -> None:
        """Let the next one in."""
        self._lock.release()

    @contextlib.contextmanager
    def held(self, timeout_seconds: float | None = None) -> Iterator[None]:
        """The lock as a `with` block.

        Raises:
            JobError: it stayed taken for `timeout_seconds`, or the file system offers no locks.
        """
        if not self.acquire(timeout_seconds):
            raise JobError(
                f"{self.path} has been locked by another command for {timeout_seconds:.0f} s; try again "
                "later."
            )
        try:
            yield
        finally:
            self.release()


def device_lock_path(root: str | Path, device: str) -> Path:
    """Where the lock of a device lies: `cpu` slots in the root, GPUs once for all of a user's roots.

    Raises:
        JobError: the device's name is not `cpu`, `cpu:N`, `cuda` or `cuda:N`; or another user has made the
            folder of the locks.
    """
    if not re.fullmatch(r"(cpu|cuda)(:\d{1,3})?", device):
        raise JobError(f"Unknown device {device!r}; use cpu, cpu:0, cuda, cuda:0 and so on.")
    name = device if ":" in device else f"{device}:0"
    if name.startswith("cpu"):
        return Path(root) / ".locks" / f"{name.replace(':', '-')}.lock"
    return own_folder("darts-core-", JobError) / f"{name.replace(':', '-')}.lock"
