"""Matching an exported aten program: what becomes one fused stage, which sums and places it takes."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

__all__ = ["Step", "is_call", "plan_steps", "shape_of"]

_aten = torch.ops.aten


@dataclass
class Step:
    """One call: a stage with its weights' names, or an aten operation as exported.

    Attributes:
        node: the graph node whose value this step makes.
        source: stage only: the node that is read.
        deep, point, bias: stage only: parameter nodes.
        relu, stride, dilation, padding: stage only.
        addend: stage only: the node that is added.
        into: (cat node, first channel) if the value is a part of a concatenation.
    """

    node: Node
    source: Node | None = None
    deep: Node | None = None
    point: Node | None = None
    bias: Node | None = None
    relu: bool = False
    stride: int = 1
    dilation: int = 1
    padding: int = 0
    addend: Node | None = None
    into: tuple[Node, int] | None = None
    reads: list[Node] = field(default_factory=list)


def plan_steps(program: ExportedProgram) -> list[Step]:
    """The steps of a program in order, with everything that a stage can take fused into it."""
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    steps: dict[Node, Step] = {}
    for node in nodes:
        steps[node] = _stage(node) or Step(node)
    _fuse_sums(nodes, steps)
    needed = _needed(program, nodes, steps)
    found = [steps[node] for node in nodes if node in needed and node in steps]
    _place_in_concatenations(found)
    for step in found:
        step.reads = _reads(step)
    return found


def is_call(value: Any, *targets: Any) -> bool:
    """Whether `value` is a node that calls one of `targets`."""
    return isinstance(value, Node) and value.target in targets


def shape_of(node: Node) -> tuple[Any, ...]:
    """The shape that was recorded when the program was traced; the batch may be a symbol."""
    return tuple(node.meta["val"].shape)


def _argument(node: Node, position: int, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else default


def _same(values: Any) -> int | None:
    """The one number of a pair of equal ones."""
    pair = list(values) if isinstance(values, (list, tuple)) else [values]
    return int(pair[0]) if len(set(pair)) == 1 else None


def _stage(node: Node) -> Step | None:
    """A pointwise convolution, with the depthwise one and the relu before it, as a stage."""
    if not is_call(node, _aten.conv2d.default):
        return None
    point = node.args[1]
    assert isinstance(point, Node)
    out, ins, high, broad = shape_of(point)
    if (high, broad) != (1, 1) or _argument(node, 6, 1) != 1 or ins < 8 or out < 8:
        return None
    stride, padding = _same(_argument(node, 3, 1)), _same(_argument(node, 4, 0))
    if padding != 0 or stride is None:
        return None
    source = node.args[0]
    assert isinstance(source, Node)
    bias = _argument(node, 2, None)
    step = Step(node, source, None, point, bias, stride=stride)
    if stride == 1 and _depthwise(source) and len(source.users) == 1:
        step.deep, step.source = source.args[1], source.args[0]  # type: ignore[assignment]
        step.stride = _same(_argument(source, 3, 1)) or 1
        step.padding = _same(_argument(source, 4, 0)) or 0
        step.dilation = _same(_argument(source, 5, 1)) or 1
    if is_call(step.source, _aten.relu.default, _aten.relu_.default):
        step.relu = True
        step.source = step.source.args[0]  # type: ignore[union-attr,assignment]
    return step


def _depthwise(node: Any) -> bool:
    if not is_call(node, _aten.conv2d.default) or _argument(node, 2, None) is not None:
        return False
    out, ins, high, broad = shape_of(node.args[1])
    pairs = [_same(_argument(node, place, 1 if place != 4 else 0)) for place in (3, 4, 5)]
    return ins == 1 and out == _argument(node, 6, 1) and high == broad and None not in pairs


def _fuse_sums(nodes: list[Node], steps: dict[Node, Step]) -> None:
    """The later of two summed stages adds the other term itself."""
    order = {node: number for number, node in enumerate(nodes)}
    for node in nodes:
        if not is_call(node, _aten.add.Tensor, operator.add) or len(node.args) != 2 or node.kwargs:
            continue
        terms = [term for term in node.args if isinstance(term, Node)]
        if len(terms) != 2 or shape_of(terms[0]) != shape_of(terms[1]):
            continue
        for term in sorted(terms, key=lambda t: -order.get(t, -1)):
            other = terms[1] if term is terms[0] else terms[0]
            step = steps.get(term)
            earlier = order.get(other, -1) < order.get(term, -1)
            fits = step is not None and step.point is not None and step.addend is None
            if fits and step is not None and len(term.users) == 1 and earlier and other is not term:
                step.addend, step.node = other, node
                # the stage now makes the sum; it keeps its place, before which `other` is made
                steps[node] = steps.pop(term)
                break


def _reads(step: Step) -> list[Node]:
    if step.point is None:
        return [node for node in step.node.all_input_nodes if node.op == "call_function"]
    found = [step.source, step.addend]
    return [node for node in found if node is not None and node.op == "call_function"]


def _needed(program: ExportedProgram, nodes: list[Node], steps: dict[Node, Step]) -> set[Node]:
    """Nodes whose value some step or the output reads; relus taken into stages drop out."""
    (output,) = [node for node in program.graph.nodes if node.op == "output"]
    needed = set(output.all_input_nodes)
    for node in reversed(nodes):
        if node in needed and node in steps:
            needed.update(_reads(steps[node]))
    return needed


def _place_in_concatenations(steps: list[Step]) -> None:
    """Parts of a concatenation are written where they belong, once each."""
    by_node = {step.node: step for step in steps}
    for step in steps:
        if not is_call(step.node, _aten.cat.default) or _argument(step.node, 1, 0) not in (1, -3):
            continue
        parts = step.node.args[0]
        assert isinstance(parts, (list, tuple))
        start = 0
        for part in parts:
            assert isinstance(part, Node)
            maker = by_node.get(part)
            if maker is not None and maker.point is not None and maker.into is None:
                maker.into = (step.node, start)
            start += int(shape_of(part)[1])
