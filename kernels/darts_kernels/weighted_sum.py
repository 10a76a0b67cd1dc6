"""The weighted sum of the outputs of K arbitrary operations: for operations that have no primitives.

Maths.   out = sum_k w_k x_k;     d x_k = w_k g,     d w_k = sum(g x_k).

Shapes: x_k any one shape, all contiguous or all channels-last; w [K]. The sum is taken in fp32 and stored
in the dtype of x (fp32, fp16, bf16); w and its gradient are fp32. Other dtypes, such as fp64, take plain
torch, which keeps their precision. Bytes: forward K + 1 tensors (plain torch 3 K - 1); backward reads g once,
writes those d x_k that are wanted, and reads the x_k only for d w_k: with frozen weights they are neither
read nor kept.
Autocast: inputs are taken as they are; mixed dtypes are refused. The backward is made of this op's own
kernels and cannot be derived again.

Source: DARTS (arXiv:1806.09055), Eq. 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from darts_kernels._common import on_device_of

__all__ = ["LARGEST_COUNT", "weighted_sum", "weighted_sum_reference"]

LARGEST_COUNT = 16
_BLOCK = 1024
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""What the kernels compute in fp32 without losing digits."""


def weighted_sum_reference(xs: Sequence[Tensor], weights_K: Tensor) -> Tensor:
    """sum_k w_k x_k in plain torch; differentiable, any floating dtype."""
    total = weights_K[0].to(xs[0].dtype) * xs[0]
    for k in range(1, len(xs)):
        total = total + weights_K[k].to(xs[0].dtype) * xs[k]
    return total


@triton.jit
def _weighted_sum_kernel(xs, weight_ptr, out_ptr, count, K: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < count
    total = tl.zeros([BLOCK], tl.float32)
    for k in tl.static_range(K):
        total += tl.load(weight_ptr + k) * tl.load(xs[k] + i, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + i, total.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _weighted_sum_backward_kernel(
    xs, dxs, g_ptr, weight_ptr, sum_ptr, count,
    K: tl.constexpr, XGRAD: tl.constexpr, WGRAD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0).to(tl.int64)
    i = part * BLOCK + tl.arange(0, BLOCK)
    mask = i < count
    g = tl.load(g_ptr + i, mask=mask, other=0.0).to(tl.float32)
    for k in tl.static_range(K):
        if WGRAD:
            x = tl.load(xs[k] + i, mask=mask, other=0.0).to(tl.float32)
            tl.store(sum_ptr + part * K + k, tl.sum(g * x))
        if (XGRAD >> k) & 1:
            grad = tl.load(weight_ptr + k) * g
            tl.store(dxs[k] + i, grad.to(dxs[k].dtype.element_ty), mask=mask)


def _forward(xs: list[Tensor], weights_K: Tensor) -> Tensor:
    if xs[0].dtype not in _DTYPES:
        return weighted_sum_reference(xs, weights_K)
    out = torch.empty_like(xs[0])
    count = out.numel()
    if count:
        _weighted_sum_kernel[(triton.cdiv(count, _BLOCK),)](
            tuple(xs), weights_K.float().contiguous(), out, count, K=len(xs), BLOCK=_BLOCK
        )
    return out


def _backward(
    g: Tensor, xs: list[Tensor], weights_K: Tensor, wanted: list[bool], weights_grad: bool
) -> tuple[list[Tensor], Tensor]:
    if g.dtype not in _DTYPES:
        return _backward_reference(g, xs, weights_K, wanted, weights_grad)
    dxs = [torch.empty_like(g) for want in wanted if want]
    count = g.numel()
    if not count:
        return dxs, torch.zeros_like(weights_K)
    parts = triton.cdiv(count, _BLOCK)
    weights = weights_K.float().contiguous()
    sums = torch.empty(parts if weights_grad else 0, len(wanted), device=g.device)
    filled = iter(dxs)
    # a pointer that is never written where no gradient is wanted
    targets = tuple(next(filled) if want else g for want in wanted)
    _weighted_sum_backward_kernel[(parts,)](
        tuple(xs) if weights_grad else targets, targets, g, weights, sums, count,
        K=len(wanted), XGRAD=sum(want << k for k, want in enumerate(wanted)), WGRAD=weights_grad,
        BLOCK=_BLOCK,
    )  # fmt: skip
    return dxs, sums.sum(0).to(weights_K.dtype)


def _backward_reference(
    g: Tensor, xs: list[Tensor], weights_K: Tensor, wanted: list[bool], weights_grad: bool
) -> tuple[list[Tensor], Tensor]:
    dxs = [weights_K[k].to(g.dtype) * g for k, want in enumerate(wanted) if want]
    if not weights_grad:
        return dxs, torch.zeros_like(weights_K)
    return dxs, torch.stack([(g * x).sum() for x in xs]).to(weights_K.dtype)


@torch.library.custom_op("darts_kernels::weighted_sum", mutates_args=())
def _weighted_sum(xs: list[Tensor], weights_K: Tensor) -> Tensor:
    return weighted_sum_reference(xs, weights_K)


@torch.library.custom_op("darts_kernels::weighted_sum_backward", mutates_args=())
def _weighted_sum_backward(
    g: Tensor, xs: list[Tensor], weights_K: Tensor, wanted: list[bool], weights_grad: bool
) -> tuple[list[Tensor], Tensor]:
    return _backward_reference(g, xs, weights_K, wanted, weights_grad)


@_weighted_sum.register_kernel("cuda")
def _(xs: list[Tensor], weights_K: Tensor) -> Tensor:
    with on_device_of(xs[0]):
        return _forward(xs, weights_K)


@_weighted_sum_backward.register_kernel("cuda")
def _(
    g: Tensor, xs: list[Tensor], weights_K: Tensor, wanted: list[bool], weights_grad: bool
) -> tuple[list[Tensor], Tensor]:
    with on_device_of(g):
        return _backward(g, xs, weights_K, wanted, weights_grad)


@_weighted_sum.register_fake
def _(xs: list[Tensor], weights_K: Tensor) -> Tensor:
    return torch.empty_like(xs[0])


@_weighted_sum_backward.register_fake
def _(
    g: Tensor, xs: list[Tensor], weights_K: Tensor, wanted: list[bool], weights_grad: bool
) -> tuple[list[Tensor], Tensor]:
    return [torch.empty_like(g) for want in wanted if want], torch.empty_like(weights_K)


def _setup(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: Tensor) -> None:
    xs, weights_K = inputs
    ctx.wanted = [x.requires_grad for x in xs]  # type: ignore[attr-defined]
    ctx.layout = _layout(output)  # type: ignore[attr-defined]
    # with frozen weights (a params step) the operations' outputs need not be kept
    ctx.save_for_backward(weights_K, *(xs if weights_K.requires_grad else []))


def _derive(ctx, g: Tensor) -> tuple[list[Tensor | None], Tensor | None]:
    weights_K, *xs = ctx.saved_tensors
    g = g.contiguous(memory_format=ctx.layout)
    dxs, dweights = _weighted_sum_backward(g, xs, weights_K, ctx.wanted, bool(xs))
    found = iter(dxs)
    return [next(found) if want else None for want in ctx.wanted], dweights if xs else None


_weighted_sum.register_autograd(_derive, setup_context=_setup)


def _layout(x: Tensor) -> torch.memory_format:
    """Channels-last where the tensor is so and not also contiguous, else contiguous."""
    if x.is_contiguous() or x.dim() != 4:
        return torch.contiguous_format
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def weighted_sum(xs: Sequence[Tensor], weights_K: Tensor) -> Tensor:
    """sum_k w_k x_k, reading every x_k once; differentiable once.

    Shapes: K tensors of one shape and dtype; weights [K].

    Raises:
        ValueError: there are no tensors or too many, or shapes, dtypes or the number of weights differ.
    """
    if not 1 <= len(xs) <= LARGEST_COUNT:
        raise ValueError(f"weighted_sum takes 1 to {LARGEST_COUNT} tensors, not {len(xs)}.")
    if weights_K.shape != (len(xs),):
        raise ValueError(
            f"{len(xs)} tensors need weights [{len(xs)}], not {list(weights_K.shape)}."
        )
    if len({(x.shape, x.dtype, x.device) for x in xs}) != 1:
        raise ValueError(
            "weighted_sum needs tensors of one shape, dtype and device; convert them first."
        )
    layout = _layout(xs[0])
    return _weighted_sum([x.contiguous(memory_format=layout) for x in xs], weights_K)
