"""Whether a cell can learn: a trainable operation on a path from its inputs to its output."""

from __future__ import annotations

from functools import cache

import torch

from darts_core.architecture import CellChoice
from darts_core.ops import OPS

__all__ = ["learns"]

# an operation of one's own may need a multiple of some number, for its groups
_CHANNELS = (4, 16, 64, 192)


def learns(cell: CellChoice) -> bool:
    """Whether a path without `none` from an input to an output passes an operation with parameters.

    Those of a norm do not count.
    """
    return any(_trains(op) for op in _on_paths(cell))


def _on_paths(cell: CellChoice) -> set[str]:
    edges = [edge for edge in cell.edges if edge[2] != "none"]
    reached, wanted = set(range(cell.inputs)), set(cell.concat)
    for source, target, _ in sorted(edges, key=lambda edge: edge[1]):
        if source in reached:
            reached.add(target)
    for source, target, _ in sorted(edges, key=lambda edge: -edge[1]):
        if target in wanted:
            wanted.add(source)
    return {op for source, target, op in edges if source in reached and target in wanted}


@cache
def _trains(op: str) -> bool:
    make = OPS[op]
    # asked in the middle of a search, whose random numbers must not depend on whether it was asked before
    with torch.random.fork_rng(devices=[]):
        for channels in _CHANNELS:
            try:
                module = make(channels, 1, affine=False)
            except Exception:
                continue  # whatever somebody's operation raises for a width that does not fit it
            return any(True for _ in module.parameters())
    # a doubt needs a proof: what needs a width of its own has something to learn with it
    return True
