"""The paths a supernet's searched cells run on, and the change from one to another.

`fuse(supernet)` turns every searched cell that the plan can express into a packed one: on a GPU fused
Triton kernels, on a CPU batched torch calls. `unfuse` puts the modules back; values are kept both ways.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping

import torch
from torch import nn

from darts_core.errors import ConfigError
from darts_core.supernet.batched import BatchedSearchCell
from darts_core.supernet.branches import CellPlan
from darts_core.supernet.cell import SearchCell
from darts_core.supernet.dense import BatchedDenseCell, FusedDenseCell
from darts_core.supernet.dense_layout import DenseLayout
from darts_core.supernet.fused import FusedSearchCell
from darts_core.supernet.mixed_op import MixedOp
from darts_core.supernet.packed import PackedCell
from darts_core.supernet.plan import plan_cell
from darts_core.supernet.stem import fuse_stems, unfuse_stems

__all__ = ["FUSED_PRECISIONS", "PATHS", "choose_path", "fuse", "fused_class", "unfuse"]

log = logging.getLogger("darts_core")

FUSED_PRECISIONS = ("fp32", "tf32", "bf16")
PATHS = ("auto", "plain", "fused", "batched")


def choose_path(path: str, device: torch.device) -> str:
    """The path that `path` means on `device`.

    Raises:
        ConfigError: it is unknown, or does not exist on the device.
    """
    if path not in PATHS:
        raise ConfigError(f"Unknown path {path!r}; choose {', '.join(PATHS)}.")
    fast = "fused" if device.type == "cuda" else "batched"
    if path == "auto":
        return fast
    if path != "plain" and path != fast:
        raise ConfigError(f"path={path} does not exist on {device}; choose auto, plain or {fast}.")
    return path


def fuse(supernet: nn.Module, precision: str = "tf32") -> Mapping[str, CellPlan]:
    """Put every searched cell that the plan can express on its fast path; returns all plans.

    On a GPU that is the fused kernels, the stem's included, on a CPU the batched torch calls of `batched`.
    An operation without a known form runs as a module beside the others of its cell; on a GPU it keeps a
    cell without dense convolutions on the module path, and the log says so once.

    Args:
        supernet: on its device.
        precision: "fp32" (3xTF32 products), "tf32" or "bf16" (storage); alphas, statistics and sums are
            fp32 in all.

    Raises:
        ConfigError: the precision is unknown.
    """
    if precision not in FUSED_PRECISIONS:
        raise ConfigError(f"Unknown precision {precision!r}; choose {', '.join(FUSED_PRECISIONS)}.")
    # tensors without data stand for a GPU's: there a step is planned and compiled, never run
    on_gpu = next(supernet.parameters()).device.type in ("cuda", "meta")
    plans: dict[str, CellPlan] = {}
    packed: list[PackedCell] = []
    for name, cell in list(supernet.named_modules()):
        if not isinstance(cell, SearchCell) or isinstance(cell, PackedCell):
            continue
        plan = plan_cell(cell, cell.channels, modules=not on_gpu)
        plans[name] = plan
        if plan.layout is None:
            _say_once("; ".join(plan.reasons))
            _set_lean(cell, True)
        else:
            packed.append(fused_class(plan, on_gpu=on_gpu).adopt(cell, plan, precision))
    if on_gpu:
        # what reads a cell and is no such cell has fp32 parameters: the head, and modules in between
        between = any(not isinstance(cell, PackedCell) for cell in getattr(supernet, "cells", ()))
        for cell in packed if between else packed[-1:]:
            cell.cast_output = True
    stem = getattr(supernet, "stem", None)
    if on_gpu and isinstance(stem, nn.Module):
        # cells that run as modules take fp32
        fuse_stems(stem, precision, low=all(plan.layout is not None for plan in plans.values()))
    return plans


def fused_class(plan: CellPlan, *, on_gpu: bool) -> type[PackedCell]:
    """The class of a planned cell on a GPU or a CPU."""
    if isinstance(plan.layout, DenseLayout):
        return FusedDenseCell if on_gpu else BatchedDenseCell
    return FusedSearchCell if on_gpu else BatchedSearchCell


def _set_lean(cell: nn.Module, lean: bool) -> None:
    """How the mixed operations of a cell on the module path sum their outputs."""
    for module in cell.modules():
        if isinstance(module, MixedOp):
            module.lean = lean


@functools.cache
def _say_once(reasons: str) -> None:
    """Log why cells are not fused, once a process: forecasts and rebuilds make the same network again."""
    log.info("some cells run module by module: %s", reasons)


def unfuse(supernet: nn.Module) -> None:
    """Put every fused cell back on the module path, values kept."""
    _set_lean(supernet, False)
    unfuse_stems(supernet)
    for cell in list(supernet.modules()):
        if isinstance(cell, PackedCell):
            cell.restore()
