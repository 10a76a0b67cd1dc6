"""Which device a text names, whether this machine has it, and whose its locks are.

A leaf: torch is imported when asked.
"""

from __future__ import annotations

import getpass
import os
from typing import TYPE_CHECKING

from darts_core.errors import DeviceError

if TYPE_CHECKING:
    import torch

__all__ = ["require_device", "user_name"]


def require_device(device: str | torch.device) -> torch.device:
    """`device` as a torch device that exists here; a GPU becomes the current one.

    CUDA graphs, streams and the events of a timer belong to the current device, which torch leaves at the
    first one: a step of another GPU would be recorded as an empty graph.

    Raises:
        DeviceError: the text names no device, or one that this machine lacks.
    """
    import torch

    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f"device={device} is no device; use cpu, cuda or cuda:N.") from error
    if found.type not in ("cpu", "cuda"):
        raise DeviceError(
            f"device={device} is of no kind that darts-core runs on; use cpu, cuda or cuda:N."
        )
    if found.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (found.index or 0) >= count:
            there = (
                f"cuda:0 to cuda:{count - 1} are" if count else "no CUDA device is; use device=cpu"
            )
            raise DeviceError(f"device={device} is not there; {there}.")
        if found.index is not None:
            torch.cuda.set_device(found)
    return found


def user_name() -> str:
    """Who runs this, for the names of folders that users of one machine must not share.

    A container may run under a number that no account has: then it is that number.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # as Python 3.11 and 3.13 say it
        return f"user-{os.getuid()}"
