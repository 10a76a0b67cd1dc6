"""The floor of a search step: the bytes of the plan at the device's own copy bandwidth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from darts_core.bench.moved import stored_bytes
from darts_core.latency import measure
from darts_core.memory import free_bytes

__all__ = ["copy_bandwidth_gbs", "floor_bytes", "floor_ms"]


def copy_bandwidth_gbs(device: torch.device) -> float:
    """GB/s, read plus written, of a large copy: the denominator of the floor."""
    count = 2**24
    if device.type == "cuda":  # both take 2 GiB, and at most half of what is free
        count = max(count, min(2**28, (free_bytes(device) or 2**32) // 16))
    source = torch.ones(count, device=device)
    target = torch.empty_like(source)
    row = measure(lambda: target.copy_(source), device=device, warmup_seconds=0.2, max_seconds=0.5)
    return 2 * 4 * count / (row.median_ms * 1e6)


def floor_bytes(rows: Iterable[Mapping[str, Any]], precision: str) -> float:
    """Bytes of the rows of a plan (`describe_plan`, `describe_stem`) at a precision, forward and backward."""
    item, output = stored_bytes(precision)
    total = 0.0
    for row in rows:
        outputs = row.get("output_bytes", 0)
        total += (row["bytes"] - outputs) * item / 4 + outputs * output / 4
    return total


def floor_ms(
    net: nn.Module, batch: int, size: int, bandwidth_gbs: float, *, precision: str = "fp32"
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
            total += floor_bytes(rows, precision)
    return 2 * total / (bandwidth_gbs * 1e6)
