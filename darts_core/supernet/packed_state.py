"""Optimizer states across paths: saved always in the order and shapes of the module path.

A fused or batched supernet has one packed parameter a cell, the module path one for every operation.
Checkpoints hold the latter, so that a search may be resumed on another path or device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.supernet.fused import FusedSearchCell

__all__ = ["to_module_order", "to_packed_order"]


def _pieces(supernet: nn.Module) -> Iterator[list[tuple[int, int, torch.Size]] | None]:
    """For each parameter of the supernet: None, or (start, count, shape) of each it was packed from."""
    cells = {
        f"{name}.packed": cell
        for name, cell in supernet.named_modules()
        if isinstance(cell, FusedSearchCell)
    }
    for name, _ in supernet.named_parameters():
        cell = cells.get(name)
        if cell is None:
            yield None
            continue
        places = {f"{b.module}.{b.name}": (b.start, b.count) for b in cell.plan.params}
        yield [(*places[leaf], cell._shapes[leaf]) for leaf in cell._names]


def to_module_order(supernet: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """The params optimizer's `state` as the module path's optimizer would save it."""
    if not _is_packed_net(supernet):
        return dict(state)
    moved: dict[int, Any] = {}
    count = 0
    for index, pieces in enumerate(_pieces(supernet)):
        values = state["state"].get(index)
        for start, size, shape in pieces or [(0, 0, torch.Size())]:
            if values is not None:
                moved[count] = values if pieces is None else _cut(values, start, size, shape)
            count += 1
    return _renumbered(state, moved, count)


def to_packed_order(supernet: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """A saved `state` of the module path as this supernet's params optimizer loads it."""
    if not _is_packed_net(supernet):
        return dict(state)
    packed: dict[int, Any] = {}
    count, number = 0, 0
    lengths = [parameter.numel() for parameter in supernet.parameters()]
    for index, pieces in enumerate(_pieces(supernet)):
        parts = [state["state"].get(count + i) for i in range(len(pieces or [0]))]
        count += len(parts)
        number = index + 1
        if any(part is None for part in parts):
            continue
        packed[index] = parts[0] if pieces is None else _joined(parts, pieces, lengths[index])
    return _renumbered(state, packed, number)


def _is_packed_net(supernet: nn.Module) -> bool:
    return any(isinstance(module, FusedSearchCell) for module in supernet.modules())


def _cut(values: Mapping[str, Any], start: int, size: int, shape: torch.Size) -> dict[str, Any]:
    return {
        key: value[start : start + size].view(shape).clone() if _is_packed(value) else value
        for key, value in values.items()
    }


def _joined(
    parts: list[Any], pieces: list[tuple[int, int, torch.Size]], length: int
) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for key, first in parts[0].items():
        if not _is_packed(first):
            joined[key] = first
            continue
        flat = torch.zeros(length, dtype=first.dtype, device=first.device)
        for part, (start, size, _) in zip(parts, pieces, strict=True):
            flat[start : start + size] = part[key].reshape(-1)
        joined[key] = flat
    return joined


def _is_packed(value: Any) -> bool:
    # a step counter is a scalar and stays as it is
    return isinstance(value, Tensor) and value.dim() > 0


def _renumbered(state: Mapping[str, Any], values: dict[int, Any], count: int) -> dict[str, Any]:
    (group,) = state["param_groups"]
    return {"state": values, "param_groups": [{**group, "params": list(range(count))}]}
