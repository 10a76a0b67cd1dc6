"""A node of a cell: the weighted sum of all normalised branches of all edges that enter it.

Maths. With w_ek the mixing weights, y_ek the branches that end at the node and (mean, inv) their moments,

    node = sum_e [ sum_k w_ek (y_ek - mean_ek) inv_ek  +  w_e,skip state_source(e) ]

where y is a pointwise output, a pool of the source state or a factorised reduction. The backward needs no
kernel of its own: the reductions are in `norm`, the gradients start each branch's own backward.

Shapes: branches [E, F, N, C, H, W], pools [S, P, N, C, H, W]; the node is written straight into the
cell's concatenated output. fp32 accumulation. Bytes: each branch is read once, the node written once.

Source: DARTS (arXiv:1806.09055), Eq. 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from darts_kernels._device import begin, place_of

__all__ = ["node_sum_reference"]


def node_sum_reference(
    branches: Sequence[Tensor], weights: Tensor, skips: Sequence[Tensor], skip_weights: Tensor
) -> Tensor:
    """sum_k w_k norm(branch_k) + sum_j v_j skip_j; differentiable, any floating dtype."""
    total: Tensor | None = None
    for weight, branch in zip(weights, branches, strict=True):
        mean = branch.mean((0, 2, 3), keepdim=True)
        var = branch.var((0, 2, 3), correction=0, keepdim=True)
        term = weight * ((branch - mean) * torch.rsqrt(var + 1e-5))
        total = term if total is None else total + term
    for weight, skip in zip(skip_weights, skips, strict=True):
        total = weight * skip if total is None else total + weight * skip
    if total is None:
        raise ValueError("node_sum needs at least one branch or skip.")
    return total


@triton.jit
def _add(out, mix, ptr, spot, mask, moment_ptr, row, SPARSE: tl.constexpr):
    """`out` plus mix times the normalised values at `ptr + spot`."""
    mean = tl.load(moment_ptr + row * 2)
    if SPARSE:
        # a branch without weight was not computed; the interpreter cannot "and" a scalar of floats
        mask = mask & ((mix != 0.0).to(tl.int32) != 0)
    scale = mix * tl.load(moment_ptr + row * 2 + 1)
    return out + scale * (tl.load(ptr + spot, mask=mask, other=0.0).to(tl.float32) - mean)


@triton.jit(do_not_specialize=["node", "inputs", "batch", "row2", "rowp", "rowf"])
def _node_sum_kernel(
    state_ptr, layout_ptr, source_ptr, entering_ptr, y1_ptr, y2_ptr, pool_ptr, yf_ptr,
    moment_ptr, mix_ptr, slot_op_ptr, node, inputs, batch, pixels, row2, rowp, rowf,
    F1: tl.constexpr, F2: tl.constexpr, NPOOL: tl.constexpr, FR: tl.constexpr, SKIP: tl.constexpr,
    K_OPS: tl.constexpr, DEGREE: tl.constexpr, C: tl.constexpr,
    HW: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr, SPARSE: tl.constexpr,
    OVERLAP: tl.constexpr = False,
):  # fmt: skip
    begin(OVERLAP)
    c = tl.program_id(0)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = j < pixels
    n = j // HW
    inside = c * HW + j % HW
    place = n * (C * HW) + inside
    step = batch.to(tl.int64) * (C * HW)
    out = tl.zeros([BLOCK], tl.float32)
    first = tl.load(entering_ptr + node * (DEGREE + 1))
    for i in range(first):
        edge = tl.load(entering_ptr + node * (DEGREE + 1) + 1 + i).to(tl.int64)
        source = tl.load(source_ptr + edge).to(tl.int64)
        mixes = mix_ptr + edge * K_OPS
        for k in tl.static_range(F1):
            mix = tl.load(mixes + tl.load(slot_op_ptr + k))
            if k < F2:
                out = _add(out, mix, y2_ptr + (edge * F2 + k) * step, place, mask, moment_ptr,
                           row2 + (edge * F2 + k) * C + c, SPARSE)  # fmt: skip
            else:
                out = _add(out, mix, y1_ptr + (edge * F1 + k) * step, place, mask, moment_ptr,
                           (edge * F1 + k) * C + c, SPARSE)  # fmt: skip
        for k in tl.static_range(NPOOL):
            mix = tl.load(mixes + tl.load(slot_op_ptr + F1 + k))
            out = _add(out, mix, pool_ptr + (source * NPOOL + k) * step, place, mask, moment_ptr,
                       rowp + (source * NPOOL + k) * C + c, SPARSE)  # fmt: skip
        if SKIP or FR:
            mix = tl.load(mixes + tl.load(slot_op_ptr + F1 + NPOOL))
            if FR:
                if source < inputs:
                    out = _add(out, mix, yf_ptr + edge * step, place, mask, moment_ptr,
                               rowf + edge * C + c, SPARSE)  # fmt: skip
                else:
                    start, sample = place_of(layout_ptr, source, ALIGNED)
                    spot = start + n * sample + inside
                    out += mix * tl.load(state_ptr + spot, mask=mask, other=0.0).to(tl.float32)
            else:
                start, sample = place_of(layout_ptr, source, ALIGNED)
                spot = start + n * sample + inside
                out += mix * tl.load(state_ptr + spot, mask=mask, other=0.0).to(tl.float32)
    start, sample = place_of(layout_ptr, inputs + node, ALIGNED)
    spot = start + n * sample + inside
    tl.store(state_ptr + spot, out.to(state_ptr.dtype.element_ty), mask=mask)
