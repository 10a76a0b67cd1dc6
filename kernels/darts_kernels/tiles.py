"""Tile sizes of the kernels: defaults, and the cache of tuned ones."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from darts_kernels.layout import CellLayout

__all__ = [
    "SHIPPED",
    "Tiles",
    "can_overlap",
    "default_tiles",
    "forget_tables",
    "known_tiles",
    "read_tiles",
    "shape_key",
    "tiles_for",
    "user_cache",
]

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).with_name("tiles.json")
"""The table that comes with the package; there is none before a device was measured."""


@dataclass(frozen=True)
class Tiles:
    """Tile sizes and launch options of one cell shape.

    Attributes:
        rows, lanes: strip of the first depthwise stage; `_regs` caps registers (0: no cap).
        chunk: pixels a program of the statistics kernels covers (pointwise, pool, reduction).
        point_block: pixels of one matrix product.
        back_steps: matrix products a program of the pointwise backward sums over.
        plain_block: pixels a program of the elementwise kernels covers.
        pool_rows: rows of a pool's strip at most, a power of two.
        overlap: whether a kernel may take its places while the one before still runs (`_device.begin`).
    """

    rows: int = 4
    lanes: int = 32
    regs: int = 0
    inner_rows: int = 4
    inner_lanes: int = 32
    inner_regs: int = 0
    back_rows: int = 4
    back_lanes: int = 32
    back_regs: int = 0
    inner_back_rows: int = 4
    inner_back_lanes: int = 32
    inner_back_regs: int = 0
    chunk: int = 512
    point_block: int = 128
    point_warps: int = 4
    point_stages: int = 2
    back_block: int = 128
    back_steps: int = 8
    back_warps: int = 4
    back_stages: int = 2
    plain_block: int = 1024
    plain_warps: int = 4
    pool_rows: int = 4
    overlap: int = 0

    def with_values(self, values: dict[str, Any]) -> Tiles:
        """A copy with the known fields of `values` replaced."""
        known = {field.name for field in fields(self)}
        return replace(self, **{k: int(v) for k, v in values.items() if k in known})

    def to_dict(self) -> dict[str, int]:
        """All fields by name."""
        return asdict(self)


def shape_key(layout: CellLayout, height: int, width: int, precision: str, batch: int) -> str:
    """The cache key of a cell at a size; `height` and `width` are those of its nodes.

    It ends with a digest of what the cell mixes: other filters, pools or edges are other kernels.
    """
    mixed = (
        layout.first, layout.second, layout.max_pools, layout.avg_pools, layout.pool_norm, layout.skip,
        layout.reduction, layout.edges, layout.groups,
    )  # fmt: skip
    digest = hashlib.sha256(repr(mixed).encode()).hexdigest()[:8]
    size = f"c{layout.channels}-h{height}-w{width}-s{layout.stride}-b{batch}"
    return f"{size}-{precision}-{digest}"


def default_tiles(channels: int, height: int, batch: int, width: int) -> Tiles:
    """Tiles that fit any shape, chosen by the compiler's report for sm_90: no register spills."""
    pixels = batch * height * width
    rows = 8 if height % 8 == 0 else 4 if height % 4 == 0 else min(8, height)
    block = 128 if channels <= 32 else 64
    chunk = 512 if pixels >= 32768 else 256 if pixels >= 8192 else 128
    # a last wave has one edge: 64 programs for each of two branches fill a card; wide ones have large shares
    point_programs = 64 if channels <= 16 else 32
    steps = max(1, min(16, pixels // (128 if channels <= 16 else 64) // point_programs))
    # twice the rows load the halo, the weights and the sums of taps half as often an element, for at most
    # twice the registers, so that as many loads are under way; the first backward has no registers for that
    long = 2 * rows if height % (2 * rows) == 0 else rows
    return Tiles(
        rows=long,
        inner_rows=long,
        back_rows=rows,
        inner_back_rows=long,
        chunk=chunk,
        point_block=min(block, chunk),
        # without register spills at every width, by the compiler's report for sm_90
        back_block=128 if channels <= 16 else 64,
        back_warps=4 if channels <= 32 else 8,
        # two stages of 128-bit copies in flight cost no resident warps in TF32 and bf16
        back_stages=2,
        back_steps=steps,
        # 128 bits of 16-bit outputs a thread
        plain_block=1024,
        # a warp or two a program
        pool_rows=8 if chunk >= 256 else 4,
    )


def can_overlap(device: torch.device) -> bool:
    """Whether kernels of the device may overlap: from compute capability 9.0 on, and where none is run."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (9, 0)
    return device.type == "meta"


def user_cache() -> Path:
    """Where tuned tiles of this user are kept; XDG_CACHE_HOME moves it."""
    root = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(root) if root else Path.home() / ".cache"
    except RuntimeError:
        # a container may run under a number that no account has: then there is no home
        folder = Path(tempfile.gettempdir()) / f"darts-core-cache-{os.getuid()}"
    return folder / "darts_core" / "tiles.json"


def read_tiles(path: Path) -> dict[str, Any]:
    """Device -> shape -> fields of a table; nothing where there is none.

    A damaged file is renamed (`.damaged`) and said in one log line: tuning measures its content again.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        log.warning("%s is not read (%s): default tiles are used", path, error.strerror)
        return {}
    except (ValueError, RecursionError):
        table = None
    if _is_table(table):
        return dict(table)
    aside = path.with_name(f"{path.name}.damaged")
    try:
        path.replace(aside)
    except OSError as error:
        log.warning("%s holds no tiles and cannot be moved (%s)", path, error.strerror)
    else:
        log.warning("%s holds no tiles: moved to %s, default tiles are used", path, aside)
    return {}


def _is_table(found: Any) -> bool:
    if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
        return False
    rows = [row for shapes in found.values() for row in shapes.values()]
    return all(
        isinstance(row, dict) and all(type(value) is int for value in row.values()) for row in rows
    )


@lru_cache(maxsize=1)
def _tables() -> tuple[dict[str, Any], ...]:
    return tuple(read_tiles(path) for path in (user_cache(), SHIPPED))


def forget_tables() -> None:
    """Read the tables again when tiles are asked for next."""
    _tables.cache_clear()


def known_tiles(device: torch.device, key: str) -> dict[str, Any] | None:
    """The tuned fields for a device and shape: of the user's cache, else of the shipped table, else None."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((table[name][key] for table in _tables() if key in table.get(name, {})), None)


def tiles_for(
    device: torch.device,
    layout: CellLayout,
    height: int,
    width: int,
    precision: str,
    batch: int,
) -> Tiles:
    """Tiles of the user's cache or the shipped one where they know the device and shape, else defaults."""
    tiles = default_tiles(layout.channels, height, batch, width)
    known = known_tiles(device, shape_key(layout, height, width, precision, batch))
    return tiles if known is None else tiles.with_values(known)
