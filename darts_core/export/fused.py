"""The fused path on a GPU: an exported program run with one kernel a separable convolution.

The aten graph of model.pt2 is matched at load: relu, depthwise and pointwise convolution (with its
folded bias) become one stage, which also adds the other term of a node's sum and writes into its
channels of the cell's concatenation. What is not matched runs as it is. Each batch size is captured
into a CUDA graph when first seen; independent operations of a small batch run side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from darts_core.errors import ExportError
from darts_core.export.fused_plan import Step, is_call, plan_steps, shape_of
from darts_core.export.streams import Streams
from darts_core.latency.samples import recording
from darts_kernels.infer_stage import Blocks, infer_stage

__all__ = ["FusedProgram", "Step", "plan_steps"]

_aten = torch.ops.aten
_SIDE_BY_SIDE = 8192  # pixels of the input batch below which operations run side by side


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
        with torch.inference_mode(), recording(graph, stream):
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
        streams = Streams(self.device) if side_by_side else None
        for number, step in enumerate(self.steps):
            if streams is None:
                values[step.node] = self._one(step, values, buffers)
                for node in self._last_use_at(number):
                    values.pop(node, None)
                    buffers.pop(node, None)
            else:
                # nothing is freed: memory must not be handed on between streams that run at once
                with streams.turn(step):
                    values[step.node] = self._one(step, values, buffers)
        if streams is not None:
            streams.join()
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
        if is_call(step.node, _aten.pad.default) and not any(arguments[1]):
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
            _, channels, height, width = shape_of(whole)
            buffers[whole] = x.new_empty(x.shape[0], int(channels), int(height), int(width))
        return buffers[whole][:, start : start + int(shape_of(step.node)[1])]

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
    outputs, channels = shape_of(step.point)[:2]
    kernel = int(shape_of(step.deep)[-1]) if step.deep is not None else 0
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
