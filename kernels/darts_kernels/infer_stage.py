"""Inference: one kernel for relu, depthwise convolution, pointwise convolution, bias and node sum.

Maths (batch norm folded into `point` and `bias`, relu and the sum optional):

    d[n, c, p] = sum over taps t of relu(x)[n, c, p * stride + t * dilation - padding] * deep[c, t]
    y[n, o, p] = sum over c of point[o, c] * d[n, c, p] + bias[o] + addend[n, o, p]

Without `deep` the stage is a pointwise convolution (d = relu(x) at the strided positions). No
backward: for inference only.

Shapes: x [N, C, H, W], any strides but contiguous rows; deep [C, K, K]; point [O, C]; bias [O];
addend and y [N, O, Ho, Wo] with contiguous planes, so that both may be channel slices of a cell's
concatenation. Dtypes: fp32 (three TF32 products each), fp16, bf16; sums in fp32; d is rounded to the
storage type before the product. Bytes: reads x once (taps hit the cache) and addend, writes y:
2 N H W (C + O) in a 16-bit type. Flops: 2 N Ho Wo C (K^2 + O).

Source: the stage is the separable convolution of DARTS (arXiv:1806.09055), section 3.1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from darts_kernels._common import on_device_of
from darts_kernels._device import relu

__all__ = ["Blocks", "choose_blocks", "infer_stage", "infer_stage_reference"]

Blocks = tuple[int, int, int, int]  # pixels, output channels, input channels a step, warps


def infer_stage_reference(
    x_NCHW: Tensor,
    deep_CKK: Tensor | None,
    point_OC: Tensor,
    bias_O: Tensor | None,
    addend_NOHW: Tensor | None = None,
    *,
    relu: bool = True,
    stride: int = 1,
    dilation: int = 1,
    padding: int = 0,
) -> Tensor:
    """[N, O, Ho, Wo]: the stage in plain torch, in any floating dtype."""
    x = F.relu(x_NCHW) if relu else x_NCHW
    channels = x.shape[1]
    if deep_CKK is not None:
        x = F.conv2d(x, deep_CKK[:, None], None, stride, padding, dilation, channels)
        stride = 1
    y = F.conv2d(x, point_OC[:, :, None, None], bias_O, stride)
    return y if addend_NOHW is None else y + addend_NOHW


@triton.jit
def _infer_stage_kernel(
    x_ptr, deep_ptr, point_ptr, bias_ptr, addend_ptr, y_ptr,
    pixels, x_n, x_c, x_h, addend_n, y_n,
    C: tl.constexpr, O: tl.constexpr, HI: tl.constexpr, WI: tl.constexpr,
    HO: tl.constexpr, WO: tl.constexpr, K: tl.constexpr, STRIDE: tl.constexpr,
    DILATION: tl.constexpr, PADDING: tl.constexpr, RELU: tl.constexpr, DEEP: tl.constexpr,
    BIAS: tl.constexpr, ADD: tl.constexpr, DOT: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    o = tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    mask_p = p < pixels
    mask_o = o < O
    n = p // (HO * WO)
    inside = p % (HO * WO)
    row = (inside // WO) * STRIDE
    column = (inside % WO) * STRIDE
    acc = tl.zeros([BLOCK_O, BLOCK_P], tl.float32)
    for start in range(0, C, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        mask_c = c < C
        plane = c[:, None] * x_c + (n * x_n)[None, :]
        if DEEP:
            d = tl.zeros([BLOCK_C, BLOCK_P], tl.float32)
            for i in tl.static_range(K):
                for j in tl.static_range(K):
                    h = row + (i * DILATION - PADDING)
                    w = column + (j * DILATION - PADDING)
                    valid = mask_p & (h >= 0) & (h < HI) & (w >= 0) & (w < WI)
                    x = tl.load(
                        x_ptr + plane + (h * x_h + w)[None, :],
                        mask=mask_c[:, None] & valid[None, :],
                        other=0.0,
                    ).to(tl.float32)
                    if RELU:
                        x = relu(x)
                    tap = tl.load(deep_ptr + c * (K * K) + (i * K + j), mask=mask_c, other=0.0)
                    d += x * tap.to(tl.float32)[:, None]
        else:
            d = tl.load(
                x_ptr + plane + (row * x_h + column)[None, :],
                mask=mask_c[:, None] & mask_p[None, :],
                other=0.0,
            ).to(tl.float32)
            if RELU:
                d = relu(d)
        point = tl.load(
            point_ptr + o[:, None] * C + c[None, :],
            mask=mask_o[:, None] & mask_c[None, :],
            other=0.0,
        )
        acc = tl.dot(point, d.to(point_ptr.dtype.element_ty), acc, input_precision=DOT)
    mask = mask_o[:, None] & mask_p[None, :]
    if BIAS:
        acc += tl.load(bias_ptr + o, mask=mask_o, other=0.0).to(tl.float32)[:, None]
    place = o[:, None] * (HO * WO) + inside[None, :]
    if ADD:
        spot = addend_ptr + place + (n * addend_n)[None, :]
        acc += tl.load(spot, mask=mask, other=0.0).to(tl.float32)
    spot = y_ptr + place + (n * y_n)[None, :]
    tl.store(spot, acc.to(y_ptr.dtype.element_ty), mask=mask)


def choose_blocks(
    channels: int, outputs: int, pixels: int, *, deep: bool, full: bool = False
) -> Blocks:
    """Tile sizes for a stage: many small programs while the GPU is not full, large ones after.

    `full` is for fp32, whose products hold three times the operands: deep steps of 64 channels spill, of 32
    where the channels are many.
    """
    wide = min(256, max(16, triton.next_power_of_2(outputs)))
    if pixels <= 4096:
        # batch 1: spread over the multiprocessors, hide latency with long steps
        longest = (32 if channels <= 96 else 16) if deep and full else 64
        step = min(longest, max(16, triton.next_power_of_2(channels)))
        return 16, min(wide, 32), step, 4
    step = 16 if deep else 32
    # a deep step holds where each pixel's window begins, too
    return (64 if wide >= (64 if deep else 128) else 128), wide, step, (8 if wide >= 256 else 4)


def infer_stage(
    x_NCHW: Tensor,
    deep_CKK: Tensor | None,
    point_OC: Tensor,
    bias_O: Tensor | None,
    addend_NOHW: Tensor | None = None,
    *,
    relu: bool = True,
    stride: int = 1,
    dilation: int = 1,
    padding: int = 0,
    out: Tensor | None = None,
    blocks: Blocks | None = None,
) -> Tensor:
    """The stage by its kernel on a GPU; elsewhere by `infer_stage_reference`. Not differentiable.

    Args:
        x_NCHW: input; rows contiguous.
        deep_CKK: depthwise weights, or None for a pointwise stage.
        point_OC: pointwise weights with the batch norm folded in.
        bias_O: folded bias, or None.
        addend_NOHW: added to the result; planes contiguous.
        relu: apply relu to the input.
        stride: of the depthwise convolution (of the pointwise one without it).
        dilation: of the depthwise convolution.
        padding: of the depthwise convolution.
        out: where to write; planes contiguous, for example a channel slice.
        blocks: tile sizes; chosen by `choose_blocks` by default.

    Raises:
        ValueError: shapes or strides do not fit, or a tensor is too large for 32-bit offsets.
    """
    outputs, channels = point_OC.shape
    batch, found, height, width = x_NCHW.shape
    kernel = 1 if deep_CKK is None else int(deep_CKK.shape[-1])
    reach = dilation * (kernel - 1)
    high = (height + 2 * padding - reach - 1) // stride + 1
    broad = (width + 2 * padding - reach - 1) // stride + 1
    if found != channels:
        raise ValueError(
            f"x has {found} channels, the weights take {channels}; pass matching ones."
        )
    if deep_CKK is None and padding:
        raise ValueError(f"A pointwise stage takes no padding, not {padding}.")
    shape = (batch, outputs, high, broad)
    y = x_NCHW.new_empty(shape) if out is None else out
    for name, tensor in (("out", y), ("addend", addend_NOHW)):
        if tensor is not None:
            _check_planes(name, tensor, shape)
    if x_NCHW.stride(3) != 1 and width > 1:
        raise ValueError("The rows of x must be contiguous; call contiguous() first.")
    if x_NCHW.device.type not in ("cuda", "meta") and not _interpreted():
        y.copy_(
            infer_stage_reference(
                x_NCHW, deep_CKK, point_OC, bias_O, addend_NOHW,
                relu=relu, stride=stride, dilation=dilation, padding=padding,
            )
        )  # fmt: skip
        return y
    # the kernel takes weights as they lie one after the other
    point_OC = point_OC.contiguous()
    deep_CKK = None if deep_CKK is None else deep_CKK.contiguous()
    bias_O = None if bias_O is None else bias_O.contiguous()
    steps = [tensor.stride(0) for tensor in (x_NCHW, y, addend_NOHW) if tensor is not None]
    if max(x_NCHW.numel(), y.numel(), batch * max(steps)) >= 2**31:
        raise ValueError(f"Batch {batch} is too large for 32-bit offsets; use a smaller one.")
    pixels = batch * high * broad
    block_p, block_o, block_c, warps = blocks or choose_blocks(
        channels, outputs, pixels, deep=deep_CKK is not None, full=x_NCHW.dtype == torch.float32
    )
    grid = (triton.cdiv(pixels, block_p), triton.cdiv(outputs, block_o))
    with on_device_of(x_NCHW):
        _infer_stage_kernel[grid](
            x_NCHW, deep_CKK if deep_CKK is not None else point_OC, point_OC,
            bias_O if bias_O is not None else point_OC,
            addend_NOHW if addend_NOHW is not None else y, y,
            pixels, x_NCHW.stride(0), x_NCHW.stride(1), x_NCHW.stride(2),
            addend_NOHW.stride(0) if addend_NOHW is not None else 0, y.stride(0),
            C=channels, O=outputs, HI=height, WI=width, HO=high, WO=broad, K=kernel, STRIDE=stride,
            DILATION=dilation, PADDING=padding, RELU=relu, DEEP=deep_CKK is not None,
            BIAS=bias_O is not None, ADD=addend_NOHW is not None,
            DOT="tf32x3" if x_NCHW.dtype == torch.float32 else "tf32",
            BLOCK_P=block_p, BLOCK_O=block_o, BLOCK_C=block_c, num_warps=warps,
        )  # fmt: skip
    return y


def _interpreted() -> bool:
    return type(_infer_stage_kernel).__name__ == "InterpretedFunction"


def _check_planes(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; the stage gives {shape}.")
    _, _, high, broad = shape
    if tensor.stride()[1:] != (high * broad, broad, 1) and tensor[0].numel() > 1:
        raise ValueError(
            f"The planes of {name} must be contiguous; its strides are {tensor.stride()}."
        )
