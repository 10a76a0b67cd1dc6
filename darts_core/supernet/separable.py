"""Separable convolutions of many edges on a CPU as one node of autograd: depthwise, then pointwise.

Images are channels-last [G, S * C, H, W] (see `taps`). A pointwise convolution is a matrix product over all
pixels; where the network is so narrow that the product's kernels idle, several samples share one with a
block matrix. Depthwise outcomes are kept where weight gradients are wanted alone. Derived once at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from darts_core.supernet.taps import convolve, spread, tap_gradient

__all__ = ["Branch", "block_matrices", "matrix", "separable"]

_NARROWEST = 16


@dataclass(frozen=True)
class Branch:
    """One separable convolution.

    Attributes:
        of: which image it reads.
        edge: its edge, a row of the weights.
        filter: its filter, a column of them.
    """

    of: int
    edge: int
    filter: int


@dataclass(frozen=True)
class _Run:
    branches: tuple[Branch, ...]
    filters: tuple[tuple[int, int], ...]
    stride: int
    samples: int


def separable(
    zs: Sequence[Tensor],
    branches: Sequence[Branch],
    filters: Sequence[tuple[int, int]],
    stride: int,
    taps_ET: Tensor,
    points_EFOI: Tensor,
    samples: int,
) -> list[Tensor]:
    """The outcome of every branch.

    Args:
        zs: images.
        branches: what is done with them.
        filters: (kernel, dilation) of each filter of an edge.
        stride: of all of them.
        taps_ET: for each edge [C, kernel, kernel] of all filters, one after the other.
        points_EFOI: matrices of the pointwise convolutions.
        samples: of a group.
    """
    run = _Run(tuple(branches), tuple(filters), stride, samples)
    return list(_Separable.apply(run, taps_ET, points_EFOI, *zs))


def matrix(image: Tensor, columns: int) -> Tensor:
    """An image as rows of so many columns."""
    return image.permute(0, 2, 3, 1).reshape(-1, columns)


def _image(rows: Tensor, like: Tensor, columns: int) -> Tensor:
    groups, _, height, width = like.shape
    return rows.view(groups, height, width, columns).permute(0, 3, 1, 2)


def block_matrices(points_NOI: Tensor, samples: int) -> Tensor:
    """[N, many * O, many * I]: for as many samples at once as a narrow product needs."""
    count, outs, ins = points_NOI.shape
    many = 1
    while many * outs < _NARROWEST and samples % (2 * many) == 0:
        many *= 2
    if many == 1:
        return points_NOI
    eye = torch.eye(many, dtype=points_NOI.dtype)
    blocks = torch.einsum("noi,ab->naobi", points_NOI, eye)
    return blocks.reshape(count, many * outs, many * ins)


def _taps(run: _Run, taps_ET: Tensor, channels: int) -> list[Tensor]:
    """[filter][edge]: [S * C, 1, kernel, kernel]."""
    parts = taps_ET.split([channels * kernel**2 for kernel, _ in run.filters], dim=1)
    return [
        part.reshape(-1, 1, channels, 1, kernel, kernel)
        .expand(-1, run.samples, -1, -1, -1, -1)
        .reshape(len(part), -1, 1, kernel, kernel)
        for part, (kernel, _) in zip(parts, run.filters, strict=True)
    ]


class _Separable(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, run: _Run, taps_ET: Tensor, points_EFOI: Tensor, *zs: Tensor
    ) -> tuple[Tensor, ...]:
        _, count, channels, _ = points_EFOI.shape
        taps = _taps(run, taps_ET, channels)
        blocks = block_matrices(points_EFOI.flatten(0, 1), run.samples)
        keep = ctx.needs_input_grad[1]
        kept, outs = [], []
        for branch in run.branches:
            dilation = run.filters[branch.filter][1]
            d = convolve(zs[branch.of], taps[branch.filter][branch.edge], dilation, run.stride)
            block = blocks[branch.edge * count + branch.filter]
            rows = matrix(d, block.shape[1]) @ block.t()
            outs.append(_image(rows, d, d.shape[1]))
            if keep:
                kept.append(d)
        ctx.run, ctx.sizes, ctx.keep = run, [z.shape[2:] for z in zs], keep
        ctx.save_for_backward(taps_ET, points_EFOI, *(zs if keep else ()), *kept)
        return tuple(outs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        # a backward pass may stand inside of autocast, where the forward pass did not
        with torch.autocast("cpu", enabled=False):
            return _gradients(ctx, grads)


def _gradients(ctx: Any, grads: Sequence[Tensor]) -> tuple[Any, ...]:
    run: _Run = ctx.run
    taps_ET, points_EFOI, *saved = ctx.saved_tensors
    zs, kept = saved[: len(ctx.sizes)], saved[len(ctx.sizes) :]
    _, count, channels, _ = points_EFOI.shape
    taps = [part.unbind(0) for part in _taps(run, taps_ET, channels)]
    blocks = block_matrices(points_EFOI.flatten(0, 1), run.samples).unbind(0)
    dzs: list[Tensor | None] = [None] * len(ctx.sizes)
    dtaps: dict[Branch, Tensor] = {}
    dblocks: list[Tensor] = []
    for i, (branch, grad) in enumerate(zip(run.branches, grads, strict=True)):
        of, (kernel, dilation) = branch.of, run.filters[branch.filter]
        block = blocks[branch.edge * count + branch.filter]
        rows = matrix(grad, len(block))
        dd = _image(rows @ block, grad, run.samples * channels)
        if ctx.needs_input_grad[3 + of]:
            tap = taps[branch.filter][branch.edge]
            dz, part = dzs[of], spread(dd, tap, dilation, run.stride, ctx.sizes[of])
            dzs[of] = part if dz is None else dz.add_(part)
        if ctx.keep:
            dblocks.append(rows.t() @ matrix(kept[i], block.shape[1]))
            dtaps[branch] = tap_gradient(zs[of], dd, kernel, dilation, run.stride)
    if not ctx.keep:
        return None, None, None, *dzs
    return None, _join_taps(run, dtaps, taps_ET), _join(run, dblocks, points_EFOI), *dzs


def _join_taps(run: _Run, found: dict[Branch, Tensor], taps_ET: Tensor) -> Tensor:
    """Gradients of the taps, as they lie in the params."""
    total = torch.zeros_like(taps_ET)
    channels = taps_ET.shape[1] // sum(kernel**2 for kernel, _ in run.filters)
    start = 0
    for f, (kernel, _) in enumerate(run.filters):
        own = [branch for branch in found if branch.filter == f]
        size = channels * kernel**2
        if own:
            stacked = torch.stack([found[branch] for branch in own])
            summed = stacked.view(len(own), -1, channels * kernel**2).sum(1)
            total[[branch.edge for branch in own], start : start + size] = summed
        start += size
    return total


def _join(run: _Run, found: list[Tensor], points_EFOI: Tensor) -> Tensor:
    """Gradients of the pointwise convolutions: the blocks on the diagonal, summed."""
    total = torch.zeros_like(points_EFOI)
    outs, ins = points_EFOI.shape[2:]
    blocks = torch.stack(found)
    many = blocks.shape[1] // outs
    blocks = blocks.view(len(found), many, outs, many, ins)
    summed = blocks.diagonal(dim1=1, dim2=3).sum(-1)
    edges, filters = [b.edge for b in run.branches], [b.filter for b in run.branches]
    total[edges, filters] = summed
    return total
