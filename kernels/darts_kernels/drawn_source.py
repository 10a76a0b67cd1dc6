"""A state of a cell with dense convolutions whose mixing weights are sparse: what is not drawn is skipped.

Maths. That of `source`, over the operations of weight other than zero. Flags made on the device
(`drawn.source_flags`) are read by the programs of every convolution (`conv_stats`, `conv_backward`), pool
(`source_pool`), reduction and sum (`dense`), which return at once or leave out their loads. The host waits
for nothing and the shapes are always the same, so a step is recorded as ever. A drawn convolution's
statistics come with it. Of what is not drawn running statistics stay, and the gradients of params and of
the mixing weight are zero.

The library's convolution cannot return early. One convolution an edge of a filter chosen on the device (a
1x1 padded to 3x3) would run on every edge, drawn or not: 9 taps of the 10 that all operations of
NAS-Bench-201 have together, where those drawn have 2 in the mean of a uniform draw.

Shapes: as in `source`; flags [J * E + pools + skip], int32. Bytes: of the drawn operations.

Source: one path an edge as in GDAS (arXiv:1910.04465), section 3; NAS-Bench-201 (arXiv:2001.00326).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from darts_kernels.conv_backward import conv_inputs, conv_weights
from darts_kernels.conv_stats import ConvShape, conv_forward
from darts_kernels.drawn import source_flags
from darts_kernels.moments import finish_moments, partial_moments
from darts_kernels.source_pool import source_pool

if TYPE_CHECKING:
    from darts_kernels.source_run import SourceRun

__all__ = ["drawn_backward", "drawn_parts"]


def _shape(run: SourceRun, x: Tensor, outputs: int, edges: int) -> ConvShape:
    batch, channels, height, width = x.shape
    return ConvShape(
        batch, channels, height, width, outputs // edges, edges, run.stride, last=True, relu=True,
        dot="tf32" if run.tf32 else "tf32x3",
    )  # fmt: skip


def drawn_parts(
    run: SourceRun, mix_ES: Tensor, x: Tensor, weights: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor, Tensor]:
    """(convolutions, pools, places of maxima, moments, flags); undefined where not drawn, but for moments.

    Args:
        run: what the edges are.
        mix_ES: mixing weights [E, slots], fp32, contiguous.
        x: the state, channels-last.
        weights: [E * C, C, k, k] of each kernel size.
    """
    edges, count = mix_ES.shape[0], len(weights)
    live = source_flags(mix_ES, count)
    shape = _shape(run, x, weights[0].shape[0], edges)
    rows, channels = run.running_mean.numel(), shape.channels
    sums = torch.empty(rows, shape.parts, 2, device=x.device)
    ys = [
        conv_forward(
            shape, x, w, sums, j * edges * channels, dilation=d,
            live=live[j * edges : (j + 1) * edges],
        )
        for j, (w, d) in enumerate(zip(weights, run.dilations, strict=True))
    ]  # fmt: skip
    kernels = [*((k, True) for k in run.max_pools), *((k, False) for k in run.avg_pools)]
    flags = live[count * edges :]
    found = [
        source_pool(x, kernel, run.stride, flags[p:], maximum=maximum)
        for p, (kernel, maximum) in enumerate(kernels)
    ]
    pools = [pool for pool, _ in found]
    if pools and run.pool_norm and run.train:
        partial_moments(
            pools, channels, sums, count * edges * channels, pixels=shape.pixels,
            block=shape.block, steps=shape.steps, live=flags,
        )  # fmt: skip
    moments = torch.empty(rows, 2, device=x.device)
    finish_moments(
        sums, moments, run.running_mean, run.running_var, momentum=run.momentum, train=run.train,
        pixels=shape.pixels, chunk=shape.block * shape.steps, live=live, channels=channels,
    )  # fmt: skip
    places = [place for _, place in found if place is not None]
    return ys, pools, places, moments, live


def drawn_backward(
    run: SourceRun,
    x: Tensor,
    dys: Sequence[Tensor],
    weights: Sequence[Tensor],
    live: Tensor,
    *,
    wants_x: bool,
    wants_weights: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """([gradient of relu(x) from all convolutions], gradients of the weights); empty where not wanted.

    Args:
        run: what the edges are.
        x: the state, channels-last.
        dys: gradients of the convolutions; those of flag 0 are not read.
        weights: of each kernel size.
        live: the flags.
        wants_x: whether the first is wanted.
        wants_weights: whether the second is.
    """
    edges = dys[0].shape[1] // x.shape[1]
    shape = _shape(run, x, weights[0].shape[0], edges)
    dzs, dweights = [], []
    if wants_x:
        # the mask of relu is `source`'s last kernel's
        dzs = [conv_inputs(shape, x, dys, weights, run.dilations, relu=False, live=live)]
    if wants_weights:
        dweights = [
            conv_weights(shape, x, g, w, dilation=d, live=live[j * edges : (j + 1) * edges])
            for j, (g, w, d) in enumerate(zip(dys, weights, run.dilations, strict=True))
        ]
    return dzs, dweights
