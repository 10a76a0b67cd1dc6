"""Which device a text names, and whether this machine has it. A leaf: torch is imported when asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from darts_core.errors import DeviceError

if TYPE_CHECKING:
    import torch

__all__ = ["require_device"]


def require_device(device: str | torch.device) -> torch.device:
    """`device` as a torch device that exists here.

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
    return found
