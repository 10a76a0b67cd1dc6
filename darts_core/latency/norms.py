"""What a batch norm does besides normalising: nothing for torch's own, an activation for some others.

A subclass of a torch norm may compute more than its parent (timm's `BatchNormAct2d` applies an
activation), so that a norm folded into the convolution before it leaves a rest behind. The rest is read
off the norm's own traced graph; where it cannot be told, the norm is not folded.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.fx import Node
from torch.nn.modules.batchnorm import _BatchNorm

from darts_core.errors import LatencyError
from darts_core.latency.traced import exported_program

__all__ = ["CONVOLUTIONS", "NORMS", "is_call", "rest_of_norm"]

NORMS: tuple[type[nn.Module], ...] = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm,
)  # fmt: skip
CONVOLUTIONS: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def rest_of_norm(norm: _BatchNorm, shape: Sequence[int]) -> nn.Module:
    """The module that computes from a folded norm's input what the norm made of its normalised input.

    Args:
        norm: a batch norm or a subclass of one, in eval mode.
        shape: (C, ...) of one sample of its input.

    Raises:
        LatencyError: it cannot be told what `norm` computes besides normalising; the text says why.
    """
    if norm._forward_hooks or norm._forward_pre_hooks:
        raise LatencyError("it has forward hooks")
    if type(norm) in NORMS:
        return nn.Identity()
    like = norm.running_mean if norm.running_mean is not None else torch.zeros(())
    example = torch.randn(2, *shape, device=like.device, dtype=like.dtype)
    own = copy.deepcopy(norm).eval().requires_grad_(False)
    try:
        module = exported_program(own, example).module(check_guards=False)
    except Exception as error:  # of torch.export and of foreign code, of many kinds
        raise LatencyError("torch.export cannot trace it alone") from error
    graph: torch.fx.Graph = module.graph
    norms = [node for node in graph.nodes if is_call(node, "batch_norm")]
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if len(norms) != 1 or len(inputs) != 1 or list(inputs[0].users) != norms:
        raise LatencyError("it does more to its input than normalise it")
    norms[0].replace_all_uses_with(inputs[0])
    graph.erase_node(norms[0])
    # a plain graph: an exported module refuses train() and takes its inputs as a tree
    plain = torch.fx.Graph()
    outputs: Any = plain.graph_copy(graph, {})
    plain.output(outputs[0])
    plain.eliminate_dead_code()
    return torch.fx.GraphModule(module, plain)


def is_call(node: object, name: str) -> bool:
    """Whether `node` of a traced graph calls the operation `aten.<name>`."""
    return isinstance(node, Node) and str(node.target).split(".")[:2] == ["aten", name]
