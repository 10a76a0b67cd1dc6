"""Which device a text names, whether this machine has it, when it is done, and whose its locks are.

A leaf: torch is imported when asked.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from darts_core.errors import DartsError, DeviceError

if TYPE_CHECKING:
    import torch

__all__ = ["own_folder", "require_device", "user_name", "wait_for"]


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


def wait_for(device: torch.device) -> None:
    """Return when everything queued on `device` is done; a CPU has no queue."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def user_name() -> str:
    """Who runs this, for the names of folders that users of one machine must not share.

    A container may run under a number that no account has: then it is that number.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # as Python 3.11 and 3.13 say it
        return f"user-{os.getuid()}"


def own_folder(start: str, error: type[DartsError]) -> Path:
    """This user's own folder `start` + her name among the temporary files, made if need be: of her locks.

    Raises:
        DartsError: of the kind `error`; another user has made what is called so.
    """
    folder = Path(tempfile.gettempdir()) / f"{start}{user_name()}"
    with contextlib.suppress(FileExistsError):  # of a file or a link
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # whose it is may keep us out, or lay links in it that we would write through
    if folder.lstat().st_uid != os.getuid():
        raise error(f"{folder} belongs to another user; set TMPDIR to a folder of yours.")
    return folder
