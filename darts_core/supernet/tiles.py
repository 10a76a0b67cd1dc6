"""Tiles of a fused supernet's cells, found once a device and shape and kept on disk.

What a cell's kernels are launched with depends on the card, the width, the resolution, the stride and the
precision. `tune_supernet` runs every shape that no table knows with candidate after candidate and saves the
best; `darts_kernels.tiles` finds them again in later runs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from darts_core.supernet.dense import BatchedDenseCell
from darts_core.supernet.network import Supernet
from darts_core.supernet.packed import PackedCell
from darts_core.supernet.statistics import frozen_statistics

if TYPE_CHECKING:
    from darts_kernels.layout import CellLayout
    from darts_kernels.tiles import Tiles

__all__ = ["Timer", "cells_to_tune", "tune_supernet"]

log = logging.getLogger("darts_core")

Timer = Callable[[Callable[[], Any]], float]
"""Milliseconds of one call."""
Calls = tuple[list[Tensor], Tensor]
"""What a cell is called with: its inputs and the mixing weights [E, K]."""


def cells_to_tune(supernet: Supernet, image_shape: tuple[int, ...], batch: int) -> dict[str, Any]:
    """Shape key -> (cell, its inputs and weights), of every shape that no table of tiles knows.

    Args:
        supernet: on the fused path.
        image_shape: [C, H, W].
        batch: images of a step.
    """
    from darts_kernels.tiles import known_tiles, shape_key

    device = supernet.progress.device
    found: dict[str, Any] = {}
    for cell, call in _calls(supernet, image_shape, batch).items():
        layout = cast("CellLayout", cell.plan.layout)
        height, width = layout.output_size(*call[0][-1].shape[-2:])
        key = shape_key(layout, height, width, cell.precision, batch)
        if key not in found and known_tiles(device, key) is None:
            found[key] = (cell, call)
    return found


def tune_supernet(
    supernet: Supernet,
    image_shape: tuple[int, ...],
    batch: int,
    time_ms: Timer,
    *,
    seconds: float,
    path: Path | None = None,
) -> dict[str, tuple[float, float]]:
    """Find tiles for the shapes that no table knows; returns key -> (ms before, ms after).

    Nothing is looked for where it could not be kept; the log says so.

    Params, running statistics and random generators stay as they are. A shape gets its share of the
    seconds; a kernel being compiled is not interrupted, so it takes a little longer than that.

    Args:
        supernet: on the fused path.
        image_shape: [C, H, W].
        batch: images of a step.
        time_ms: the timer.
        seconds: for all shapes together.
        path: the cache; the user's own by default.
    """
    from darts_kernels.tiles import tiles_for
    from darts_kernels.tune import save_tiles, tune_tiles, why_not_kept

    wanted = cells_to_tune(supernet, image_shape, batch)
    if not wanted:
        return {}
    reason = why_not_kept(path)
    if reason is not None:
        log.warning(
            "the kernels run with default tiles: better ones could not be kept (%s); let "
            "XDG_CACHE_HOME name a folder that can be written", reason,
        )  # fmt: skip
        return {}
    device = supernet.progress.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    log.info(
        "tuning the kernels for %d shapes of cells on %s, once and for about %.0f s "
        "(search.tune_seconds=0 leaves it out)", len(wanted), name, seconds,
    )  # fmt: skip
    begun, results = time.monotonic(), {}
    for index, (key, (cell, call)) in enumerate(wanted.items()):
        layout = cast("CellLayout", cell.plan.layout)
        height, width = layout.output_size(*call[0][-1].shape[-2:])
        end = begun + seconds * (index + 1) / len(wanted)
        start = tiles_for(device, layout, height, width, cell.precision, batch)
        timed: list[float] = []

        def cost(tiles: Tiles, cell: Any = cell, call: Calls = call, timed: Any = timed) -> float:
            with _tiles(tiles), frozen_statistics(supernet):
                timed.append(time_ms(lambda: _pass(cell, call)))
            return float(timed[-1])

        best, after = tune_tiles(start, cost, stop=partial(_past, end))
        where = save_tiles(name, key, best, path)
        results[key] = (timed[0], after)
        log.info("%s: %.3f -> %.3f ms, kept in %s", key, timed[0], after, where)
    log.info("tuning took %.0f s", time.monotonic() - begun)
    return results


def _past(end: float) -> bool:
    return time.monotonic() > end


def _calls(supernet: Supernet, image_shape: tuple[int, ...], batch: int) -> dict[PackedCell, Calls]:
    """What each cell with tiles is called with in a pass of made-up images."""
    device = supernet.progress.device
    seen: dict[PackedCell, Calls] = {}

    def keep(cell: Any, args: Any) -> None:
        seen[cell] = ([x.detach().clone() for x in args[0]], args[1].detach().clone())

    hooks = [
        module.register_forward_pre_hook(keep)
        for module in supernet.modules()
        if isinstance(module, PackedCell) and not isinstance(module, BatchedDenseCell)
    ]
    # a generator of its own: the search draws the same numbers whether it is tuned before or not
    generator = torch.Generator(device).manual_seed(0)
    images = torch.randn(batch, *image_shape, device=device, generator=generator)
    try:
        with torch.no_grad(), frozen_statistics(supernet):
            if hooks:
                supernet(images, supernet.expected_weights())
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _pass(cell: PackedCell, call: Calls) -> None:
    """One forward and backward pass of a cell, all gradients wanted but of what is held fast."""
    inputs, weights = call
    xs = [x.detach().requires_grad_() for x in inputs]
    mix = weights.detach().requires_grad_()
    out = cell(xs, mix)
    wanted = [x for x in (*xs, mix, cell.packed) if x.requires_grad]
    torch.autograd.grad(out, wanted, torch.ones_like(out))


@contextmanager
def _tiles(tiles: Tiles) -> Iterator[None]:
    """A context in which every cell runs with `tiles`."""
    from darts_kernels import cell_run

    launches: Any = cell_run
    usual = launches.tiles_for
    launches.tiles_for = lambda *_: tiles
    try:
        yield
    finally:
        launches.tiles_for = usual
