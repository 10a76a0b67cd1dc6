"""The plan of cells with dense convolutions (NAS-Bench-201): what is batched over the edges of a source.

All edges that leave one state read the same relu(x). Their convolutions of one kernel size are therefore a
single convolution whose filters are concatenated along the output channels, and a pool is made once. The
plan says which operations those are and where their filters and statistics lie; any other operation of
the cell runs as its module and joins the same node sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from darts_core.supernet.branches import Binding, CellPlan, branch_of, common_form, is_normed
from darts_core.supernet.dense_layout import DenseLayout

if TYPE_CHECKING:
    from darts_core.supernet.cell import SearchCell

__all__ = ["plan_dense"]


def plan_dense(cell: SearchCell, channels: int, order: Sequence[int]) -> CellPlan | None:
    """The plan of a cell with dense convolutions; None when it has none.

    Args:
        cell: searched cell on the module path.
        channels: of its states.
        order: for each edge, sorted by source, its row in the space's order.
    """
    mixes: Any = [cell.mixed[row] for row in order]
    groups = mixes[0].channel_fraction
    channels //= groups
    sorted_ = _sort(mixes, channels, cell.norm_after_pool)
    if not sorted_["dense"]:
        return None
    first = [branch_of(module) for module in mixes[0].ops]

    def pools(name: str) -> tuple[int, ...]:
        return tuple(first[k].pool for k in sorted_[name])  # type: ignore[union-attr]

    skip = sorted_["skip"]
    layout = DenseLayout(
        inputs=cell.inputs,
        nodes=cell.nodes,
        edges=tuple(cell.edges[row] for row in order),
        channels=channels,
        stride=max(mixed.stride for mixed in mixes),
        filters=tuple(first[k].filters[0] for k in sorted_["dense"]),  # type: ignore[union-attr]
        max_pools=pools("max_pool"),
        avg_pools=pools("avg_pool"),
        pool_norm=cell.norm_after_pool,
        skip=bool(skip),
        operations=len(first),
        slots=(*sorted_["dense"], *sorted_["max_pool"], *sorted_["avg_pool"], *skip),
        loose=tuple(sorted_["loose"]),
        groups=groups,
    )
    plan = CellPlan(layout, tuple(order))
    _bind(plan, layout, mixes)
    return plan


def _sort(mixes: Sequence[Any], channels: int, pool_norm: bool) -> dict[str, list[int]]:
    """Columns by what they run as; one that is not the same on every edge is loose."""
    found: dict[str, list[int]] = {
        name: [] for name in ("dense", "max_pool", "avg_pool", "skip", "loose", "zero")
    }
    strides = [mixed.stride for mixed in mixes]
    for k in range(len(mixes[0].ops)):
        modules = [mixed.ops[k] for mixed in mixes]
        name = common_form([branch_of(module) for module in modules], strides)
        if (
            name is None
            or name not in found
            or (name == "dense" and not all(_packs(_conv(m), channels) for m in modules))
            or (name.endswith("pool") and any(is_normed(m) != pool_norm for m in modules))
            or (name == "skip" and found["skip"])
        ):
            name = "loose"
        found[name].append(k)
    return found


def _packs(conv: nn.Conv2d, channels: int) -> bool:
    """Whether a convolution is its weight alone, of as many channels as the state."""
    return conv.bias is None and conv.weight.shape[:2] == (channels, channels)


def _conv(module: nn.Module) -> nn.Conv2d:
    return next(m for m in module.modules() if isinstance(m, nn.Conv2d))


def _bind(plan: CellPlan, layout: DenseLayout, mixes: Sequence[Any]) -> None:
    """Fill `plan.params` and `plan.norms`."""
    channels, count = layout.channels, len(layout.filters)
    starts = {(source, j): start for source, j, start, _ in layout.blocks}
    for e, (source, _) in enumerate(layout.edges):
        edge0, edge1 = layout.leaving(source)
        row0 = layout.spans[source][0]
        for j, (kernel, _) in enumerate(layout.filters):
            base = f"mixed.{plan.order[e]}.ops.{layout.slots[j]}"
            module = mixes[e].ops[layout.slots[j]]
            conv = next(n for n, m in module.named_modules() if isinstance(m, nn.Conv2d))
            norm = next(n for n, m in module.named_modules() if isinstance(m, nn.BatchNorm2d))
            size = (channels * kernel) ** 2
            start = starts[source, j] + (e - edge0) * size
            plan.params.append(Binding(f"{base}.{conv}", "weight", start, size))
            row = row0 + (j * (edge1 - edge0) + e - edge0) * channels
            plan.norms.append(Binding(f"{base}.{norm}", "", row, channels))
        for p in range(layout.pools if layout.pool_norm else 0):
            # all edges of a source share one pool and its statistics
            name = f"mixed.{plan.order[e]}.ops.{layout.slots[count + p]}.1"
            row = row0 + ((edge1 - edge0) * count + p) * channels
            plan.norms.append(Binding(name, "", row, channels))
