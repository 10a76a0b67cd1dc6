"""Which processors a worker uses: one thread a trial on the CPU, one device a worker on GPUs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["limit_threads", "pin_worker", "visible_gpus"]

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def visible_gpus() -> list[str]:
    """The CUDA devices this process may use, by the names that CUDA_VISIBLE_DEVICES takes.

    Asks the environment and the device files: torch is not imported for it.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [part.strip() for part in given.split(",") if part.strip() not in ("", "-1")]
    files = [p.name.removeprefix("nvidia") for p in Path("/dev").glob("nvidia[0-9]*")]
    return sorted((name for name in files if name.isdigit()), key=int)


def pin_worker(index: int) -> None:
    """Give worker `index` its GPU (by turns), and its trials one thread where no number is set.

    Two trials with two threads each took three times as long on two cores as with one thread each.
    """
    gpus = visible_gpus()
    if len(gpus) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
    for name in _THREAD_VARIABLES:
        os.environ.setdefault(name, "1")


def limit_threads() -> None:
    """Make a torch that is already imported keep to OMP_NUM_THREADS."""
    torch = sys.modules.get("torch")
    count = os.environ.get("OMP_NUM_THREADS", "")
    if torch is not None and count.isdigit() and int(count) > 0:
        torch.set_num_threads(int(count))
