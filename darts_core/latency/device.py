"""What a timing needs to know about the device: name, lock, threads, foreign load."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from darts_core.device import own_folder, require_device
from darts_core.errors import LatencyError
from darts_core.runlog import processor_name

try:  # file locks of this kind exist on Linux and macOS only
    import fcntl
except ImportError:  # pragma: no cover
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "Load",
    "device_lock",
    "device_name",
    "foreign_gpu_processes",
    "lock_path",
    "no_locks",
    "pinned_threads",
    "require_device",
    "versions",
]

log = logging.getLogger("darts_core")

_TELL_AFTER = 5.0
_held: dict[str, int] = {}
_held_files: dict[str, Any] = {}
_guard = threading.RLock()


def device_name(device: str | torch.device) -> str:
    """The hardware's own name, which stamps each row: the GPU's, or the processor's model name."""
    found = require_device(device)
    if found.type == "cuda":
        return str(torch.cuda.get_device_name(found))
    return f"{processor_name()} ({os.cpu_count()} cores)"


def versions(runtime: str) -> dict[str, str]:
    """Versions of the packages whose code a timing under `runtime` runs."""
    names = ["torch"]
    if runtime.startswith("onnx"):
        names.append("onnxruntime")
    if runtime in ("compile", "fused") or "aoti" in runtime:
        names.append("triton")
    found = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@contextlib.contextmanager
def device_lock(device: str | torch.device, *, wait_seconds: float = 1800.0) -> Iterator[None]:
    """Hold the device alone among the processes of this program while something is timed.

    The lock is a file per device in the temporary folder; a process that dies lets go of it. It may
    be entered again inside itself.

    Raises:
        LatencyError: another process kept the lock for longer than `wait_seconds`, there are no locks, or
            another user has made their folder.
    """
    found = require_device(device)
    key = f"{found.type}{found.index or 0}"
    with _guard:
        if _held.get(key, 0) == 0:
            _held_files[key] = _acquire(key, wait_seconds)
        _held[key] = _held.get(key, 0) + 1
    try:
        yield
    finally:
        with _guard:
            _held[key] -= 1
            if _held[key] == 0:
                stream = _held_files.pop(key)
                if stream is not None:
                    stream.close()  # closing lets go of the lock


def lock_path(key: str) -> Path:
    """The lock file called `key`, in this user's own folder.

    Raises:
        LatencyError: another user has made that folder.
    """
    return own_folder("darts_core_locks_", LatencyError) / f"{key}.lock"


def _acquire(key: str, wait_seconds: float) -> Any:
    if fcntl is None:  # pragma: no cover
        return None
    stream = lock_path(key).open("a", encoding="utf-8")
    started, told = time.monotonic(), False
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return stream
        except BlockingIOError:
            waited = time.monotonic() - started
            if (
                waited > _TELL_AFTER and not told
            ):  # timings that take turns are not worth a line each
                log.info("waiting for another timing on %s to end", key)
                told = True
            if waited > wait_seconds:
                stream.close()
                raise LatencyError(
                    f"Another process has timed on {key} for more than {wait_seconds:.0f} s "
                    f"(lock {lock_path(key)}); stop it or wait."
                ) from None
            time.sleep(0.05)
        except OSError as error:
            stream.close()
            raise no_locks(error, lock_path(key)) from error


def no_locks(error: OSError, path: Path) -> LatencyError:
    """What is said where the folder for temporary files has no locks, as some file systems of clusters."""
    return LatencyError(
        f"{path} cannot be locked ({error.strerror}); set TMPDIR to a folder on a file system with locks."
    )


@contextlib.contextmanager
def pinned_threads(device: torch.device, threads: int | None = None) -> Iterator[int]:
    """Run torch on `threads` threads bound to as many cores; the count is yielded.

    The default is torch's own thread count. On a GPU nothing is changed. Threads that exist already
    (the pools of torch and ONNX Runtime) are bound too and let go afterwards.
    """
    before = torch.get_num_threads()
    wanted = before if threads is None else threads
    if wanted < 1:
        raise LatencyError(f"A timing needs at least 1 thread, not {wanted}.")
    if device.type != "cpu" or not hasattr(os, "sched_setaffinity"):
        yield wanted
        return
    allowed = os.sched_getaffinity(0)
    cores = set(sorted(allowed)[:wanted]) or allowed
    torch.set_num_threads(wanted)
    _bind(cores)
    try:
        yield wanted
    finally:
        _bind(allowed)
        torch.set_num_threads(before)


def _bind(cores: set[int]) -> None:
    for task in Path("/proc/self/task").iterdir():
        # a thread may end between the listing and the call
        with contextlib.suppress(OSError, ValueError):
            os.sched_setaffinity(int(task.name), cores)


class Load:
    """Processor time that other processes took since this object was made.

    Counted on the cores that this process is bound to at that moment: work on other cores takes no
    time from a pinned measurement.
    """

    def __init__(self) -> None:
        self._cores = _own_cores()
        self._start = _processor_seconds(self._cores)

    def foreign(self) -> float:
        """Mean number of cores that were busy with other processes; 0.0 where it cannot be read."""
        end = _processor_seconds(self._cores)
        wall = end[2] - self._start[2]
        if wall <= 0.0 or end[0] <= 0.0:
            return 0.0
        others = (end[0] - self._start[0]) - (end[1] - self._start[1])
        return max(0.0, others / wall)


def _own_cores() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def _processor_seconds(cores: set[int]) -> tuple[float, float, float]:
    """Busy seconds of `cores`, processor seconds of this process, and the wall clock."""
    own = time.process_time()
    wall = time.monotonic()
    try:
        busy = busy_ticks(Path("/proc/stat").read_text(encoding="utf-8"), cores)
        return busy / os.sysconf("SC_CLK_TCK"), own, wall
    except (OSError, ValueError, AttributeError):
        return 0.0, own, wall


def busy_ticks(text: str, cores: set[int]) -> int:
    """Ticks in which one of `cores` was busy, from the text of `/proc/stat`."""
    names = {f"cpu{core}" for core in cores}
    busy = 0
    for line in text.splitlines():
        name, _, rest = line.partition(" ")
        if name in names:
            fields = rest.split()
            # user, nice, system, irq, softirq; idle, iowait and stolen time are not ours to judge
            busy += sum(int(fields[i]) for i in (0, 1, 2, 5, 6) if i < len(fields))
    return busy


def foreign_gpu_processes(device: torch.device) -> int:
    """How many other processes hold the GPU; 0 where the driver's tool is absent."""
    # by its own name: the tool's numbers follow neither CUDA's order nor CUDA_VISIBLE_DEVICES
    command = [
        "nvidia-smi",
        f"--id=GPU-{torch.cuda.get_device_properties(device).uuid}",
        "--query-compute-apps=pid",
        "--format=csv,noheader",
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, encoding="utf-8", errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = {line.strip() for line in done.stdout.splitlines() if line.strip().isdigit()}
    if str(os.getpid()) in found:
        return len(found) - 1
    # inside a container our own process appears under another number
    return max(0, len(found) - 1)
