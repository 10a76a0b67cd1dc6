"""A packed cell run by its own modules: for planes that the batched path has no cheap form for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from darts_core.supernet.cell import SearchCell

if TYPE_CHECKING:
    from darts_core.supernet.fused import FusedSearchCell

__all__ = ["run_by_modules"]


def run_by_modules(cell: FusedSearchCell, inputs: Sequence[Tensor], weights_EK: Tensor) -> Tensor:
    """The module path's output with the packed parameters, statistics updated as the plan does."""
    modules = dict(cell.named_modules())
    values = {}
    for binding in cell.plan.params:
        name = f"{binding.module}.{binding.name}"
        flat = cell.packed[binding.start : binding.start + binding.count]
        values[name] = flat.view(cell._shapes[name])
    for name, value in values.items():
        module, leaf = name.rsplit(".", 1)
        modules[module].__dict__[leaf] = value
    try:
        with _own_statistics(cell):
            return SearchCell.forward(cell, inputs, weights_EK)
    finally:
        for name in values:
            module, leaf = name.rsplit(".", 1)
            modules[module].__dict__.pop(leaf)


@contextmanager
def _own_statistics(cell: FusedSearchCell) -> Iterator[None]:
    """Every norm with running statistics of its own: norms that share theirs must not update them twice."""
    modules = dict(cell.named_modules())
    for binding in cell.plan.norms:
        norm = modules[binding.module]
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            norm._buffers[name] = norm._buffers[name].clone()  # type: ignore[union-attr]
    try:
        yield
    finally:
        with torch.no_grad():
            # norms with one place have one value, so any of them may be the last
            for binding in cell.plan.norms:
                norm = modules[binding.module]
                span = slice(binding.start, binding.start + binding.count)
                cell._mean[span] = norm.running_mean  # type: ignore[assignment]
                cell._var[span] = norm.running_var  # type: ignore[assignment]
                norm._buffers["running_mean"] = cell._mean[span]
                norm._buffers["running_var"] = cell._var[span]
                norm._buffers["num_batches_tracked"] = cell._batches[0]
            if cell.training and (cell._probe is None or cell._probe.track_running_stats):
                cell._batches.add_(1)
