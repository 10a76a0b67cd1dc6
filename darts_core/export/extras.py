"""Which runtimes can run here; OpenVINO on a CPU and TensorRT (through ONNX Runtime) on a GPU.

The two read the ONNX file and are optional: `pip install "darts-core[openvino]"` or `"darts-core[tensorrt]"`.
Shapes: images_BCHW float32 in, logits_BK float32 out.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from darts_core.errors import ExportError, NotInstalledError
from darts_core.export import onnx_session

__all__ = [
    "OPENVINO_HINTS",
    "missing",
    "obstacle",
    "open_openvino",
    "open_tensorrt",
    "own_precision",
    "require",
]

Runner = Callable[[torch.Tensor], torch.Tensor]
# OpenVINO plans memory and code for one batch size; so many are kept, others run with a free one
_PLANS = 8
# the precision of an artifact is the one that it was verified in, on whatever machine it is loaded; what is
# not quantised in an INT8 file runs in fp32
OPENVINO_HINTS = {
    "openvino": "f32",
    "openvino_bf16": "bf16",
    "openvino_fp16": "f16",
    "openvino_int8": "f32",
}


def obstacle(kind: str, device: torch.device) -> str | None:
    """Why artifacts of this kind cannot run on `device` here; None where they can."""
    return _other_device(kind, device) or missing(kind)


def _other_device(kind: str, device: torch.device) -> str | None:
    """Why artifacts of this kind never run on `device`; None where they may."""
    if kind.startswith("openvino") and device.type != "cpu":
        return f"OpenVINO is used on a CPU, not on {str(device)!r}"
    if kind.startswith("fused") and device.type != "cuda":
        return f"the fused path runs on a GPU, not on {str(device)!r}"
    if kind == "tensorrt" and device.type != "cuda":
        return f"TensorRT runs on an NVIDIA GPU, not on {str(device)!r}"
    return None


def missing(kind: str) -> str | None:
    """What artifacts of this kind need and this machine lacks; None where nothing is missing."""
    if kind == "onnx" and importlib.util.find_spec("onnxruntime") is None:
        return "ONNX Runtime is not installed (pip install onnxruntime)"
    if kind.startswith("openvino") and importlib.util.find_spec("openvino") is None:
        return 'OpenVINO is not installed (pip install "darts-core[openvino]")'
    if kind == "aoti" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
        return "AOTInductor needs a C++ compiler, and there is none"
    if kind == "tensorrt" and "TensorrtExecutionProvider" not in _installed():
        return (
            'ONNX Runtime lacks TensorRT (pip install "darts-core[tensorrt]", then pip install '
            "--force-reinstall --no-deps onnxruntime-gpu)"
        )
    return None


def require(kind: str, device: torch.device) -> None:
    """Nothing, if artifacts of this kind can run on `device` here.

    Raises:
        ExportError: they cannot; the text says why.
        NotInstalledError: they could if something were installed.
    """
    why = obstacle(kind, device)
    if why is not None:
        error = ExportError if _other_device(kind, device) else NotInstalledError
        raise error(f"{why[0].upper()}{why[1:]}; use the onnx or pt2 artifact.")


def _installed() -> list[str]:
    try:
        return onnx_session.providers()
    except ExportError:
        return []


def own_precision(device: torch.device) -> tuple[str, str]:
    """The kind and the precision that OpenVINO itself takes on this machine, bf16 where it has that.

    Raises:
        ExportError: OpenVINO does not run on `device`, or takes a precision of another name.
        NotInstalledError: OpenVINO is absent.
    """
    require("openvino", device)
    import openvino

    found = openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT").get_type_name()
    kinds = {"f32": ("openvino", "fp32"), "bf16": ("openvino_bf16", "bf16"),
             "f16": ("openvino_fp16", "fp16")}  # fmt: skip
    if found not in kinds:
        raise ExportError(
            f"OpenVINO runs in the precision {found!r} here, which is not known; export 'openvino'."
        )
    return kinds[found]


def open_openvino(
    path: Path, device: torch.device, kind: str, *, threads: int | None = None
) -> Runner:
    """A function that runs an ONNX file in OpenVINO, planned anew for each batch size.

    Raises:
        ExportError: OpenVINO is absent or rejects the file.
    """
    require(kind, device)
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": OPENVINO_HINTS[kind],
    }
    core = openvino.Core()
    plans: dict[int, Any] = {}

    def plan(batch: int) -> Any:
        try:
            model = core.read_model(str(path))
            if batch > 0:
                model.reshape([batch, *list(model.inputs[0].partial_shape)[1:]])
            return core.compile_model(model, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise ExportError(f"OpenVINO cannot run {path}: {str(error).strip()[:200]}") from error

    plans[0] = plan(0)

    def run(x: torch.Tensor) -> torch.Tensor:
        batch = x.shape[0]
        if batch not in plans and len(plans) <= _PLANS:
            plans[batch] = plan(batch)
        request = plans.get(batch, plans[0])
        request.infer({0: x.cpu().contiguous().numpy()})
        # the request's own memory is written again by the next call
        return torch.from_numpy(request.get_output_tensor(0).data.copy())

    return run


def open_tensorrt(path: Path, device: torch.device) -> Runner:
    """A function that runs an ONNX file in TensorRT with fp16 products, through ONNX Runtime.

    Raises:
        ExportError: TensorRT is absent or rejects the file.
    """
    require("tensorrt", device)
    return onnx_session.open_tensorrt(path, device)
