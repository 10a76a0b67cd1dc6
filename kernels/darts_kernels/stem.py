"""A stem's convolution and affine batch norm, as pointwise-with-statistics over its unfolded taps.

Maths. With f relu or nothing, y = W * f(x) (`conv_stats`) and the (mean, inv) of each channel of y,

    out = s yhat + b,   yhat = (y - mean) inv.

Backward, with g the gradient of out and M pixels, the norm's reductions are the affine part's gradients,

    d b = sum g,   d s = sum g yhat,   dy = A (g - d b / M) + B (y - mean),   A = s inv,  B = -A inv d s / M

and dy is formed on load by the kernels of the weight and of the input gradient. With running statistics
dy = A g. An image wants no gradient, so a stem's backward is one reduction and the weight gradient.

Kept for the backward: x, y (not its unfolded taps) and the moments.

Shapes: x [B, Ci, H, W], W [Co, Ci, K, K], s and b [Co]; out [B, Co, ceil(H / stride), ceil(W / stride)],
contiguous. Sums, moments, coefficients fp32; y and out in the storage dtype. Autocast has no say.
Differentiable once. Bytes: reads x, writes y, reads y, writes out; backward reads g, y twice and x.

Source: stems of DARTS (arXiv:1806.09055) and NAS-Bench-201 (arXiv:2001.00326); batch norm: arXiv:1502.03167.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from darts_kernels import state_norm
from darts_kernels._common import Precision, launch_options, next_power_of_2, on_device_of
from darts_kernels.conv_backward import conv_inputs, conv_weights
from darts_kernels.conv_stats import ConvShape, conv_forward, conv_reference

__all__ = ["StemRun", "conv_norm", "conv_norm_reference"]

_BLOCK = 1024


@dataclass(frozen=True)
class StemRun:
    """How a stem's convolution runs, and where its running statistics lie.

    Attributes:
        precision: storage and products.
        running_mean: [Co], updated in place.
        running_var: [Co], likewise.
        stride: of the convolution.
        relu: whether relu(x) is convolved.
        momentum: share of the new statistics; 0 leaves the running ones alone.
        train: batch statistics (True) or running ones.
        dtype: of the output; the precision's storage by default.
    """

    precision: Precision
    running_mean: Tensor
    running_var: Tensor
    stride: int = 1
    relu: bool = False
    momentum: float = 0.1
    train: bool = True
    dtype: torch.dtype | None = None


def conv_norm_reference(
    run: StemRun, x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor
) -> Tensor:
    """`conv_norm` in plain torch, statistics left alone; differentiable, any floating dtype."""
    y = conv_reference(x, weight, stride=run.stride, relu=run.relu)
    mean, var = (None, None) if run.train else (run.running_mean, run.running_var)
    mean, var = (t if t is None else t.to(y.dtype) for t in (mean, var))
    return F.batch_norm(y, mean, var, scale, shift, training=run.train)


class _ConvNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, run: StemRun, x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor):
        shape = _shape(run, x, weight)
        channels, device = weight.shape[0], x.device
        sums = torch.empty(channels, shape.parts, 2, device=device)
        y = conv_forward(shape, x, weight, sums, 0, dtype=run.precision.storage)
        moments = torch.empty(channels, 2, device=device)
        out = torch.empty_like(y, dtype=run.dtype or y.dtype)
        state_norm.normalize(
            y, out, sums, moments, run.running_mean, run.running_var, (scale, shift), tensors=1,
            channels=channels, plane=y[0, 0].numel(), pixels=shape.pixels, block=_BLOCK, row0=0,
            chunk=shape.block * shape.steps, momentum=run.momentum, train=run.train,
            options=launch_options(4),
        )  # fmt: skip
        ctx.run = run
        ctx.save_for_backward(x, weight, scale, y, moments)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        run = ctx.run
        x, weight, scale, y, moments = ctx.saved_tensors
        g, shape, channels = grad.contiguous(), _shape(run, x, weight), weight.shape[0]
        parts = triton.cdiv(shape.pixels, _BLOCK)
        sums = torch.empty(2, channels, parts, device=x.device)
        totals = torch.empty(2, channels, device=x.device)
        coefficients = torch.empty(channels, 4, device=x.device)
        state_norm._normalize_reduce_kernel[(channels, parts, 1)](
            g, y, moments, sums, shape.pixels, parts, 0, C=channels, HW=y[0, 0].numel(), BLOCK=_BLOCK,
            AFFINE=True, num_warps=4,
        )  # fmt: skip
        state_norm._normalize_coefficient_kernel[(channels,)](
            sums, moments, scale, totals, coefficients, parts, shape.pixels,
            C=channels, PARTS=next_power_of_2(parts), TRAIN=run.train, num_warps=4,
        )  # fmt: skip
        normed = (y, coefficients)
        dx = dweight = None
        if ctx.needs_input_grad[1]:
            dx = conv_inputs(shape, x, [g], [weight], [1], normed=normed)
        if ctx.needs_input_grad[2]:
            dweight = conv_weights(shape, x, g, weight, normed=normed)
        return None, dx, dweight, totals[0].to(scale.dtype), totals[1].to(scale.dtype)


def _shape(run: StemRun, x: Tensor, weight: Tensor) -> ConvShape:
    batch, channels, height, width = x.shape
    return ConvShape(
        batch, channels, height, width, weight.shape[0], stride=run.stride, relu=run.relu,
        dot=run.precision.dot,
    )  # fmt: skip


def conv_norm(run: StemRun, x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Convolution (padded to the same size over the stride) and affine batch norm; differentiable once.

    Shapes: x [B, Ci, H, W] of any floating dtype up to fp32; weight [Co, Ci, K, K], K odd; scale and
    shift [Co]. Returns [B, Co, ceil(H / stride), ceil(W / stride)], contiguous.

    Raises:
        ValueError: the weight is not square and odd, or does not fit x or the affine part.
    """
    channels, inputs, kernel, other = weight.shape
    if kernel != other or kernel % 2 == 0 or inputs != x.shape[1]:
        raise ValueError(
            f"conv_norm got a weight of shape {tuple(weight.shape)} for {x.shape[1]} input channels; "
            "it needs [Co, Ci, K, K] with K odd."
        )
    if scale.shape != (channels,) or shift.shape != (channels,):
        raise ValueError(
            f"conv_norm got scale and shift of {tuple(scale.shape)} and {tuple(shift.shape)}; "
            f"the weight makes {channels} channels."
        )
    with on_device_of(x):
        out: Tensor = _ConvNorm.apply(run, x.contiguous(), weight.contiguous(), scale, shift)
    return out
