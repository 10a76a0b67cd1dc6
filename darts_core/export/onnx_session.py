"""ONNX Runtime: a file as a function, on a GPU without a copy through the host.

Shapes: inputs [B, ...] float32 or int64 in, outputs [B, ...] float32 out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from darts_core.errors import ExportError, NotInstalledError
from darts_core.export.chunks import InChunks

__all__ = ["open_onnx", "open_tensorrt", "providers"]

log = logging.getLogger("darts_core")
Runner = Callable[[torch.Tensor], torch.Tensor]


def providers() -> list[str]:
    """What ONNX Runtime can run on here.

    Raises:
        NotInstalledError: it is not.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise NotInstalledError(
            "ONNX Runtime is not installed; pip install onnxruntime."
        ) from error
    return list(ort.get_available_providers())


def open_onnx(path: Path, device: torch.device, threads: int | None, chunk: int | None) -> Runner:
    """A function that runs an ONNX file; see `open_artifact`.

    Raises:
        ExportError: ONNX Runtime is absent or rejects the file.
    """
    wanted: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in providers():
        # TF32, which it takes by itself, is not the fp32 that the file is verified in
        own = {"device_id": device.index or 0, "use_tf32": "0"}
        wanted.insert(0, ("CUDAExecutionProvider", own))
    count = threads or torch.get_num_threads()
    session = _session(path, wanted, count)
    _tell_where(session, "CUDA", device)
    run = _runner(session, path, device)
    if chunk is None:
        return run
    return InChunks(run, _runner(_session(path, wanted, 1), path, device), chunk, count)


def open_tensorrt(path: Path, device: torch.device) -> Runner:
    """A function that runs an ONNX file in TensorRT with fp16 products, through ONNX Runtime.

    Raises:
        ExportError: TensorRT rejects the file.
    """
    number = {"device_id": device.index or 0}
    wanted = [
        ("TensorrtExecutionProvider", {**number, "trt_fp16_enable": True}),
        ("CUDAExecutionProvider", number),
    ]
    session = _session(path, wanted, 1)
    _tell_where(session, "Tensorrt", device)
    return _runner(session, path, device)


def _tell_where(session: Any, wanted: str, device: torch.device) -> None:
    """Say where a session that was to run on a GPU runs instead; it says nothing itself."""
    first = str(session.get_providers()[0]).removesuffix("ExecutionProvider")
    if device.type == "cuda" and first != wanted:
        _tell_once(first, wanted)


@lru_cache(maxsize=8)
def _tell_once(first: str, wanted: str) -> None:
    log.warning(
        "ONNX Runtime runs on %s instead of %s, which is not installed or cannot be loaded here (pip install "
        "--force-reinstall --no-deps onnxruntime-gpu, over onnxruntime); its times are those of %s",
        first, wanted, first,
    )  # fmt: skip


def _session(path: Path, wanted: list[Any], threads: int) -> Any:
    providers()  # a sentence where it is absent
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=wanted)
    except Exception as error:  # ONNX Runtime's kinds are not exported by name
        raise ExportError(
            f"ONNX Runtime {ort.__version__} cannot load {path}: {str(error)[:200]}"
        ) from error


def _runner(session: Any, path: Path, device: torch.device) -> Runner:
    if len(session.get_inputs()) != 1 or len(session.get_outputs()) != 1:
        raise ExportError(f"{path} takes or gives other than one tensor; export the model again.")
    taken, given = session.get_inputs()[0], session.get_outputs()[0]
    sizes = list(given.shape)[1:]
    on_gpu = session.get_providers()[0] != "CPUExecutionProvider"
    if on_gpu and given.type == "tensor(float)" and all(isinstance(size, int) for size in sizes):
        return _Bound(session, taken.name, given.name, sizes, device)

    def run(x: torch.Tensor) -> torch.Tensor:
        (found,) = session.run(None, {taken.name: x.cpu().numpy()})
        return torch.from_numpy(found)

    return run


class _Bound:
    """Runs a session on torch's own GPU memory: inputs are read and outputs written where they lie."""

    def __init__(
        self, session: Any, taken: str, given: str, sizes: list[int], device: torch.device
    ) -> None:
        self._session, self._taken, self._given = session, taken, given
        self._sizes, self._device = sizes, device

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs on the device that the session runs on."""
        import numpy as np

        x = x.to(self._device).contiguous()
        found = torch.empty((len(x), *self._sizes), dtype=torch.float32, device=self._device)
        place = {"device_type": self._device.type, "device_id": self._device.index or 0}
        kind = np.int64 if x.dtype == torch.int64 else np.float32
        binding = self._session.io_binding()
        binding.bind_input(
            self._taken, **place, element_type=kind, shape=tuple(x.shape), buffer_ptr=x.data_ptr()
        )
        binding.bind_output(
            self._given, **place, element_type=np.float32, shape=tuple(found.shape),
            buffer_ptr=found.data_ptr(),
        )  # fmt: skip
        # the session has a stream of its own, which knows nothing of what torch has queued
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return found
