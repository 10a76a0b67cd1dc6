"""Multiply-accumulates of one forward pass, by the module that computes them.

Counted are the products of convolutions of any dimension, linear layers, matrix products and attention
(`scaled_dot_product_attention`, `nn.MultiheadAttention`) and recurrent layers, whoever calls them; bias
additions, norms, activations and pools are not. What torch runs as one opaque call (a jit-compiled function's
fused part) is not seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

__all__ = ["macs_by_module", "without_fast_attention"]


def _attention(query: Any, key: Any, value: Any, *_: Any, out_val: Any, **__: Any) -> int:
    """Operations of attention over [B, heads, T, C] tensors, which torch counts on a GPU only."""
    pairs = query.numel() // query.shape[-1] * key.shape[-2]
    return int(2 * pairs * (query.shape[-1] + value.shape[-1]))


def _recurrence(x: Any, matrices: Iterable[Any]) -> int:
    """Operations of a recurrent layer that a kernel runs as a whole: each step [B, C] meets each matrix."""
    steps = x.numel() // x.shape[-1]
    return int(2 * steps * sum(matrix.numel() for matrix in matrices if matrix.dim() == 2))


def _of_onednn(x: Any, into: Any, across: Any, *_: Any, **__: Any) -> int:
    return _recurrence(x, [into, across])


def _of_cudnn(x: Any, weights: Any, *_: Any, **__: Any) -> int:
    return _recurrence(x, weights)


_FORMULAS = {
    **flop_registry,
    torch.ops.aten.mkldnn_rnn_layer: _of_onednn,
    torch.ops.aten._cudnn_rnn: _of_cudnn,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_fused_attention_overrideable: _attention,
}


def macs_by_module(module: nn.Module, *inputs: Any) -> dict[str, int]:
    """Multiply-accumulates of `module(*inputs)` as it stands, without gradients.

    Returns:
        path of a module -> what it computes itself, without its children; only modules that run. The
        root's path is "".
    """
    counter = _Counter()
    hooks = []
    for path, child in module.named_modules():
        hooks.append(child.register_forward_pre_hook(counter.enter(path)))
        hooks.append(child.register_forward_hook(counter.leave))
    try:
        with torch.no_grad(), without_fast_attention(), _without_whole_recurrences(module), counter:
            module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return counter.own


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.own: dict[str, int] = {}
        self._stack: list[str] = []

    def enter(self, path: str) -> Any:
        """A hook that makes `path` the module that computes."""

        def hook(*_: Any) -> None:
            self._stack.append(path)
            self.own.setdefault(path, 0)

        return hook

    def leave(self, *_: Any) -> None:
        """A hook that gives way to the module outside."""
        self._stack.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run `func` and count its products."""
        kwargs = kwargs or {}
        formula = _FORMULAS.get(func._overloadpacket)
        if formula is None:
            # attention and linear layers may arrive whole
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if formula is not None and self._stack:
            self.own[self._stack[-1]] += formula(*args, **kwargs, out_val=result) // 2
        return result


@contextmanager
def _without_whole_recurrences(module: nn.Module) -> Iterator[None]:
    """Keep recurrent layers off oneDNN's (an `nn.LSTM` on a CPU) and cuDNN's one call for all steps.

    A network without one keeps both: its convolutions would take several times the time and the memory.
    """
    if not any(isinstance(part, nn.RNNBase) for part in module.modules()):
        yield
        return
    mkldnn: Any = torch.backends.mkldnn
    before = mkldnn.enabled
    mkldnn.enabled = False
    try:
        with torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        mkldnn.enabled = before


@contextmanager
def without_fast_attention() -> Iterator[None]:
    """Keep `nn.MultiheadAttention` off its fused call, whose products are not seen nor exported to ONNX."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
