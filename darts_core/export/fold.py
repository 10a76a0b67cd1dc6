"""Folding batch norms into the convolutions before them, for any model that torch.export can trace.

    bn(conv(x)) = conv'(x),  weight' = weight * s,  bias' = (bias - mean) * s + beta,
    s = gamma / sqrt(var + eps), per output channel

The traced graph tells which norm follows which convolution and that nothing else reads between
them; a norm behind a concatenation of convolutions (the factorised reduction) is folded piecewise.
Source: Jacob et al., "Quantization and Training of Neural Networks", 2018, section 3.2.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import Node

from darts_core.errors import ExportError
from darts_core.latency.forms import keep_constants, skip_dead

__all__ = ["fold_batch_norms", "trace"]

log = logging.getLogger("darts_core")


def trace(
    model: nn.Module, input_shape: Sequence[int], *, example: torch.Tensor | None = None
) -> ExportedProgram:
    """`model` in eval mode as an exported program whose batch size is free.

    The example batch is 2: a batch of 1 would be burnt in as a constant.

    Raises:
        ExportError: torch.export cannot trace the model; the text gives its first reason.
    """
    if example is None:
        reference = next(model.parameters(), torch.zeros(()))
        example = torch.randn(2, *input_shape, device=reference.device, dtype=reference.dtype)
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    try:
        with torch.no_grad():
            return torch.export.export(model.eval(), (example,), dynamic_shapes=({0: batch},))
    except (
        Exception
    ) as error:  # torch.export raises many kinds, from its own and from the model's code
        first = next(
            (line for line in str(error).splitlines() if line.strip()), type(error).__name__
        )
        raise ExportError(
            f"torch.export rejects the model {type(model).__name__}: {first.strip()[:300]} "
            "Keep control flow that depends on tensor values out of forward()."
        ) from error


def fold_batch_norms(model: nn.Module, input_shape: Sequence[int]) -> nn.Module:
    """A copy of `model` in eval mode, each foldable batch norm replaced by an identity.

    The copy computes what the original computes in eval mode, up to rounding. Norms that do not
    follow a convolution stay; edges of a cell that cannot change its output are left out.

    Raises:
        ExportError: torch.export cannot trace the model.
    """
    folded = skip_dead(copy.deepcopy(model).eval())
    program = trace(folded, input_shape)
    signature = program.graph_signature
    owner = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    calls = _parameter_uses(program, owner)
    modules = dict(folded.named_modules())
    count = 0
    for node in program.graph.nodes:
        if not _is(node, "batch_norm"):
            continue
        name = _module_name(node, 1, owner) or _module_name(node, 3, owner)
        norm = modules.get(name or "")
        sources = _convolutions(node.args[0])
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or sources is None:
            continue
        names = [_module_name(source, 1, owner) for source in sources]
        convs = [modules.get(item or "") for item in names]
        once = all(item and calls.get(f"{item}.weight") == 1 for item in names)
        if not once or calls.get(f"{name}.running_mean") != 1:
            continue
        if not all(type(conv) is nn.Conv2d for conv in convs):
            continue
        _fold(norm, [conv for conv in convs if isinstance(conv, nn.Conv2d)])
        _replace(folded, str(name), nn.Identity())
        count += 1
    log.info("folded %d batch norms into convolutions", count)
    folded.requires_grad_(False)
    like = next(folded.parameters(), torch.zeros(()))
    return keep_constants(folded, like.new_zeros((1, *input_shape)))


def _is(node: object, name: str) -> bool:
    return isinstance(node, Node) and str(node.target).split(".")[:2] == ["aten", name]


def _parameter_uses(program: ExportedProgram, owner: dict[str, str]) -> dict[str, int]:
    """How many operations read each parameter or buffer (a shared module's are read twice)."""
    uses: dict[str, int] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in owner:
            uses[owner[node.name]] = uses.get(owner[node.name], 0) + len(node.users)
    return uses


def _module_name(node: Node, position: int, owner: dict[str, str]) -> str | None:
    """The path of the module whose parameter stands at `position` of the operation."""
    source = node.args[position] if len(node.args) > position else None
    if not isinstance(source, Node) or source.name not in owner:
        return None
    return owner[source.name].rpartition(".")[0]


def _convolutions(node: object) -> list[Node] | None:
    """The convolutions whose (joined) output `node` is, if nothing but the norm reads it."""
    if not isinstance(node, Node) or len(node.users) != 1:
        return None
    if _is(node, "conv2d"):
        return [node]
    if not _is(node, "cat") or (len(node.args) > 1 and node.args[1] != 1):
        return None
    parts = node.args[0]
    if not isinstance(parts, (list, tuple)):
        return None
    if all(
        _is(part, "conv2d") and len(part.users) == 1 for part in parts if isinstance(part, Node)
    ):
        return [part for part in parts if isinstance(part, Node)]
    return None


@torch.no_grad()
def _fold(norm: nn.modules.batchnorm._BatchNorm, convs: list[nn.Conv2d]) -> None:
    if norm.running_mean is None or norm.running_var is None:
        return
    # fp64, so that the folded weights carry one rounding only
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    start = 0
    for conv in convs:
        part = slice(start, start + conv.out_channels)
        start += conv.out_channels
        weight = conv.weight.double() * scale[part].view(-1, 1, 1, 1)
        bias = shift[part] if conv.bias is None else shift[part] + conv.bias.double() * scale[part]
        kind = conv.weight.dtype
        conv.weight = nn.Parameter(weight.to(kind), requires_grad=False)
        conv.bias = nn.Parameter(bias.to(kind), requires_grad=False)


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, new)
