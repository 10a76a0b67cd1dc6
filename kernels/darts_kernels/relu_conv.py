"""Dense convolutions of relu(x), the filters of all edges of a state in one call per kernel size.

Maths. y_j = conv(relu(x), W_j); with g_j the gradient of y_j,

    d W_j = wgrad(relu(x), g_j),    d x = [x > 0] sum_j dgrad(W_j, g_j)

relu(x) is made again in the backward pass instead of kept, and not at all where no weight gradient is
wanted. The convolutions are those of the library (cuDNN, oneDNN): deterministic algorithms only, and TF32 as
the caller says, whatever the process's settings are at the time.

Shapes: x [B, C, H, W], W_j [O_j, C, k_j, k_j] -> y_j [B, O_j, H', W'] with H' = ceil(H / stride);
channels-last, in the dtype of x. Bytes: relu reads and writes x; each convolution reads it once and writes
its output. FLOPs: 2 O_j C k_j^2 a pixel. Autocast: switched off inside. `source` registers the derivative.

Source: NAS-Bench-201 (arXiv:2001.00326), section 2.1: relu, convolution, batch norm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["conv_backward", "conv_forward", "relu_conv_reference"]


def relu_conv_reference(
    x: Tensor, weights: Sequence[Tensor], dilations: Sequence[int], stride: int
) -> list[Tensor]:
    """The convolutions in plain torch; any floating dtype, any number of derivatives."""
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


def conv_forward(
    x: Tensor, weights: Sequence[Tensor], dilations: Sequence[int], stride: int, *, tf32: bool
) -> list[Tensor]:
    """`relu_conv_reference` in the dtype of x, channels-last; not differentiable."""
    device = "cpu" if x.device.type == "meta" else x.device.type  # meta has no autocast
    with _cudnn(tf32), torch.autocast(device, enabled=False), torch.no_grad():
        outs = relu_conv_reference(x, [w.to(x.dtype) for w in weights], dilations, stride)
    return [y.contiguous(memory_format=torch.channels_last) for y in outs]


def conv_backward(
    x: Tensor,
    grads: Sequence[Tensor],
    weights: Sequence[Tensor],
    dilations: Sequence[int],
    stride: int,
    *,
    tf32: bool,
    wants_x: bool,
    wants_weights: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """(gradient of relu(x) from each convolution, gradients of the weights); empty where not wanted."""
    # without weight gradients only the shape of the convolutions' input counts
    z = F.relu(x) if wants_weights else x
    dzs, dweights = [], []
    for g, w, d in zip(grads, weights, dilations, strict=True):
        padding = w.shape[-1] // 2 * d
        with _cudnn(tf32):
            dz, dw, _ = torch.ops.aten.convolution_backward(
                g, z, w.to(x.dtype), None, [stride] * 2, [padding] * 2, [d] * 2, False, [0, 0], 1,
                [wants_x, wants_weights, False],
            )  # fmt: skip
        if wants_x:
            dzs.append(dz.contiguous(memory_format=torch.channels_last))
        if wants_weights:
            dweights.append(dw.to(w.dtype))
    return dzs, dweights
