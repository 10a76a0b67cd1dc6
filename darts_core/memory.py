"""What memory there is, and the refusal of what would not fit, before any of it is asked for.

A leaf: torch is imported when a device is asked about.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from darts_core.control_groups import folders_of, lines_of
from darts_core.errors import MemoryShortageError

if TYPE_CHECKING:
    import torch

__all__ = ["check_memory", "free_bytes"]

# of a control group: what it may use, what it uses, and of that the cached files, which the kernel gives back
_FILES = {
    # version 2 counts the names of files, too: many after a folder of images
    2: ("memory.max", "memory.current", ("active_file", "inactive_file", "slab_reclaimable")),
    1: (
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        ("total_active_file", "total_inactive_file"),
    ),
}


def free_bytes(device: torch.device | None = None) -> int | None:
    """Bytes that are free for new data on a GPU, else on the host; None where the system does not say.

    A GPU's include what torch keeps of it for its next tensors. The host's are at most what the limit of a
    container (a control group) leaves.
    """
    if device is not None and device.type == "cuda":
        import torch

        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    return min((*_of_the_machine(), *_of_control_groups()), default=None)


def _of_the_machine() -> list[int]:
    found = [line for line in lines_of("proc/meminfo") if line.startswith("MemAvailable:")]
    return [int(line.split()[1]) * 1024 for line in found]


def _of_control_groups() -> Iterator[int]:
    """What each group that this process is in leaves."""
    for folder, version in folders_of("memory"):
        yield from _left_in(folder, *_FILES[version])


def _left_in(folder: Path, limit: str, usage: str, cached: tuple[str, ...]) -> Iterator[int]:
    """One number, or none where the group has no limit."""
    most, used = lines_of(folder / limit), lines_of(folder / usage)
    if not (most and used and most[0].isdigit() and used[0].isdigit()):
        return
    stat = (line.partition(" ") for line in lines_of(folder / "memory.stat"))
    told = {name: value for name, _, value in stat}
    back = sum(int(told.get(name, 0)) for name in cached)
    yield max(0, int(most[0]) - int(used[0]) + back)


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
