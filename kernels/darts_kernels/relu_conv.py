"""Dense convolutions of relu(x), the filters of all edges of a state in one call per kernel size.

Maths. y_j = conv(relu(x), W_j); with g_j the gradient of y_j,

    d W_j = wgrad(relu(x), g_j),    d x = [x > 0] sum_j dgrad(W_j, g_j)

relu(x) is made again in the backward pass instead of kept, and not at all where no weight gradient is
wanted. The convolutions are those of the library (cuDNN, oneDNN): deterministic algorithms only, and TF32 as
the caller says, whatever the process's settings are at the time.

Shapes: x [B, C, H, W], W_j [O_j, C, k_j, k_j] -> y_j [B, O_j, H', W'] with H' = ceil(H / stride);
channels-last, in the dtype of x. Bytes: relu reads and writes x; each convolution reads it once and writes
its output. FLOPs: 2 O_j C k_j^2 a pixel. Autocast: switched off inside. Differentiable once.

Source: NAS-Bench-201 (arXiv:2001.00326), section 2.1: relu, convolution, batch norm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["relu_conv", "relu_conv_reference"]


def relu_conv_reference(
    x: Tensor, weights: Sequence[Tensor], dilations: Sequence[int], stride: int
) -> list[Tensor]:
    """`relu_conv` in plain torch; any floating dtype, any number of derivatives."""
    z = F.relu(x)
    return [
        F.conv2d(z, w, None, stride, w.shape[-1] // 2 * d, d)
        for w, d in zip(weights, dilations, strict=True)
    ]


@contextmanager
def _cudnn(tf32: bool) -> Iterator[None]:
    """Deterministic convolutions, in TF32 or not; the process's own settings come back."""
    settings = torch.backends.cudnn
    kept = settings.deterministic, settings.allow_tf32
    settings.deterministic, settings.allow_tf32 = True, tf32
    try:
        yield
    finally:
        settings.deterministic, settings.allow_tf32 = kept


class _ReluConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, x: Tensor, dilations: Sequence[int], stride: int, tf32: bool, *weights: Tensor
    ):
        ctx.dilations, ctx.stride, ctx.tf32 = dilations, stride, tf32
        ctx.save_for_backward(x, *weights)
        device = "cpu" if x.device.type == "meta" else x.device.type  # meta has no autocast
        with _cudnn(tf32), torch.autocast(device, enabled=False):
            outs = relu_conv_reference(x, [w.to(x.dtype) for w in weights], dilations, stride)
        return tuple(y.contiguous(memory_format=torch.channels_last) for y in outs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor):
        x, *weights = ctx.saved_tensors
        wants_x, wants_w = ctx.needs_input_grad[0], ctx.needs_input_grad[4:]
        # without weight gradients only the shape of the convolutions' input counts
        z = F.relu(x) if any(wants_w) else x
        total: Tensor | None = None
        dweights: list[Tensor | None] = []
        for g, w, d, wanted in zip(grads, weights, ctx.dilations, wants_w, strict=True):
            padding = w.shape[-1] // 2 * d
            with _cudnn(ctx.tf32):
                dz, dw, _ = torch.ops.aten.convolution_backward(
                    g, z, w.to(x.dtype), None, [ctx.stride] * 2, [padding] * 2, [d] * 2,
                    False, [0, 0], 1, [wants_x, wanted, False],
                )  # fmt: skip
            dweights.append(dw.to(w.dtype) if wanted else None)
            if wants_x:
                total = dz if total is None else total.add_(dz)
        dx = None if total is None else torch.ops.aten.threshold_backward(total, x, 0)
        return dx, None, None, None, *dweights


def relu_conv(
    x: Tensor, weights: Sequence[Tensor], dilations: Sequence[int], stride: int, *, tf32: bool
) -> list[Tensor]:
    """Convolutions (same padding) of relu(x), which is made again backward; differentiable once.

    Shapes: x [B, C, H, W], weights [O_j, C, k_j, k_j] in any dtype -> [B, O_j, ceil(H / stride),
    ceil(W / stride)], channels-last, in the dtype of x.
    """
    return list(_ReluConv.apply(x, dilations, stride, tf32, *weights))
