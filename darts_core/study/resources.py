"""Which processors a worker uses: one thread a trial on the CPU, one device a worker on GPUs."""

from __future__ import annotations

import gc
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

from darts_core.processors import threads_asked_for, usable_processors

__all__ = [
    "device_of",
    "device_share",
    "limit_threads",
    "pin_worker",
    "spare_gpu_memory",
    "visible_gpus",
]

log = logging.getLogger("darts_core")

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def visible_gpus() -> list[str]:
    """The CUDA devices this process may use, by the names that CUDA_VISIBLE_DEVICES takes.

    Asks the environment and the device files: torch is not imported for it.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [part.strip() for part in given.split(",") if part.strip() not in ("", "-1")]
    files = [p.name.removeprefix("nvidia") for p in Path("/dev").glob("nvidia[0-9]*")]
    # counted as CUDA does: the only GPU of a container may be /dev/nvidia5
    return [str(index) for index in range(sum(name.isdigit() for name in files))]


def device_of(objective: Any) -> str:
    """Where trials of `objective` run, as its attribute `device` says; `auto` where it has none."""
    return str(getattr(objective, "device", None) or "auto")


def pin_worker(index: int, device: str = "auto") -> None:
    """Give worker `index` its GPU (by turns), and its trials one thread where no number is set.

    A `device` that names one GPU is that of all workers: shown another alone, they would not find it.

    Two trials with two threads each took three times as long on two cores as with one thread each.
    """
    gpus = visible_gpus()
    if len(gpus) > 1 and not _is_one_gpu(device):
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
    if not threads_asked_for():
        # a quota's number is for one process alone
        os.environ["OMP_NUM_THREADS"] = "1"
    for name in _THREAD_VARIABLES:
        os.environ.setdefault(name, "1")


def _is_one_gpu(device: str) -> bool:
    return re.fullmatch(r"cuda:\d+", device) is not None


def device_share(workers: int, slots: int | None = None, device: str = "auto") -> float:
    """The part of a device that each of `workers` has while all of them run; says so when it is below 1.

    Args:
        workers: trials that run at once.
        slots: how many could do so without waiting for each other; by default one a visible GPU, else
            as many as the processors hold at OMP_NUM_THREADS threads each.
        device: where they run, as the setting of that name says.
    """
    if slots is None:
        threads = threads_asked_for()
        each = int(threads) if threads.isdigit() and int(threads) > 0 else 1
        gpus = 1 if _is_one_gpu(device) else 0 if device == "cpu" else len(visible_gpus())
        slots = gpus or max(1, usable_processors() // each)
    if workers <= slots:
        return 1.0
    log.warning(
        "%d workers share %d device slot%s: trials wait for each other and take longer by the clock; a "
        "second of such a trial counts as %.2g device-seconds",
        workers,
        slots,
        "" if slots == 1 else "s",
        slots / workers,
    )
    return slots / workers


def spare_gpu_memory() -> None:
    """Give back what torch keeps of a GPU for this process's next tensors.

    After a forecast, or a search, that may be most of it, and trials in other processes would not fit.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def limit_threads() -> None:
    """Make a torch that is already imported keep to OMP_NUM_THREADS."""
    torch = sys.modules.get("torch")
    count = os.environ.get("OMP_NUM_THREADS", "")
    if torch is not None and count.isdigit() and int(count) > 0:
        torch.set_num_threads(int(count))
