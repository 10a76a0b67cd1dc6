"""The floor of a search step: the bytes of the plan at the device's own copy bandwidth."""

from __future__ import annotations

import torch
from torch import nn

from darts_core.latency import measure

__all__ = ["copy_bandwidth_gbs", "floor_ms"]


def copy_bandwidth_gbs(device: torch.device) -> float:
    """GB/s, read plus written, of a large copy: the denominator of the floor."""
    count = 2**28 if device.type == "cuda" else 2**24
    source = torch.ones(count, device=device)
    target = torch.empty_like(source)
    row = measure(lambda: target.copy_(source), device=device, warmup_seconds=0.2, max_seconds=0.5)
    return 2 * 4 * count / (row.median_ms * 1e6)


def floor_ms(
    net: nn.Module, batch: int, size: int, bandwidth_gbs: float, *, storage: int = 4
) -> float:
    """Milliseconds that the plan's bytes of one first-order step need; cells without a plan count 0."""
    from darts_core.supernet.describe import describe_plan
    from darts_core.supernet.plan import plan_cell
    from darts_core.supernet.shapes import cell_sizes

    total = 0.0
    for cell, height, width in cell_sizes(net, size):
        plan = plan_cell(cell, cell.channels)
        if plan.layout is not None:
            rows = describe_plan(plan.layout, batch, height, width)
            total += sum(row["bytes"] for row in rows)
    return 2 * total * storage / 4 / (bandwidth_gbs * 1e6)
