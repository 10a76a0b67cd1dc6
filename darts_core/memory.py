"""What memory there is, and the refusal of what would not fit, before any of it is asked for.

A leaf: torch is imported when a device is asked about.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from darts_core.errors import MemoryShortageError

if TYPE_CHECKING:
    import torch

__all__ = ["check_memory", "free_bytes"]


def free_bytes(device: torch.device | None = None) -> int | None:
    """Bytes that are free for new data on a GPU, else on the host; None where the system does not say."""
    if device is not None and device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    try:
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def check_memory(
    needed_bytes: int, what: str, remedy: str, device: torch.device | None = None
) -> None:
    """Refuse what exceeds the free memory of `device`, None being the host.

    Args:
        needed_bytes: the least that it takes.
        what: subject and verb of the sentence: "x.npz announces".
        remedy: its end, after "are free;".
        device: see above.

    Raises:
        MemoryShortageError: it does not fit.
    """
    free = free_bytes(device)
    if free is not None and needed_bytes > free:
        place = "host memory" if device is None or device.type != "cuda" else f"memory of {device}"
        raise MemoryShortageError(
            f"{what} {needed_bytes / 2**20:,.0f} MiB, but {free / 2**20:,.0f} MiB of {place} are "
            f"free; {remedy}."
        )
