"""Which channels, heads and blocks a network needs most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from darts_core.elastic.norms import batch_statistics, of_several
from darts_core.elastic.variables import Depth, Width
from darts_core.prune.groups import ChannelGroup
from darts_core.prune.importance import channel_importance
from darts_core.prune.slices import Plan, running
from darts_core.tasks import Task

__all__ = ["most_important_first", "skip_losses"]

Batches = Sequence[tuple[Tensor, Any]]


def most_important_first(
    model: nn.Module, widths: Sequence[Width], batches: Batches, task: Task
) -> dict[str, list[int]]:
    """Width's name -> its channels, the most important first; each layer's best ones lead."""
    groups = [ChannelGroup(width.name, width.options[-1], width.members) for width in widths]
    kind = "taylor" if batches else "magnitude"
    scores = channel_importance(model, groups, kind, batches, task)
    return {width.name: _order(width, scores[width.name]) for width in widths}


def _order(width: Width, scores: np.ndarray) -> list[int]:
    together = scores.reshape(-1, width.blocks).sum(1)
    order = [int(column) for column in np.argsort(-together, kind="stable")]
    led: list[int] = []
    parts = {m.positions for m in width.members if m.side == "out"}
    for positions in sorted(parts, key=len):
        own = {position // width.blocks for position in positions}
        # a layer that owns a part of the channels keeps one of them at every width
        if not set(led) & own:
            led.append(next(column for column in order if column in own))
    columns = [*led, *(column for column in order if column not in led)]
    return [column * width.blocks + block for column in columns for block in range(width.blocks)]


@torch.no_grad()
def skip_losses(model: nn.Module, depth: Depth, batches: Batches, task: Task) -> dict[str, float]:
    """Block -> the loss without it, over `batches` of several and with their own statistics."""
    found: dict[str, float] = {}
    with batch_statistics(model):
        for block in depth.blocks:
            with running(model, Plan(skipped=(block,))):
                # each block is judged on the same inputs, into which a network may write
                losses = [
                    float(task.loss(model(x.clone()).float(), y)) for x, y in of_several(batches)
                ]
            found[block] = sum(losses) / len(losses)
    return found
