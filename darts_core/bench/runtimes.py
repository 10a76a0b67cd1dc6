"""The ways to run a model that the benchmark compares, each as a timed callable.

Models in memory: eager, channels-last eager, torch.compile as it is and in its best mode, a CUDA graph of
eager, CUDA graphs of the compiled models. Models on disk: every format that `export` writes, loaded again
and run in its runtime.
Shapes: x_BCHW images in, logits [B, classes] out.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from darts_core.compiling import apart
from darts_core.copies import copy_of
from darts_core.errors import ConfigError, ExportError, unknown_name
from darts_core.export import FORMATS, export_model, load, obstacle
from darts_core.export.verify import tf32
from darts_core.latency.deployed import cast_input
from darts_core.layout import in_layout, input_in_layout, joins_by_view
from darts_core.modes import in_evaluation
from darts_core.sample_inputs import draw_inputs
from darts_core.train import evaluate_callable

__all__ = [
    "Prepared",
    "available_runtimes",
    "check_runtimes",
    "evaluate_prepared",
    "prepare",
]

# name -> (channels-last, torch.compile, captured in a CUDA graph)
_IN_MEMORY = {
    "eager": (False, False, False),
    "channels_last": (True, False, False),
    "compile": (True, True, False),
    "compile_max": (True, True, False),
    "graph": (True, False, True),
    "compile_graph": (True, True, True),
    "compile_max_graph": (True, True, True),
}
# torch.compile in its best mode: every template is tried, parameters become constants
_BEST: dict[str, Any] = {"max_autotune": True, "freezing": True}
_DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(frozen=True)
class Prepared:
    """A model ready to be called: normalised float32 images in, float32 logits out."""

    call: Callable[[Tensor], Tensor]
    runtime: str
    precision: str
    graph: bool = False


def _uncompiled(name: str, device: torch.device) -> str | None:
    """Why a runtime in memory cannot be compiled for `device` here; None where it can, or is not compiled."""
    _, compiled, _ = _IN_MEMORY[name]
    # native code is made by the same compiler
    if compiled and device.type == "cpu" and obstacle("aoti", device) is not None:
        return "torch.compile needs a C++ compiler, and there is none"
    return None


def available_runtimes(device: torch.device) -> list[str]:
    """Names of what can run on `device`: in memory first, then the export formats."""
    memory = [
        name
        for name, (_, _, graph) in _IN_MEMORY.items()
        if (not graph or device.type == "cuda") and _uncompiled(name, device) is None
    ]
    return [*memory, *(name for name in FORMATS if obstacle(FORMATS[name].kind, device) is None)]


def check_runtimes(names: Sequence[str], device: torch.device) -> list[str]:
    """`names` as a list, each known and possible on `device`.

    Raises:
        ConfigError: one is unknown, needs a GPU, or something that this machine lacks.
    """
    for name in names:
        if name in _IN_MEMORY and _IN_MEMORY[name][2] and device.type != "cuda":
            raise ConfigError(
                f"runtime={name!r} needs a CUDA device and the device is {device}; use one of "
                f"{', '.join(available_runtimes(device))}."
            )
        if name not in _IN_MEMORY and name not in FORMATS:
            raise ConfigError(unknown_name("runtime", name, (*_IN_MEMORY, *FORMATS)))
        if name in FORMATS:
            why = obstacle(FORMATS[name].kind, device)
        else:
            why = _uncompiled(name, device)
        if why is not None:
            raise ConfigError(
                f"runtime={name!r} cannot run here: {why}; use one of "
                f"{', '.join(available_runtimes(device))}."
            )
    return list(names)


class _Typed(nn.Module):
    """`model` in another dtype and layout behind a float32 interface; token numbers stay whole numbers."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, *, channels_last: bool) -> None:
        super().__init__()
        self.dtype = dtype
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        if dtype != torch.float32:  # parts that work in another format by themselves keep it
            model = model.to(dtype=dtype)
        self.model = in_layout(model, self.layout)

    def forward(self, x: Tensor) -> Any:
        x = input_in_layout(cast_input(self.model, x, self.dtype), self.layout)
        return tree_map_only(Tensor, _float32, self.model(x))


def _compiled(model: nn.Module, *, best: bool) -> Callable[[Tensor], Any]:
    """`model` through torch.compile, in its best mode or as it is."""
    run: Callable[[Tensor], Any] = torch.compile(apart(model), options=_BEST if best else None)
    if not best:
        return run
    inductor: Any = importlib.import_module("torch._inductor.config")
    known: set[torch.Size] = set()

    def frozen(x: Tensor) -> Any:
        if x.shape in known:
            return run(x)
        # `options` reach the compiler alone; whether parameters are constants is asked before it, of the
        # global setting, when a new shape is traced
        with inductor.patch(freezing=True):
            found = run(x)
        known.add(x.shape)
        return found

    return frozen


def _float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def prepare(
    model: nn.Module,
    runtime: str,
    *,
    device: torch.device,
    bundle: Any,
    folder: Path,
    precision: str = "fp32",
) -> Prepared:
    """`model` in `runtime`; exported files go into `folder`. The model itself is left as it is.

    Args:
        model: a plain network.
        runtime: a name from `available_runtimes`.
        device: where it runs.
        bundle: the data, for the export's manifest and its verification on the val split.
        folder: receives the files of an export.
        precision: fp32, tf32 (GPU), bf16 or fp16 of a model in memory; a format has its own.

    Raises:
        ConfigError: the runtime or precision is unknown or not possible here.
        ExportError: the model cannot be exported or its file differs from it, or it does not run with
            channels last, where that is the runtime.
    """
    check_runtimes([runtime], device)
    if runtime in FORMATS:
        manifest = export_model(
            model, folder / runtime, bundle, formats=(runtime,), device=device, time_artifacts=False
        )
        loaded = load(folder / runtime, runtime, device=device, trust=True)
        found = manifest["artifacts"][runtime].get("precision", "fp32")
        return Prepared(loaded, runtime, str(found))
    if precision not in _DTYPES or (precision == "tf32" and device.type != "cuda"):
        allowed = [name for name in _DTYPES if name != "tf32" or device.type == "cuda"]
        raise ConfigError(unknown_name("precision", precision, allowed))
    channels_last, compiled, graph = _IN_MEMORY[runtime]
    own = in_evaluation(copy_of(model).to(device))
    typed: Any = _Typed(own, _DTYPES[precision], channels_last=channels_last).eval()
    if channels_last and bundle is not None:
        x = draw_inputs(bundle.input_shape, 2, device=device)
        if joins_by_view(typed, x):
            if runtime == "channels_last":
                raise ExportError(
                    "the network calls view() on a tensor whose channels and positions it joins, which fails "
                    "with channels last; let it call flatten() or reshape()."
                )
            typed = _Typed(own, _DTYPES[precision], channels_last=False).eval()
    if compiled:
        typed = _compiled(typed, best="max" in runtime)

    def call(x_BCHW: Tensor) -> Tensor:
        with torch.inference_mode():
            return typed(x_BCHW)  # type: ignore[no-any-return]

    return Prepared(call, runtime, precision, graph)


def evaluate_prepared(prepared: Prepared, bundle: Any, split: str = "test") -> float:
    """The task's metric of a prepared model on every sample of `split`."""
    with tf32(prepared.precision == "tf32"):
        return evaluate_callable(prepared.call, bundle, split)
