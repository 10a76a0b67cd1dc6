"""Batch-norm moments of channels-last tensors: mean and deviation of every column of matrices [M, columns].

Maths. A program goes over `steps` tiles of `block` rows and merges their (count, mean, sum of squared
deviations) as Chan, Golub and LeVeque (1979) do,

    mean += (mean' - mean) n' / (n + n'),   second += second' + (mean' - mean)^2 n n' / (n + n')

and `norm._finalize_kernel` merges the programs' partials into (mean, inv) and the running statistics. It
is a reduction of the forward pass alone; the norm's backward is that of whoever uses the moments.

Shapes: tensors of one group [M, columns], channels-last memory; partials [rows, parts, 2]; moments
[rows, 2], the rows of one group after the other. fp32 whatever the storage. Bytes: reads every tensor once.

Source: Ioffe and Szegedy (arXiv:1502.03167).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from darts_kernels import norm
from darts_kernels._common import next_power_of_2
from darts_kernels._device import larger

__all__ = ["column_moments", "column_moments_reference", "finish_moments", "partial_moments"]


def column_moments_reference(tensors: Sequence[Tensor]) -> Tensor:
    """[rows, 2] (mean, (variance + eps)^-1/2) of every channel of tensors [B, C, H, W], in plain torch."""
    found = []
    for x in tensors:
        _, mean, var = norm.norm_reference(x)
        found.append(torch.stack([mean, torch.rsqrt(var + 1e-5)], dim=1))
    return torch.cat(found)


@triton.jit(do_not_specialize=["parts", "row0"])
def _moments_kernel(
    ys, sum_ptr, live_ptr, pixels, parts, row0,
    J: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
    STEPS: tl.constexpr, SPARSE: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    for j in tl.static_range(J):
        mean = tl.zeros([COLUMNS], tl.float32)
        second = tl.zeros([COLUMNS], tl.float32)
        seen = 0.0
        for step in range(STEPS):
            start = (part * STEPS + step) * BLOCK
            i = start + tl.arange(0, BLOCK)
            mask = (i < pixels)[:, None] & (c < WIDTH)[None, :]
            if SPARSE:
                mask = mask & (tl.load(live_ptr + j) != 0)
            spot = i.to(tl.int64)[:, None] * WIDTH + c[None, :]
            value = tl.load(ys[j] + spot, mask=mask, other=0.0).to(tl.float32)
            count = tl.minimum(tl.maximum(pixels - start, 0), BLOCK).to(tl.float32)
            here = tl.sum(value, 0) / larger(count, 1.0)
            centred = tl.where(mask, value - here[None, :], 0.0)
            total = seen + count
            delta = here - mean
            share = count / larger(total, 1.0)
            mean += delta * share
            second += tl.sum(centred * centred, 0) + delta * delta * seen * share
            seen = total
        out = sum_ptr + ((row0 + j * WIDTH + c).to(tl.int64) * parts + part) * 2
        tl.store(out, mean, mask=c < WIDTH)
        tl.store(out + 1, second, mask=c < WIDTH)


def column_moments(
    groups: Sequence[tuple[Sequence[Tensor], int]],
    running_mean: Tensor,
    running_var: Tensor,
    *,
    momentum: float,
    train: bool,
    pixels: int,
    block: int,
    steps: int,
) -> Tensor:
    """[rows, 2] (mean, inv) of every channel; moves the running statistics.

    Args:
        groups: (tensors, channels of each), channels-last.
        running_mean: [rows], updated in place.
        running_var: [rows], likewise.
        momentum: share of the new statistics.
        train: batch statistics, or the running ones.
        pixels: rows of the matrices.
        block: rows of a tile.
        steps: tiles of a program.
    """
    rows, device = running_mean.numel(), running_mean.device
    parts = triton.cdiv(pixels, block * steps)
    moments = torch.empty(rows, 2, dtype=torch.float32, device=device)
    sums = torch.empty(rows if train else 0, parts, 2, dtype=torch.float32, device=device)
    row0 = 0
    for tensors, columns in groups:
        if tensors and train:
            partial_moments(tensors, columns, sums, row0, pixels=pixels, block=block, steps=steps)
        row0 += len(tensors) * columns
    finish_moments(
        sums, moments, running_mean, running_var, momentum=momentum, train=train, pixels=pixels,
        chunk=block * steps,
    )  # fmt: skip
    return moments


def partial_moments(
    tensors: Sequence[Tensor],
    columns: int,
    sums: Tensor,
    row0: int,
    *,
    pixels: int,
    block: int,
    steps: int,
    live: Tensor | None = None,
) -> None:
    """Write the partials of tensors of `columns` channels into rows `row0` on of `sums` [rows, parts, 2].

    Args:
        tensors: channels-last.
        columns: channels of each.
        sums: fp32.
        row0: first row.
        pixels: rows of the matrices.
        block: rows of a tile.
        steps: tiles of a program.
        live: a flag for each tensor; those of flag 0 are not read.
    """
    tile = min(64, max(16, next_power_of_2(columns)))
    _moments_kernel[(sums.shape[1], triton.cdiv(columns, tile))](
        tuple(tensors), sums, sums if live is None else live, pixels, sums.shape[1], row0,
        J=len(tensors), WIDTH=columns, COLUMNS=tile, BLOCK=block, STEPS=steps,
        SPARSE=live is not None, num_warps=4,
    )  # fmt: skip


def finish_moments(
    sums: Tensor,
    moments: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    momentum: float,
    train: bool,
    pixels: int,
    chunk: int,
    live: Tensor | None = None,
    channels: int = 1,
) -> None:
    """Fill `moments` [rows, 2] from the partials of programs of `chunk` pixels; move running statistics.

    Args:
        sums: partials [rows, parts, 2]; not read in evaluation.
        moments: (mean, inv), written.
        running_mean: [rows], updated in place.
        running_var: [rows], likewise.
        momentum: share of the new statistics.
        train: batch statistics, or the running ones.
        pixels: over all programs.
        chunk: pixels of a program.
        live: flags [rows / channels]; rows of flag 0 get mean and variance 0 and keep their statistics.
        channels: rows of a flag.
    """
    rows, parts = moments.shape[0], triton.cdiv(pixels, chunk)
    padded = next_power_of_2(parts)
    norm._finalize_kernel[(rows,)](
        sums, moments, running_mean, running_var, moments if live is None else live,
        0, rows, 0, 0, 0, 0, 0, parts, chunk, pixels, momentum,
        PARTS=padded, TRAIN=train, C=channels, SPARSE=live is not None, num_warps=norm.row_warps(padded),
    )  # fmt: skip
