"""Attention over more than one dimension of windows, as an ONNX exporter takes it.

torch's ONNX exporter knows `scaled_dot_product_attention` of [B, heads, T, D] alone; that of networks which
attend within windows ([B, windows, heads, T, D]) is rewritten to the products that it is made of.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

__all__ = ["with_plain_attention"]

_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
_KNOWN_DIMENSIONS = 4


def with_plain_attention(program: ExportedProgram) -> ExportedProgram:
    """`program`, its attention of other than four dimensions written as products and a softmax."""
    if all(_is_known(node) for node in program.graph.nodes):
        return program
    return program.run_decompositions({_ATTENTION: _plain})


def _is_known(node: Any) -> bool:
    if node.op != "call_function" or node.target != _ATTENTION:
        return True
    return bool(node.args[0].meta["val"].ndim == _KNOWN_DIMENSIONS)


def _plain(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """[..., T, D] x [..., S, D] -> [..., T, D'], as torch's documentation of the function writes it."""
    if query.ndim == _KNOWN_DIMENSIONS or enable_gqa or dropout_p:
        return NotImplemented
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * factor) @ key.transpose(-2, -1)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(attn_mask.logical_not(), -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1) @ value
