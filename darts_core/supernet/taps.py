"""Depthwise convolutions on a CPU and their two gradients, from calls that have fast kernels there.

Images are channels-last [G, S * C, H, W]: the S samples of a group lie beside the C channels, so that
vectors are full however narrow the network is.

    d z          stride 1: the forward convolution of g with flipped taps, at any dilation
    d taps       the library has a kernel for filters up to 3 taps wide without dilation; wider ones are cut
                 into such strips, dilated ones are ordinary ones of the sub-grids of their step

A convolution whose stride and dilation have a common factor reads one sub-grid alone and is done there. Taps
that would always lie outside of a small plane are left out: the library has slow kernels for such filters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LAST", "convolve", "spread", "tap_gradient"]

LAST = torch.channels_last
_WIDEST = 3  # taps a row, of the library's kernel for weight gradients
_backward = torch.ops.aten.convolution_backward


def convolve(z: Tensor, taps: Tensor, dilation: int, stride: int) -> Tensor:
    """The depthwise convolution of an image, same padding; taps [S * C, 1, kernel, kernel]."""
    taps = _within(taps, dilation, z.shape[2:])
    step = _step(taps.shape[-1], dilation, stride)
    if step > 1:
        z, dilation, stride = _sub_grid(z, step), max(1, dilation // step), stride // step
    if taps.shape[-1] == 1:
        return z * taps.view(1, -1, 1, 1)
    padding = taps.shape[-1] // 2 * dilation
    return F.conv2d(z, taps, None, stride, padding, dilation, len(taps))


def spread(g: Tensor, taps: Tensor, dilation: int, stride: int, size: Sequence[int]) -> Tensor:
    """The gradient of the image of `size` pixels that was convolved, g being that of the outcome."""
    taps = _within(taps, dilation, size)
    step = _step(taps.shape[-1], dilation, stride)
    if step > 1:
        whole = torch.zeros((*g.shape[:2], *size), dtype=g.dtype).contiguous(memory_format=LAST)
        part = [-(-length // step) for length in size]
        inner = spread(g, taps, max(1, dilation // step), stride // step, part)
        whole[:, :, ::step, ::step] = inner
        return whole
    if stride == 1:
        return convolve(g, taps.flip(2, 3), dilation, 1)
    # read for its shape alone
    like = torch.empty((*g.shape[:2], *size), dtype=g.dtype, memory_format=LAST)
    padding = taps.shape[-1] // 2 * dilation
    dz: Tensor = _backward(
        g, like, taps, None, [stride] * 2, [padding] * 2, [dilation] * 2, False, [0, 0], len(taps),
        [True, False, False],
    )[0]  # fmt: skip
    return dz


def tap_gradient(z: Tensor, g: Tensor, kernel: int, dilation: int, stride: int) -> Tensor:
    """[S * C, kernel, kernel]: the gradient of the taps of every column."""
    outer = kernel // 2 - _radius(kernel, dilation, z.shape[2:])
    if outer:
        inner = tap_gradient(z, g, kernel - 2 * outer, dilation, stride)
        return F.pad(inner, (outer,) * 4)
    step = _step(kernel, dilation, stride)
    if step > 1:
        z, dilation, stride = _sub_grid(z, step), max(1, dilation // step), stride // step
    if kernel == 1:
        return (z * g).sum((0, 2, 3)).view(-1, 1, 1)
    if dilation > 1 and stride == 1:
        z, g, dilation = _phases(z, dilation), _phases(g, dilation), 1
    return _strips(z, g, kernel, dilation, stride)


def _step(kernel: int, dilation: int, stride: int) -> int:
    """The sub-grid that a convolution reads: every so many pixels."""
    return stride if kernel == 1 else math.gcd(dilation, stride)


def _radius(kernel: int, dilation: int, size: Sequence[int]) -> int:
    """How many taps to each side of the middle one may meet a pixel."""
    return min(kernel // 2, (max(size) - 1) // dilation)


def _within(taps: Tensor, dilation: int, size: Sequence[int]) -> Tensor:
    kernel = taps.shape[-1]
    outer = kernel // 2 - _radius(kernel, dilation, size)
    return taps[..., outer : kernel - outer, outer : kernel - outer] if outer else taps


def _sub_grid(x: Tensor, step: int) -> Tensor:
    return x[:, :, ::step, ::step].contiguous(memory_format=LAST)


def _phases(x: Tensor, step: int) -> Tensor:
    """[G * step^2, S * C, ceil(H / step), ceil(W / step)]: the sub-grids as further images."""
    groups, columns, height, width = x.shape
    if height % step or width % step:
        x = F.pad(x, (0, -width % step, 0, -height % step))
    height, width = -(-height // step), -(-width // step)
    x = x.permute(0, 2, 3, 1).reshape(groups, height, step, width, step, columns)
    x = x.permute(0, 2, 4, 1, 3, 5).reshape(-1, height, width, columns)
    return x.permute(0, 3, 1, 2)


def _strips(z: Tensor, g: Tensor, kernel: int, dilation: int, stride: int) -> Tensor:
    """[columns, kernel, kernel]: the taps' gradients, in strips of at most three taps a row."""
    columns, radius = z.shape[1], kernel // 2 * dilation
    strip = kernel if dilation > 1 else min(kernel, _WIDEST)
    # the last strip may begin earlier and see some taps again
    starts = [min(start, kernel - strip) for start in range(0, kernel, strip)]
    height, width = ((n - 1) * stride + 1 for n in g.shape[2:])
    # a plane lower than the filter has no fast kernel unless its padding is written out
    whole = len(starts) == 1 and z.shape[2] >= kernel
    parts: list[Tensor] = []
    like = torch.empty((columns, 1, kernel, strip), dtype=z.dtype)
    for start in starts:
        window, padding = z, radius
        if not whole:
            top, left = radius, radius - start * dilation
            bottom = height + (kernel - 1) * dilation - top - z.shape[2]
            right = width + (strip - 1) * dilation - left - z.shape[3]
            window, padding = F.pad(z, (left, right, top, bottom)), 0
        found = _backward(
            g, window, like, None, [stride] * 2, [padding] * 2, [dilation] * 2, False, [0, 0],
            columns, [False, True, False],
        )[1][:, 0]  # fmt: skip
        done = sum(part.shape[-1] for part in parts)
        parts.append(found if done == start else found[..., done - start :])
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
