"""Static INT8 quantisation of the ONNX form, calibrated on training images."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from darts_core.errors import ExportError

__all__ = ["quantize"]

_IMAGES = 256
_BATCH = 32


class _Images:
    """Calibration data as ONNX Runtime wants it: one dict of inputs after another."""

    def __init__(self, bundle: Any, name: str) -> None:
        self._feeds = self._read(bundle, name)

    def _read(self, bundle: Any, name: str) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        size = min(_BATCH, bundle.size("params"))
        for number, (x, _) in enumerate(bundle.batches("params", size, seed=0, epoch=0)):
            if number * size >= _IMAGES:
                return
            yield {name: x.cpu().numpy()}

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        return next(self._feeds, None)


def quantize(source: Path, target: Path, bundle: Any) -> None:
    """Write the fp32 ONNX file `source` as an INT8 one: weights per channel, activations static.

    256 images of the params split give the ranges; no image of another split is read.

    Raises:
        ExportError: there is no data to calibrate on, or the quantiser fails.
    """
    if bundle is None:
        raise ExportError("INT8 needs images of the params split to calibrate on; pass a bundle.")
    import onnx
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = onnx.load(str(source)).graph.input[0].name
    quiet = logging.getLogger()
    level, handlers = quiet.level, list(quiet.handlers)
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            quiet.setLevel(logging.ERROR)
            prepared = Path(folder) / "prepared.onnx"
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared), str(target), _Images(bundle, name),
                quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod.MinMax,
            )  # fmt: skip
    except Exception as error:  # of ONNX, of its checker, of ONNX Runtime
        raise ExportError(
            f"The model cannot be quantised to INT8 ({type(error).__name__}: {str(error)[:200]}); "
            "leave 'onnx_int8' out of the formats."
        ) from error
    finally:
        quiet.setLevel(level)
        # its calls of logging.info() give the root logger a handler, which would print our lines again
        quiet.handlers[:] = handlers
