"""The plan of cells with separable convolutions (DARTS): params and statistics packed by edge and filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from darts_core.ops.simple import FactorizedReduce
from darts_core.supernet.branches import (
    Binding,
    Branch,
    CellPlan,
    branch_of,
    common_form,
    is_normed,
)

if TYPE_CHECKING:
    from darts_core.supernet.cell import SearchCell
    from darts_kernels.layout import CellLayout

__all__ = ["formless", "obstacles", "plan_separable"]


def plan_separable(
    cell: SearchCell, input_channels: int, order: tuple[int, ...], loose: tuple[int, ...] = ()
) -> CellPlan:
    """The plan of a cell without obstacles.

    Args:
        cell: searched cell on the module path.
        input_channels: of its states.
        order: for each edge, sorted by source, its row in the space's order.
        loose: columns that run as modules.
    """
    from darts_kernels.layout import CellLayout

    any_mixed: Any = cell.mixed[0]
    names = list(any_mixed.ops.named_children())
    first = [None if k in loose else branch_of(module) for k, (_, module) in enumerate(names)]
    columns = _sort_columns(first)
    pre = _preprocessing(cell)
    mixes: Any = cell.mixed
    stride = max(mixed.stride for mixed in mixes)
    skip = columns["skip"]
    layout = CellLayout(
        inputs=cell.inputs,
        nodes=cell.nodes,
        edges=tuple(cell.edges[e] for e in order),
        channels=input_channels // any_mixed.channel_fraction,
        stride=stride,
        first=tuple(first[k].filters[0] for k in columns["two"] + columns["one"]),  # type: ignore[union-attr]
        second=tuple(first[k].filters[1] for k in columns["two"]),  # type: ignore[union-attr]
        max_pools=tuple(first[k].pool for k in columns["max"]),  # type: ignore[union-attr]
        avg_pools=tuple(first[k].pool for k in columns["avg"]),  # type: ignore[union-attr]
        pool_norm=cell.norm_after_pool,
        skip=bool(skip),
        reduction=bool(skip) and stride == 2,
        operations=len(names),
        slots=(
            *columns["two"],
            *columns["one"],
            *columns["max"],
            *columns["avg"],
            skip[0] if skip else -1,
        ),
        input_channels=tuple(width for width, _ in pre),
        input_reduces=tuple(reduces for _, reduces in pre),
        groups=any_mixed.channel_fraction,
    )
    plan = CellPlan(layout, order, loose=loose)
    _bind(cell, plan, columns)
    return plan


def _sort_columns(branches: Sequence[Branch | None]) -> dict[str, list[int]]:
    columns: dict[str, list[int]] = {"two": [], "one": [], "max": [], "avg": [], "skip": []}
    for k, branch in enumerate(branches):
        if branch is None or branch.form == "zero":
            continue
        if branch.form == "separable":
            columns["two" if len(branch.filters) == 2 else "one"].append(k)
        elif branch.form == "max_pool":
            columns["max"].append(k)
        elif branch.form == "avg_pool":
            columns["avg"].append(k)
        else:
            columns["skip"].append(k)
    return columns


def formless(cell: SearchCell) -> tuple[int, ...]:
    """Columns whose operation has no form in the plan, or not the same one on every edge."""
    mixes: Any = list(cell.mixed)
    strides = [mixed.stride for mixed in mixes]
    channels = cell.channels // mixes[0].channel_fraction
    found = []
    for k in range(len(mixes[0].ops)):
        modules = [mixed.ops[k] for mixed in mixes]
        branches = [branch_of(module) for module in modules]
        fits = (
            _fits(module, branch, channels, pool_norm=cell.norm_after_pool)
            for module, branch in zip(modules, branches, strict=True)
        )
        if common_form(branches, strides) is None or not all(fits):
            found.append(k)
    return tuple(found)


def _fits(module: nn.Module, branch: Branch | None, channels: int, *, pool_norm: bool) -> bool:
    """Whether a module's tensors are those that its branch has, where `_bind` looks for them."""
    if branch is None:
        return False
    if branch.pool:
        # the space puts norms behind the pools that it knows, the plan behind all or none
        return is_normed(module) == pool_norm
    if branch.form == "reduction":
        return isinstance(module, FactorizedReduce)
    if branch.form != "separable":
        return True
    convs = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    shapes = [
        shape
        for kernel, _ in branch.filters
        for shape in ((channels, 1, kernel, kernel), (channels, channels, 1, 1))
    ]
    found = [tuple(conv.weight.shape) for conv in convs if conv.bias is None]
    return found == shapes and len(norms) == len(branch.filters)


def obstacles(cell: SearchCell) -> tuple[str, ...]:
    """Why the cell cannot run as separable convolutions, pools and identities; empty when it can."""
    reasons = []
    mixed0: Any = cell.mixed[0]
    loose = formless(cell)
    branches = [branch_of(module) for module in mixed0.ops]
    for k, (name, branch) in enumerate(zip(mixed0.names, branches, strict=True)):
        if branch is None:
            reasons.append(f"operation {name!r} is not made of primitives that the kernels know")
        elif k in loose:
            reasons.append(
                f"operation {name!r} is not on every edge made of the modules that its primitives say"
            )
        elif branch.form == "dense":
            reasons.append(f"operation {name!r} is a dense convolution")
    branches = [None if k in loose else branch for k, branch in enumerate(branches)]
    if sum(b is not None and b.form in ("identity", "reduction") for b in branches) > 1:
        reasons.append("a cell has room for one identity")
    if sum(b is not None and b.form == "separable" for b in branches) > 8:
        reasons.append("a cell has room for eight depthwise filters")
    if not any(b is not None and b.form == "separable" for b in branches):
        reasons.append("no operation of the space has a separable convolution")
    return tuple(reasons)


def _preprocessing(cell: SearchCell) -> list[tuple[int, bool]]:
    """(channels read, halved) of each preprocessed input."""
    if cell.preprocess is None:
        return []
    found = []
    around: Any = cell.preprocess
    for module in (around.older, around.newer):
        convs = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
        found.append((convs[0].in_channels, len(convs) == 2))
    return found


def _bind(cell: SearchCell, plan: CellPlan, columns: dict[str, list[int]]) -> None:
    """Fill `plan.params` and `plan.norms`."""
    layout = cast("CellLayout", plan.layout)
    for e, row in enumerate(plan.order):
        mixed: Any = cell.mixed[row]
        for f, k in enumerate(columns["two"] + columns["one"]):
            _bind_separable(plan, layout, f"mixed.{row}.ops.{k}", mixed.ops[k], e, f)
        for p, k in enumerate(columns["max"] + columns["avg"]):
            # all edges of a source share one pool and its statistics
            source = layout.edges[e][0]
            start = layout.rows["pool"] + (source * layout.pools + p) * layout.channels
            if layout.pool_norm:
                plan.norms.append(Binding(f"mixed.{row}.ops.{k}.1", "", start, layout.channels))
        for k in columns["skip"]:
            if e < layout.reduced_edges:
                start = layout.sections["reduction"].start + e * layout.channels**2
                base = f"mixed.{row}.ops.{k}"
                _bind_reduction(plan, base, mixed.ops[k], start)
                start = layout.rows["reduction"] + e * layout.channels
                plan.norms.append(Binding(f"{base}.norm", "", start, layout.channels))
    for index, side in enumerate(("older", "newer")[: len(layout.input_channels)]):
        module = getattr(cell.preprocess, side)
        start = layout.sections[f"input{index}"].start
        row = layout.rows["input"] + index * layout.width
        base = f"preprocess.{side}"
        if layout.input_reduces[index]:
            _bind_reduction(plan, base, module, start)
            plan.norms.append(Binding(f"{base}.norm", "", row, layout.width))
        else:
            plan.params.append(Binding(f"{base}.1", "weight", start, module[1].weight.numel()))
            plan.norms.append(Binding(f"{base}.2", "", row, layout.width))


def _bind_reduction(plan: CellPlan, base: str, module: Any, start: int) -> None:
    even = module.conv_even.weight.numel()
    plan.params.append(Binding(f"{base}.conv_even", "weight", start, even))
    odd = module.conv_odd.weight.numel()
    plan.params.append(Binding(f"{base}.conv_odd", "weight", start + even, odd))


def _bind_separable(
    plan: CellPlan, layout: CellLayout, base: str, module: nn.Module, edge: int, branch: int
) -> None:
    convs = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.Conv2d)]
    norms = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.BatchNorm2d)]
    channels = layout.channels
    for number in range(len(convs) // 2):
        filters = layout.first if number == 0 else layout.second
        offset = sum(kernel * kernel for kernel, _ in filters[:branch])
        taps = sum(kernel * kernel for kernel, _ in filters)
        section = layout.sections[f"depthwise{number + 1}"]
        size = channels * filters[branch][0] ** 2
        start = section.start + channels * (edge * taps + offset)
        plan.params.append(Binding(f"{base}.{convs[2 * number][0]}", "weight", start, size))
        section = layout.sections[f"pointwise{number + 1}"]
        start = section.start + (edge * len(filters) + branch) * channels**2
        plan.params.append(
            Binding(f"{base}.{convs[2 * number + 1][0]}", "weight", start, channels**2)
        )
        row = layout.rows["first" if number == 0 else "second"]
        row += (edge * len(filters) + branch) * channels
        plan.norms.append(Binding(f"{base}.{norms[number][0]}", "", row, channels))
