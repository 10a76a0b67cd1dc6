"""Folding batch norms into the convolutions before them, for any model that torch.export can trace.

    bn(conv(x)) = conv'(x),  weight' = weight * s,  bias' = (bias - mean) * s + beta,
    s = gamma / sqrt(var + eps), per output channel

The traced graph tells which norm follows which convolution and that nothing else reads between
them; a norm behind a concatenation of convolutions (the factorised reduction) is folded piecewise.
Source: Jacob et al., "Quantization and Training of Neural Networks", 2018, section 3.2.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import Node
from torch.nn.modules.batchnorm import _BatchNorm

from darts_core.copies import copy_or_refuse
from darts_core.errors import ExportError, LatencyError
from darts_core.latency.deployed import keep_constants, skip_dead
from darts_core.latency.norms import CONVOLUTIONS, is_call, rest_of_norm
from darts_core.latency.traced import exported_program
from darts_core.modes import in_evaluation
from darts_core.sample_inputs import draw_inputs, number_format

__all__ = ["fold_batch_norms", "trace"]

log = logging.getLogger("darts_core")
_CALLS = ("conv1d", "conv2d", "conv3d")
# of the traceback in an error of torch.export
_LINE = re.compile(r'File "(.+)", line (\d+), in ')


def _remedy(error: Exception) -> str:
    if "batch as dynamic but" in str(error):
        return "forward() fixes the number of samples; take it as x.shape[0], not as len(x) or a number."
    return "Keep control flow that depends on tensor values out of forward()."


def _place(error: Exception) -> str:
    """Where in the model's code torch stopped, where its text says so."""
    found = _LINE.findall(str(error))
    return f" ({found[-1][0]}, line {found[-1][1]})." if found else ""


def trace(
    model: nn.Module, input_shape: Sequence[int], *, example: torch.Tensor | None = None
) -> ExportedProgram:
    """`model` in eval mode as an exported program whose batch size is free.

    The example batch is 2: a batch of 1 would be burnt in as a constant.

    Raises:
        ExportError: torch.export cannot trace the model; the text gives its first reason.
    """
    if example is None:
        home = next(model.parameters(), torch.zeros(())).device
        example = draw_inputs(input_shape, 2, device=home, dtype=number_format(model))
    try:
        return exported_program(in_evaluation(model), example)
    except (
        Exception
    ) as error:  # torch.export raises many kinds, from its own and from the model's code
        first = next(
            (line for line in str(error).splitlines() if line.strip()), type(error).__name__
        )
        raise ExportError(
            f"torch.export rejects the model {type(model).__name__}: {first.strip()[:300]}{_place(error)} "
            f"{_remedy(error)}"
        ) from error


def fold_batch_norms(
    model: nn.Module, input_shape: Sequence[int], *, dtype: torch.dtype | None = None
) -> nn.Module:
    """A copy of `model` in eval mode, each foldable batch norm replaced by what it does besides.

    That is nothing for torch's own norms and an activation for some subclasses of theirs. The copy
    computes what the original computes in eval mode, up to rounding. Norms whose folding cannot be
    proved stay, and the log says why; edges of a cell that cannot change its output are left out.

    Args:
        model: takes [B, *input_shape].
        input_shape: of one sample.
        dtype: of the values that it takes; by default that of its first parameters.

    Raises:
        ExportError: the model cannot be copied, or has batch norms and torch.export cannot trace it.
    """
    copied = copy_or_refuse(model, ExportError, ", and export it then.")
    folded = skip_dead(in_evaluation(copied))
    if any(isinstance(module, _BatchNorm) for module in folded.modules()):
        home = next(folded.parameters(), torch.zeros(())).device
        kind = dtype or number_format(folded)
        _fold_all(folded, draw_inputs(input_shape, 2, device=home, dtype=kind))
    folded.requires_grad_(False)
    like = next(folded.parameters(), torch.zeros(()))
    kind = number_format(folded)
    return keep_constants(
        folded, draw_inputs(input_shape, 1, device=like.device, dtype=kind, zeros=True)
    )


def _fold_all(folded: nn.Module, example: torch.Tensor) -> None:
    """Fold the batch norms of `folded` in place; the log says how many, and why the others stay."""
    sites = _Sites(folded, trace(folded, example.shape[1:], example=example))
    for node in [node for node in sites.graph.nodes if is_call(node, "batch_norm")]:
        try:
            sites.fold(node)
        except LatencyError as error:
            sites.kept.setdefault(str(error), []).append(sites.owner_of(node) or node.name)
    log.info("folded %d batch norms into convolutions", sites.count)
    for reason, names in sites.kept.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        log.info("batch norm %s%s is not folded: %s", names[0], more, reason)


class _Sites:
    """The batch norms of a traced model and what stands before them.

    Attributes:
        count: norms folded so far.
        kept: reason -> names of the norms that stay for it.
    """

    def __init__(self, model: nn.Module, program: ExportedProgram) -> None:
        signature = program.graph_signature
        self.model, self.graph = model, program.graph
        self.count = 0
        self.kept: dict[str, list[str]] = {}
        self._owner = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        # how many operations read each parameter or buffer (a shared module's are read twice)
        self._uses: dict[str, int] = {}
        for node in self.graph.nodes:
            if node.op == "placeholder" and node.name in self._owner:
                name = self._owner[node.name]
                self._uses[name] = self._uses.get(name, 0) + len(node.users)

    def owner_of(self, node: Node) -> str | None:
        """The path of the module in whose forward `node` is computed."""
        stack = node.meta.get("nn_module_stack") or {}
        return next(reversed(stack.values()))[0] if stack else None

    def fold(self, node: Node) -> None:
        """Fold the norm that `node` computes into the convolutions before it.

        Raises:
            LatencyError: nothing shows that the model would still compute the same.
        """
        sources = self._convolutions(node.args[0])
        name = self._module(node, ("weight", "bias", "running_mean", "running_var"))
        norm = self.model.get_submodule(name)
        if not isinstance(norm, _BatchNorm) or norm.running_mean is None:
            raise LatencyError("it keeps no running statistics")
        convs = [self._convolution(source) for source in sources]
        rest = rest_of_norm(norm, node.args[0].meta["val"].shape[1:])  # type: ignore[union-attr]
        shift = _fold(norm, convs, float(node.args[7]))  # type: ignore[arg-type]
        _replace(self.model, name, nn.Sequential(shift, rest) if shift is not None else rest)
        self.count += 1

    def _module(self, node: Node, names: Sequence[str]) -> str:
        """The path of the module that computes `node` from its own parameters, each read once."""
        path = self.owner_of(node)
        for source, name in zip(node.args[1:], names, strict=False):
            if source is None:
                continue
            full = self._owner.get(source.name) if isinstance(source, Node) else None
            if path is None or full != (f"{path}.{name}" if path else name):
                raise LatencyError(f"its {name} is computed, or is another module's")
            if self._uses[full] != 1:
                raise LatencyError(f"its {name} is used more than once")
        return str(path)

    def _convolution(self, node: Node) -> nn.Module:
        try:
            path = self._module(node, ("weight", "bias"))
        except LatencyError as error:
            raise LatencyError(f"of the convolution before it: {error}") from None
        conv = self.model.get_submodule(path)
        if not isinstance(conv, CONVOLUTIONS):
            raise LatencyError(f"the convolution before it is a {type(conv).__name__}")
        return conv

    def _convolutions(self, node: object) -> list[Node]:
        """The convolutions whose (joined) output `node` is, if nothing but the norm reads it."""
        if isinstance(node, Node) and is_call(node, "cat"):
            parts, where = node.args[0], node.args[1] if len(node.args) > 1 else 0
            joined = where == 1 and isinstance(parts, (list, tuple))
            found = list(parts) if joined else [node]  # type: ignore[arg-type]
        else:
            found = [node]
        if not all(any(is_call(part, kind) for kind in _CALLS) for part in found):
            raise LatencyError("it does not follow a convolution")
        # a part that is joined twice has one reader, but one weight for two scales
        several = len(set(found)) < len(found)
        if several or any(
            len(part.users) != 1 for part in [node, *found] if isinstance(part, Node)
        ):
            raise LatencyError("something else reads the convolution's output")
        return [part for part in found if isinstance(part, Node)]


@torch.no_grad()
def _fold(norm: _BatchNorm, convs: Sequence[nn.Module], eps: float) -> nn.Module | None:
    """Scale the convolutions; what must be added where one of them can take no bias."""
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None
    assert var is not None
    # fp64, so that the folded weights carry one rounding only
    scale = (var.double() + eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    # a subclass of a convolution may not look at a bias that it was made without
    apart = any(type(conv) not in CONVOLUTIONS and conv.bias is None for conv in convs)
    start = 0
    for conv in convs:
        weight: torch.Tensor = conv.weight  # type: ignore[assignment]
        bias: torch.Tensor | None = conv.bias  # type: ignore[assignment]
        part = slice(start, start + weight.shape[0])
        start += weight.shape[0]
        new = weight.double() * scale[part].view(-1, *[1] * (weight.dim() - 1))
        conv.weight = nn.Parameter(new.to(weight.dtype), requires_grad=False)
        own = bias.double() * scale[part] if bias is not None else torch.zeros_like(scale[part])
        if not apart:
            own = own + shift[part]
        if bias is not None or not apart:
            conv.bias = nn.Parameter(own.to(weight.dtype), requires_grad=False)
    return _Shift(shift.to(mean.dtype), weight.dim() - 2) if apart else None


class _Shift(nn.Module):
    """Adds a number to each channel."""

    def __init__(self, shift_C: torch.Tensor, dimensions: int) -> None:
        super().__init__()
        self.register_buffer("shift", shift_C.view(1, -1, *[1] * dimensions))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, ...] of `x`'s shape."""
        return x + self.get_buffer("shift")


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, new)
