"""The usual DARTS code as a rival: every candidate of every edge is a module and is run, zeros included.

The published search code multiplies each candidate's output by its weight and adds the products up in
Python, edge by edge and node by node, and has a candidate that multiplies its input by zero. Written here on
the modules of a plain supernet, so that both have the same params; the step is that of `plain_darts`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["as_published"]


class _Zero(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride].mul(0.0)


class _Mixed(nn.Module):
    def __init__(self, ops: nn.ModuleList, stride: int) -> None:
        super().__init__()
        self.ops = nn.ModuleList(op if _runs(op) else _Zero(stride) for op in ops)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        total: Tensor = sum(w * op(x) for w, op in zip(weights, self.ops, strict=True))  # type: ignore[assignment]
        return total


def _runs(op: nn.Module) -> bool:
    return type(op).__name__ != "ZeroOp"


def as_published(supernet: Any) -> Any:
    """The supernet with all mixed operations in the published form, in place; returns it."""
    for cell in supernet.cells:
        if hasattr(cell, "mixed"):
            cell.mixed = nn.ModuleList(_Mixed(m.ops, m.stride) for m in cell.mixed)
    return supernet
