"""Optimizer states across paths: saved always in the order and shapes of the module path.

A fused or batched supernet has one packed parameter a cell (and those of operations that run as modules),
the module path one for every operation.
Checkpoints hold the latter, so that a search may be resumed on another path or device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.supernet.packed import PackedCell

__all__ = ["to_module_order", "to_packed_order"]


Leaf = tuple[int, tuple[int, int, torch.Size] | None]


def _leaves(supernet: nn.Module) -> list[Leaf]:
    """For each parameter of the module path: the number of the present one that holds it, and where.

    The place is (start, count, shape) inside a packed parameter, None for a parameter of its own. An
    optimizer does not hold parameters that are held fast, so they have no number.
    """
    moving = (name for name, param in supernet.named_parameters() if param.requires_grad)
    own = {name: number for number, name in enumerate(moving)}
    cells = [
        (f"{name}.", cell)
        for name, cell in supernet.named_modules()
        if isinstance(cell, PackedCell)
    ]
    leaves: list[Leaf] = []
    listed: set[str] = set()
    for name, number in own.items():
        inside = next(((p, cell) for p, cell in cells if name.startswith(p)), None)
        if inside is None:
            leaves.append((number, None))
            continue
        prefix, cell = inside
        if prefix in listed:
            continue  # listed with its cell, in the module path's order
        listed.add(prefix)
        packed = own.get(f"{prefix}packed")
        places = {f"{b.module}.{b.name}": (b.start, b.count) for b in cell.plan.params}
        for leaf in cell._names:
            if leaf not in places:
                if prefix + leaf in own:
                    leaves.append((own[prefix + leaf], None))
            elif packed is not None:
                leaves.append((packed, (*places[leaf], cell._shapes[leaf])))
    return leaves


def to_module_order(supernet: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """The params optimizer's `state` as the module path's optimizer would save it."""
    if not _is_packed_net(supernet):
        return dict(state)
    leaves = _leaves(supernet)
    moved: dict[int, Any] = {}
    for leaf, (number, place) in enumerate(leaves):
        values = state["state"].get(number)
        if values is not None:
            moved[leaf] = values if place is None else _cut(values, *place)
    return _renumbered(state, moved, len(leaves))


def to_packed_order(supernet: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """A saved `state` of the module path as this supernet's params optimizer loads it."""
    if not _is_packed_net(supernet):
        return dict(state)
    packed: dict[int, Any] = {}
    parts: dict[int, list[tuple[Any, tuple[int, int, torch.Size]]]] = {}
    for leaf, (number, place) in enumerate(_leaves(supernet)):
        values = state["state"].get(leaf)
        if place is not None:
            parts.setdefault(number, []).append((values, place))
        elif values is not None:
            packed[number] = values
    lengths = [param.numel() for param in supernet.parameters() if param.requires_grad]
    for number, pieces in parts.items():
        if all(values is not None for values, _ in pieces):
            packed[number] = _joined(pieces, lengths[number])
    return _renumbered(state, packed, len(lengths))


def _is_packed_net(supernet: nn.Module) -> bool:
    return any(isinstance(module, PackedCell) for module in supernet.modules())


def _cut(values: Mapping[str, Any], start: int, size: int, shape: torch.Size) -> dict[str, Any]:
    return {
        key: value[start : start + size].view(shape).clone() if _is_packed(value) else value
        for key, value in values.items()
    }


def _joined(
    pieces: list[tuple[Mapping[str, Any], tuple[int, int, torch.Size]]], length: int
) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for key, first in pieces[0][0].items():
        if not _is_packed(first):
            joined[key] = first
            continue
        flat = torch.zeros(length, dtype=first.dtype, device=first.device)
        for values, (start, size, _) in pieces:
            flat[start : start + size] = values[key].reshape(-1)
        joined[key] = flat
    return joined


def _is_packed(value: Any) -> bool:
    # a step counter is a scalar and stays as it is
    return isinstance(value, Tensor) and value.dim() > 0


def _renumbered(state: Mapping[str, Any], values: dict[int, Any], count: int) -> dict[str, Any]:
    (group,) = state["param_groups"]
    return {"state": values, "param_groups": [{**group, "params": list(range(count))}]}
