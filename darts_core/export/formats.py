"""One writer a file format. Each takes the folded model and writes one artifact, unverified."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darts_core.copies import copy_of
from darts_core.errors import ExportError, NotInstalledError, first_line, unknown_name
from darts_core.export.archive import save_program
from darts_core.export.attention import with_plain_attention
from darts_core.export.extras import missing, own_precision, require
from darts_core.export.fold import trace
from darts_core.export.int8 import quantize
from darts_core.export.manifest import DataMeta
from darts_core.latency.deployed import cast_input
from darts_core.layout import in_layout, input_in_layout
from darts_core.sample_inputs import draw_inputs

__all__ = ["FORMATS", "Format", "Job", "check_formats"]

# the runtime chooses, by what the machine has
OWN_PRECISION = "default"


@dataclass
class Job:
    """What the writers share: the folded model in eval mode, its input, calibration data."""

    folded: nn.Module
    meta: DataMeta
    device: torch.device
    channels_last: bool = False
    bundle: Any = None


@dataclass(frozen=True)
class Format:
    """An artifact kind: its file, number format, what opens it, and the function that writes it."""

    file: str
    kind: str
    precision: str
    write: Callable[[Job, Path], None]
    native: bool = False

    def settled(self, device: torch.device) -> Format:
        """This format with the precision that its runtime takes on `device`, where that is its choice.

        Raises:
            ExportError: the runtime does not run there.
            NotInstalledError: it is absent.
        """
        if self.precision != OWN_PRECISION:
            return self
        kind, precision = own_precision(device)
        return replace(self, kind=kind, precision=precision)


class Cast(nn.Module):
    """`model` in another number format or layout behind a float32, any-layout interface."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, *, channels_last: bool) -> None:
        super().__init__()
        layout = torch.channels_last if channels_last else torch.contiguous_format
        # the copy keeps the caller's model as it is
        own = copy_of(model)
        if dtype != torch.float32:  # parts that work in another format by themselves keep it
            own = own.to(dtype=dtype)
        self.model = in_layout(own, layout)
        self.dtype = dtype
        self.layout = layout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs in float32."""
        x = input_in_layout(cast_input(self.model, x, self.dtype), self.layout)
        return self.model(x).float()


def cast(job: Job, dtype: torch.dtype) -> nn.Module:
    """The folded model, wrapped where its layout or number format is not the interface's."""
    if dtype == torch.float32 and not job.channels_last:
        return job.folded
    return Cast(job.folded, dtype, channels_last=job.channels_last).eval()


def _pt2(dtype: torch.dtype) -> Callable[[Job, Path], None]:
    def write(job: Job, path: Path) -> None:
        save_program(trace(cast(job, dtype), job.meta.input_shape, example=_example(job)), path)

    return write


def _onnx(dtype: torch.dtype) -> Callable[[Job, Path], None]:
    def write(job: Job, path: Path) -> None:
        # ONNX Runtime chooses its own layout
        model = job.folded
        if dtype != torch.float32:
            model = Cast(job.folded, dtype, channels_last=False).eval()
        write_onnx(model.cpu(), job, path)
        job.folded.to(job.device)
        _one_file(path)

    return write


def _extra(kind: str) -> Callable[[Job, Path], None]:
    """The fp32 ONNX file, for a runtime that lowers the precision itself."""

    def write(job: Job, path: Path) -> None:
        require(kind, job.device)
        write_onnx(job.folded.cpu(), job, path)
        job.folded.to(job.device)
        _one_file(path)

    return write


def _one_file(path: Path) -> None:
    """Nothing, if the ONNX file holds its weights; torch lays those above 1.5 GiB beside it unasked.

    Raises:
        ExportError: it does not, so that its manifest would vouch for a graph without weights.
    """
    beside = path.with_name(f"{path.name}.data")
    if beside.exists():
        beside.unlink()
        raise ExportError(
            "The model's weights take more than the 1.5 GiB that torch puts into one ONNX file; leave its "
            "ONNX formats out (pt2 holds any size), or export a smaller model."
        )


def write_onnx(model: nn.Module, job: Job, path: Path) -> None:
    """`model` as one self-contained ONNX file with a free batch size.

    Raises:
        ExportError: the exporter knows no ONNX form for one of the operations.
    """
    program = trace(model, job.meta.input_shape, example=draw_inputs(job.meta.input_shape, 2))
    try:
        with _quiet():
            warnings.simplefilter("ignore")
            program = with_plain_attention(program)
            exported = torch.onnx.export(
                program,
                input_names=["images"],
                output_names=["logits"],
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            if exported is None:
                raise RuntimeError("the exporter returned nothing")
            exported.save(str(path), external_data=False)
    except Exception as error:  # the exporter wraps whatever went wrong inside
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # no fault of the model
        raise ExportError(
            f"The model cannot be written as ONNX: {_cause(error)[:300]}. Leave 'onnx' out of the formats or "
            "replace the operation it names."
        ) from error


def _cause(error: BaseException) -> str:
    """What went wrong first, in one line: the exporter wraps it several times."""
    found = error
    while found.__cause__ is not None:
        found = found.__cause__
    lines = str(found).strip().splitlines()
    return f"{type(found).__name__}: {lines[0].rstrip('.')}" if lines else type(found).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's many remarks out of our log and off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _int8(job: Job, path: Path) -> None:
    """Static INT8 in the form that ONNX Runtime and OpenVINO both read (QuantizeLinear pairs)."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "fp32.onnx"
        write_onnx(job.folded.cpu(), job, source)
        job.folded.to(job.device)
        quantize(source, path, job.bundle)


def _openvino_int8(job: Job, path: Path) -> None:
    require("openvino_int8", job.device)
    _int8(job, path)


def _aoti(dtype: torch.dtype) -> Callable[[Job, Path], None]:
    """AOTInductor: machine code for this device, compiled ahead of time."""

    def write(job: Job, path: Path) -> None:
        import torch._inductor

        program = trace(cast(job, dtype), job.meta.input_shape, example=_example(job))
        try:
            with _quiet(), torch.no_grad():
                torch._inductor.aoti_compile_and_package(program, package_path=str(path))
        except Exception as error:  # the compiler's, the linker's or a missing g++'s
            last = first_line(error)
            kind = NotInstalledError if missing("aoti") else ExportError
            raise kind(
                f"AOTInductor cannot compile the model ({last[:200]}); it needs a C++ compiler. "
                "Leave 'aoti' out of the formats."
            ) from error

    return write


def _fused(job: Job, path: Path) -> None:
    """The aten program that `FusedProgram` matches at load: folded, in fp32 and NCHW."""
    if job.device.type != "cuda":
        raise ExportError(
            f"The fused path runs on a GPU, not on {str(job.device)!r}; leave it out of the formats."
        )
    save_program(trace(job.folded, job.meta.input_shape, example=_example(job)), path)


def _example(job: Job) -> torch.Tensor:
    return draw_inputs(job.meta.input_shape, 2, device=job.device)


FORMATS: dict[str, Format] = {
    "pt2": Format("model.pt2", "pt2", "fp32", _pt2(torch.float32)),
    "pt2_bf16": Format("model_bf16.pt2", "pt2", "bf16", _pt2(torch.bfloat16)),
    "pt2_fp16": Format("model_fp16.pt2", "pt2", "fp16", _pt2(torch.float16)),
    "onnx": Format("model.onnx", "onnx", "fp32", _onnx(torch.float32)),
    "onnx_fp16": Format("model_fp16.onnx", "onnx", "fp16", _onnx(torch.float16)),
    "onnx_int8": Format("model_int8.onnx", "onnx", "int8", _int8),
    "aoti": Format("model_aoti.pt2", "aoti", "fp32", _aoti(torch.float32), native=True),
    "aoti_bf16": Format("model_aoti_bf16.pt2", "aoti", "bf16", _aoti(torch.bfloat16), native=True),
    "aoti_fp16": Format("model_aoti_fp16.pt2", "aoti", "fp16", _aoti(torch.float16), native=True),
    "openvino": Format("model_openvino.onnx", "openvino", "fp32", _extra("openvino")),
    "openvino_bf16": Format(
        "model_openvino_bf16.onnx", "openvino_bf16", "bf16", _extra("openvino_bf16")
    ),
    "openvino_default": Format(
        "model_openvino_default.onnx", "openvino", OWN_PRECISION, _extra("openvino")
    ),
    "openvino_int8": Format("model_openvino_int8.onnx", "openvino_int8", "int8", _openvino_int8),
    "tensorrt_fp16": Format("model_tensorrt.onnx", "tensorrt", "fp16", _extra("tensorrt")),
    "fused_fp16": Format("model_fused_fp16.pt2", "fused_fp16", "fp16", _fused),
    "fused_bf16": Format("model_fused_bf16.pt2", "fused_bf16", "bf16", _fused),
}


def check_formats(names: Iterable[str]) -> None:
    """Nothing, if all are formats.

    Raises:
        ExportError: one is not; the nearest names are told.
    """
    for name in names:
        if name not in FORMATS:
            raise ExportError(unknown_name("export format", name, FORMATS))
