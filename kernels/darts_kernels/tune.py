"""Find tiles for a device: coordinate descent over groups of tile sizes, kept on disk.

A group holds the fields that one kernel depends on, so groups hardly interact and one pass over them is
enough. What is timed is passed in: on a GPU one forward and backward pass of a cell.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from triton.errors import TritonError

from darts_kernels.tiles import Tiles, forget_tables, read_tiles, user_cache

__all__ = ["GROUPS", "save_tiles", "tune_tiles", "why_not_kept"]

_STRIPS = [(2, 32), (4, 32), (4, 64), (8, 32), (8, 64), (16, 32)]
_CAPS = (0, 128, 96, 64)
"""Registers of a thread (0: no cap): at 128, 96 and 64 a multiprocessor holds 16, 20 and 32 warps."""


def _strips(prefix: str) -> list[dict[str, int]]:
    return [
        {f"{prefix}rows": rows, f"{prefix}lanes": lanes, f"{prefix}regs": cap}
        for rows, lanes in _STRIPS
        for cap in _CAPS
    ]


GROUPS: dict[str, list[dict[str, int]]] = {
    "depthwise backward": _strips("back_"),
    "depthwise": _strips(""),
    "second depthwise backward": _strips("inner_back_"),
    "second depthwise": _strips("inner_"),
    "pointwise backward": [
        {"back_block": block, "back_steps": steps, "back_warps": warps, "back_stages": stages}
        for block, steps in ((32, 16), (64, 8), (64, 16), (128, 4), (128, 8))
        for warps in (4, 8)
        for stages in (1, 2)
    ],
    "pointwise": [
        {"chunk": chunk, "point_block": block, "point_warps": warps}
        for chunk, block in ((128, 64), (128, 128), (256, 128), (512, 128), (512, 256))
        for warps in (4, 8)
    ],
    "elementwise": [
        {"plain_block": block, "plain_warps": warps}
        for block in (512, 1024, 2048)
        for warps in (4, 8)
    ],
    "overlap": [{"overlap": 1}],
}
"""Candidates of each group, the kernels that take longest first."""


def tune_tiles(
    start: Tiles,
    time_ms: Callable[[Tiles], float],
    *,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Tiles, float]:
    """(best tiles found, their time in ms).

    Args:
        start: where the descent begins.
        time_ms: the time of a candidate; raising RuntimeError, ValueError or an error of Triton's (too much
            shared memory, too few registers) says that it cannot run.
        stop: asked before every candidate; when true the best so far is returned.
    """
    best, best_ms = start, time_ms(start)
    for candidates in GROUPS.values():
        base = best
        for values in candidates:
            if stop():
                return best, best_ms
            tiles = base.with_values(dict(values))
            if tiles == base:
                continue
            try:
                found = time_ms(tiles)
            except (RuntimeError, ValueError, TritonError):  # Triton's are no RuntimeErrors
                continue
            if found < best_ms:
                best, best_ms = tiles, found
    return best, best_ms


def why_not_kept(path: Path | None = None) -> str | None:
    """Why tiles cannot be kept (the home of a container may be read-only); None where they can."""
    folder = (path or user_cache()).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return f"{folder}: {error.strerror or error}"


def save_tiles(device: str, key: str, tiles: Tiles, path: Path | None = None) -> Path:
    """Add tiles to the cache on disk; returns its path. The file is replaced whole, never half written."""
    path = path or user_cache()
    table = read_tiles(path)
    table.setdefault(device, {})[key] = tiles.to_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".json")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(table, file, indent=1, sort_keys=True)
    Path(name).replace(path)
    forget_tables()
    return path
