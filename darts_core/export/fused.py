"""The fused path on a GPU: an exported program run with one kernel a separable convolution.

The aten graph of model.pt2 is matched at load: relu, depthwise and pointwise convolution (with its
folded bias) become one stage, which also adds the other term of a node's sum and writes into its
channels of the cell's concatenation. What is not matched runs as it is. Each batch size is captured
into a CUDA graph when first seen; independent operations of a small batch run side by side.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from darts_core.errors import ExportError
from darts_kernels.infer_stage import Blocks, infer_stage

__all__ = ["FusedProgram", "Step", "plan_steps"]

_aten = torch.ops.aten
_STREAMS = 6
_SIDE_BY_SIDE = 8192  # pixels of the input batch below which operations run side by side


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


def _is(value: Any, *targets: Any) -> bool:
    return isinstance(value, Node) and value.target in targets


def _shape(node: Node) -> tuple[Any, ...]:
    return tuple(node.meta["val"].shape)


def _argument(node: Node, position: int, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else default


def _same(values: Any) -> int | None:
    """The one number of a pair of equal ones."""
    pair = list(values) if isinstance(values, (list, tuple)) else [values]
    return int(pair[0]) if len(set(pair)) == 1 else None


def _stage(node: Node) -> Step | None:
    """A pointwise convolution, with the depthwise one and the relu before it, as a stage."""
    if not _is(node, _aten.conv2d.default):
        return None
    point = node.args[1]
    assert isinstance(point, Node)
    out, ins, high, broad = _shape(point)
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
    if _is(step.source, _aten.relu.default, _aten.relu_.default):
        step.relu = True
        step.source = step.source.args[0]  # type: ignore[union-attr,assignment]
    return step


def _depthwise(node: Any) -> bool:
    if not _is(node, _aten.conv2d.default) or _argument(node, 2, None) is not None:
        return False
    out, ins, high, broad = _shape(node.args[1])
    pairs = [_same(_argument(node, place, 1 if place != 4 else 0)) for place in (3, 4, 5)]
    return ins == 1 and out == _argument(node, 6, 1) and high == broad and None not in pairs


def _fuse_sums(nodes: list[Node], steps: dict[Node, Step]) -> None:
    """The later of two summed stages adds the other term itself."""
    order = {node: number for number, node in enumerate(nodes)}
    for node in nodes:
        if not _is(node, _aten.add.Tensor, operator.add) or len(node.args) != 2 or node.kwargs:
            continue
        terms = [term for term in node.args if isinstance(term, Node)]
        if len(terms) != 2 or _shape(terms[0]) != _shape(terms[1]):
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
        if not _is(step.node, _aten.cat.default) or _argument(step.node, 1, 0) not in (1, -3):
            continue
        parts = step.node.args[0]
        assert isinstance(parts, (list, tuple))
        start = 0
        for part in parts:
            assert isinstance(part, Node)
            maker = by_node.get(part)
            if maker is not None and maker.point is not None and maker.into is None:
                maker.into = (step.node, start)
            start += int(_shape(part)[1])


class FusedProgram:
    """Runs the steps on a GPU, in a CUDA graph a batch size.

    Args:
        program: an exported fp32 program with folded norms.
        device: a cuda device (a CPU runs the kernels' reference, without graphs; for tests).
        dtype: storage type of activations and weights.
        blocks: tile sizes by stage key, instead of the built-in choice.
    """

    def __init__(
        self,
        program: ExportedProgram,
        device: torch.device,
        dtype: torch.dtype,
        *,
        blocks: dict[tuple[int, ...], Blocks] | None = None,
    ) -> None:
        self.device, self.dtype = device, dtype
        self.steps = plan_steps(program)
        self.blocks = blocks or {}
        self._values = _parameters(program, device, dtype)
        names = set(program.graph_signature.user_inputs)
        inputs = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in names]
        (output,) = [node for node in program.graph.nodes if node.op == "output"]
        self._input, self._output = inputs[0], output.args[0][0]
        self._last_use = self._lifetimes()
        self._graphs: dict[int, tuple[Any, Tensor, Tensor]] = {}

    @property
    def fused(self) -> int:
        """How many steps are fused stages."""
        return sum(step.point is not None for step in self.steps)

    def __call__(self, x_BCHW: Tensor) -> Tensor:
        """Logits [B, K] in float32."""
        if self.device.type != "cuda":
            return self._run(x_BCHW.to(self.dtype), side_by_side=False).float()
        batch = x_BCHW.shape[0]
        if batch not in self._graphs:
            self._graphs[batch] = self._capture(x_BCHW)
        graph, static_x, static_y = self._graphs[batch]
        static_x.copy_(x_BCHW)
        graph.replay()
        return static_y.clone()

    def replay(self, batch: int) -> Callable[[], Any]:
        """The captured graph of a batch size, to be timed without the copies around it."""
        return self._graphs[batch][0].replay  # type: ignore[no-any-return]

    def _capture(self, x_BCHW: Tensor) -> tuple[Any, Tensor, Tensor]:
        static_x = x_BCHW.to(self.device, self.dtype).clone()
        side = x_BCHW.shape[0] * x_BCHW.shape[2] * x_BCHW.shape[3] <= _SIDE_BY_SIDE
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.inference_mode(), torch.cuda.stream(stream):
            for _ in range(2):  # compiles kernels and picks cuDNN algorithms before the capture
                self._run(static_x, side_by_side=False)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(graph):
            static_y = self._run(static_x, side_by_side=side).float()
        return graph, static_x, static_y

    def _lifetimes(self) -> dict[int, list[Node]]:
        last: dict[Node, int] = {}
        for number, step in enumerate(self.steps):
            for node in (*step.reads, step.node):
                last[node] = number
            if step.into is not None:
                last[step.into[0]] = max(last.get(step.into[0], 0), number)
        ends: dict[int, list[Node]] = {}
        for node, number in last.items():
            if node is not self._output:
                ends.setdefault(number, []).append(node)
        return ends

    def _run(self, x: Tensor, *, side_by_side: bool) -> Tensor:
        values = dict(self._values)
        values[self._input] = x
        buffers: dict[Node, Tensor] = {}
        lanes = _Lanes(self.device) if side_by_side else None
        for number, step in enumerate(self.steps):
            if lanes is None:
                values[step.node] = self._one(step, values, buffers)
                for node in self._last_use_at(number):
                    values.pop(node, None)
                    buffers.pop(node, None)
            else:
                # nothing is freed: memory must not be handed on between streams that run at once
                with lanes.turn(step):
                    values[step.node] = self._one(step, values, buffers)
        if lanes is not None:
            lanes.join()
        result: Tensor = values[self._output]
        return result

    def _last_use_at(self, number: int) -> list[Node]:
        return self._last_use.get(number, [])

    def _one(self, step: Step, values: dict[Node, Any], buffers: dict[Node, Tensor]) -> Any:
        if step.point is not None:
            return self._stage(step, values, buffers)
        if step.node in buffers:
            return self._finish_concatenation(step, values, buffers)

        def value(argument: Any) -> Any:
            return values[argument] if argument in values else argument.meta.get("val")

        arguments: Any = torch.fx.map_arg(step.node.args, value)
        keywords = torch.fx.map_arg(step.node.kwargs, value)
        if _is(step.node, _aten.pad.default) and not any(arguments[1]):
            return arguments[0]
        return step.node.target(*arguments, **keywords)  # type: ignore[operator]

    def _stage(self, step: Step, values: dict[Node, Any], buffers: dict[Node, Tensor]) -> Tensor:
        assert step.source is not None
        assert step.point is not None
        x = values[step.source]
        if x.stride(3) != 1:
            x = x.contiguous()
        addend = values[step.addend] if step.addend is not None else None
        point = values[step.point].flatten(1)
        deep = values[step.deep][:, 0] if step.deep is not None else None
        out = self._slice(step, x, buffers)
        if addend is not None and not _planes(addend):
            addend = addend.contiguous()
        return infer_stage(
            x, deep, point, values[step.bias] if step.bias is not None else None, addend,
            relu=step.relu, stride=step.stride, dilation=step.dilation, padding=step.padding,
            out=out, blocks=self.blocks.get(stage_key(step, x)),
        )  # fmt: skip

    def _slice(self, step: Step, x: Tensor, buffers: dict[Node, Tensor]) -> Tensor | None:
        """The channels of the concatenation that this stage's result is, made when first needed."""
        if step.into is None:
            return None
        whole, start = step.into
        if whole not in buffers:
            _, channels, height, width = _shape(whole)
            buffers[whole] = x.new_empty(x.shape[0], int(channels), int(height), int(width))
        return buffers[whole][:, start : start + int(_shape(step.node)[1])]

    def _finish_concatenation(
        self, step: Step, values: dict[Node, Any], buffers: dict[Node, Tensor]
    ) -> Tensor:
        whole, start = buffers[step.node], 0
        parts: Any = step.node.args[0]
        for part in parts:
            value = values[part]
            place = whole[:, start : start + value.shape[1]]
            if value.data_ptr() != place.data_ptr():
                place.copy_(value)
            start += value.shape[1]
        return whole


def stage_key(step: Step, x: Tensor) -> tuple[int, ...]:
    """What decides the best tile sizes of a stage."""
    assert step.point is not None
    outputs, channels = _shape(step.point)[:2]
    kernel = int(_shape(step.deep)[-1]) if step.deep is not None else 0
    return int(channels), int(outputs), kernel, step.stride, int(x.shape[2]), int(x.shape[0])


def _planes(x: Tensor) -> bool:
    return x.stride()[1:] == (x.shape[2] * x.shape[3], x.shape[3], 1)


def _parameters(
    program: ExportedProgram, device: torch.device, dtype: torch.dtype
) -> dict[Node, Any]:
    signature = program.graph_signature
    named: dict[str, str] = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    constants = {
        **signature.inputs_to_lifted_tensor_constants,
    }
    values: dict[Node, Any] = {}
    for node in program.graph.nodes:
        if node.op != "placeholder":
            continue
        if node.name in named:
            name = named[node.name]
            value = program.state_dict.get(name, program.constants.get(name))
        elif node.name in constants:
            value = program.constants[constants[node.name]]
        else:
            continue
        if not isinstance(value, Tensor):
            raise ExportError(f"The exported program lacks the value of {node.name!r}.")
        moved = value.detach().to(device)
        values[node] = moved.to(dtype).contiguous() if moved.is_floating_point() else moved
    return values


class _Lanes:
    """Streams for steps that do not wait for each other, inside one capture."""

    def __init__(self, device: torch.device) -> None:
        self.main = torch.cuda.current_stream(device)
        self.streams = [torch.cuda.Stream(device) for _ in range(_STREAMS)]
        self._tail: dict[int, Node | None] = {}
        self._made: dict[Node, tuple[int, Any]] = {}
        self._next = 0
        start = self.main.record_event()
        for stream in self.streams:
            stream.wait_event(start)

    def turn(self, step: Step) -> Any:
        """The stream for a step: where its last input was made, if nothing follows there yet."""
        lane = None
        reads = [node for node in step.reads if node in self._made]
        if step.into is not None and step.into[0] in self._made:
            reads.append(step.into[0])
        for node in reversed(reads):
            if self._tail.get(self._made[node][0]) is node:
                lane = self._made[node][0]
                break
        if lane is None:
            lane = self._next % _STREAMS
            self._next += 1
        stream = self.streams[lane]
        for node in reads:
            made_on, event = self._made[node]
            if made_on != lane:
                stream.wait_event(event)
        return _Turn(self, stream, lane, step.node)

    def done(self, lane: int, node: Node) -> None:
        """Note that `node` has been made on a lane."""
        self._tail[lane] = node
        self._made[node] = (lane, self.streams[lane].record_event())

    def join(self) -> None:
        """Let the capture's own stream wait for all lanes."""
        for stream in self.streams:
            self.main.wait_event(stream.record_event())


class _Turn:
    def __init__(self, lanes: _Lanes, stream: Any, lane: int, node: Node) -> None:
        self._lanes, self._lane, self._node = lanes, lane, node
        self._context = torch.cuda.stream(stream)

    def __enter__(self) -> None:
        self._context.__enter__()

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(*error)
        self._lanes.done(self._lane, self._node)
