"""An operation in the form in which it will run, ready to be timed: folded, in its runtime.

Timing needs the work, not the values: a batch norm behind a convolution becomes a bias, an operation
for ONNX Runtime is written with the quick TorchScript exporter.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from darts_core.compiling import apart
from darts_core.copies import copy_of
from darts_core.errors import LatencyError
from darts_core.latency.norms import CONVOLUTIONS, rest_of_norm
from darts_core.latency.samples import SETTLE_SECONDS
from darts_core.layout import in_layout, input_in_layout
from darts_core.modes import in_evaluation
from darts_core.ops.macs import without_fast_attention
from darts_core.sample_inputs import formats_beside_float32, number_format
from darts_core.settings.search import RUNTIMES

__all__ = [
    "DTYPES",
    "RUNTIMES",
    "SPIN_MICROSECONDS",
    "as_deployed",
    "cast_input",
    "in_runtime",
    "keep_constants",
    "onnx_bytes",
    "onnx_call",
    "settle_seconds",
    "skip_dead",
    "without_norms",
]

log = logging.getLogger("darts_core")
SPIN_MICROSECONDS = 2000
"""How long the threads of a session that is timed spin after a call."""
# when they sleep for sure
_ASLEEP_SECONDS = 0.005
# an older ONNX Runtime is not known to heed the setting
_HEEDED_SINCE = (1, 32)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def as_deployed(
    module: nn.Module, x: torch.Tensor, dtype: torch.dtype
) -> tuple[nn.Module, torch.Tensor]:
    """`module` and `x` as they run on the device of `x`: on a GPU in `dtype` and channels-last."""
    if x.device.type != "cuda":
        return module, x
    layout = torch.channels_last
    module = in_layout(module.to(device=x.device, dtype=dtype), layout)
    x = cast_input(module, x, dtype)
    return module, input_in_layout(x, layout)


def cast_input(module: nn.Module, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`x` as a module in the number format `dtype` takes it: token numbers and rows of raw values stay."""
    # a layer of a user's own network may bear the name
    raw = getattr(module, "raw_input", False) is True
    return x.to(dtype) if x.is_floating_point() and not raw else x


def skip_dead(module: nn.Module) -> nn.Module:
    """`module`, its cells told to leave out what cannot change their output (see `FixedCell.lean`)."""
    for child in module.modules():
        if isinstance(getattr(child, "lean", None), bool):
            child.lean = True  # type: ignore[assignment]
    return module


@torch.no_grad()
def keep_constants(module: nn.Module, x: torch.Tensor) -> nn.Module:
    """`module` after `skip_dead`, what its cells compute whatever the input kept as buffers.

    Args:
        module: in eval mode, with its final weights.
        x: [B, C, H, W] of the size that all later inputs have, on any device.
    """
    cells = [
        child for child in module.modules() if isinstance(getattr(child, "keeping", None), bool)
    ]
    for cell in cells:
        cell.keeping = True  # type: ignore[assignment]
    if cells:
        home = next(module.parameters(), x)
        module(x[:1].to(home.device, home.dtype))
    for cell in cells:
        cell.keeping = False  # type: ignore[assignment]
    return module


def without_norms(module: nn.Module, x: torch.Tensor) -> nn.Module:
    """A copy in eval mode whose convolutions carry a bias and whose batch norms behind them are gone.

    The values differ from the original's, the work is that of the folded operation: what a norm does
    besides normalising stays (see `rest_of_norm`), and so do norms that do not follow a convolution.

    Args:
        module: a network or an operation.
        x: [B, C, ...] of its inputs.
    """
    copied = skip_dead(in_evaluation(copy_of(module)))
    copied.requires_grad_(False)
    home, kind = next(copied.parameters(), x).device, number_format(copied)
    with torch.no_grad(), _Reads() as reads:
        copied(x.to(home, kind, copy=True) if x.is_floating_point() else x.to(home, copy=True))
    paths = {id(child): path for path, child in copied.named_modules()}
    owners = {
        id(child.running_mean): child
        for child in copied.modules()
        if isinstance(child, _BatchNorm) and child.running_mean is not None
    }
    readers = {id(c.weight): c for c in copied.modules() if isinstance(c, CONVOLUTIONS)}
    for statistic, shape, weights in reads.norms:
        norm = owners.pop(id(statistic), None)
        if norm is None:
            continue
        try:
            rest = rest_of_norm(norm, shape[1:])
        except LatencyError as error:
            log.debug("batch norm %s is timed as it is: %s", paths[id(norm)], error)
            continue
        parent, _, own = paths[id(norm)].rpartition(".")
        setattr(copied.get_submodule(parent), own, rest)
        for weight in weights:
            conv = readers.get(id(weight))
            if conv is not None and conv.bias is None:
                conv.bias = nn.Parameter(weight.new_zeros(len(weight)), requires_grad=False)
    return keep_constants(copied, x)


class _Reads(TorchFunctionMode):
    """Notes which batch norms read the output of convolutions, or of a concatenation of them.

    Attributes:
        norms: (running mean, shape of the input, weights of the convolutions) in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norms: list[tuple[Any, torch.Size, list[torch.Tensor]]] = []
        # the outputs are held, so that no other tensor takes their id meanwhile
        self._outputs: dict[int, tuple[torch.Tensor, list[torch.Tensor]]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run `func` and note it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in ("conv1d", "conv2d", "conv3d"):
            self._outputs[id(result)] = (result, [args[1] if len(args) > 1 else kwargs["weight"]])
        elif name == "cat":
            parts = args[0] if args else kwargs["tensors"]
            if all(id(part) in self._outputs for part in parts):
                weights = [w for part in parts for w in self._outputs[id(part)][1]]
                self._outputs[id(result)] = (result, weights)
        elif func is F.batch_norm:
            read = args[0] if args else kwargs["input"]
            mean = args[1] if len(args) > 1 else kwargs["running_mean"]
            if id(read) in self._outputs:
                self.norms.append((mean, read.shape, self._outputs[id(read)][1]))
        return result


def in_runtime(
    module: nn.Module,
    x: torch.Tensor,
    runtime: str,
    *,
    threads: int | None = None,
) -> Callable[[], Any]:
    """A function of nothing that runs `module` on `x` once under `runtime`.

    Raises:
        LatencyError: the runtime is unknown, absent, or cannot express the operation.
    """
    if runtime not in RUNTIMES:
        raise LatencyError(f"Unknown runtime {runtime!r}; use {', '.join(RUNTIMES)}.")
    if runtime == "onnx" and x.device.type != "cpu":
        raise LatencyError(
            f"The runtime 'onnx' is timed on a CPU, not on {x.device}; use graph there, or device=cpu."
        )
    if runtime == "onnx":
        return _onnx(module, x, threads)
    if runtime == "graph" and x.device.type != "cuda":
        raise LatencyError("The runtime 'graph' needs a cuda device; use eager or onnx on a CPU.")
    run: Callable[[torch.Tensor], Any] = module
    if runtime == "compile":
        run = torch.compile(apart(module))

    def call() -> Any:
        with torch.inference_mode():
            return run(x)

    return call


def _onnx(module: nn.Module, x: torch.Tensor, threads: int | None) -> Callable[[], Any]:
    name, content = type(module).__name__, onnx_bytes(module, x)
    try:
        return onnx_call(content, x, threads=threads, name=name)
    except LatencyError as error:
        others = formats_beside_float32(module)
        if not others or isinstance(error.__cause__, ImportError):
            raise
        why = str(error.__cause__).strip().rpartition(": ")[2][:200]
        raise LatencyError(
            f"{name} computes in {', '.join(others)}, in which ONNX Runtime lacks an operation ({why}); use "
            "model.float(), or another runtime."
        ) from error


def onnx_bytes(module: nn.Module, x: torch.Tensor, *, any_batch: bool = False) -> bytes:
    """`module` as an ONNX file, by the quick TorchScript exporter.

    Args:
        module: in eval mode.
        x: an example input.
        any_batch: leave the first dimension free.

    Raises:
        LatencyError: the exporter cannot express the module.
    """
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings(), without_fast_attention():
            warnings.simplefilter("ignore")
            # the signature promises a path only; a buffer is written all the same
            torch.onnx.export(
                module,
                (x.cpu(),),
                buffer,  # type: ignore[arg-type]
                input_names=["x"],
                dynamic_axes={"x": {0: "batch"}} if any_batch else None,
                dynamo=False,
            )
    except Exception as error:  # of the exporter, of many kinds
        raise _unfit(module, error) from error
    return buffer.getvalue()


def onnx_call(
    content: bytes, x: torch.Tensor, *, threads: int | None = None, name: str = "The network"
) -> Callable[[], Any]:
    """A function of nothing that runs an ONNX file on `x` once in ONNX Runtime.

    Raises:
        LatencyError: ONNX Runtime is absent or rejects the file.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise LatencyError("ONNX Runtime is not installed; pip install onnxruntime.") from error
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    # the next call of a sample comes sooner, another session's not: it waits for `settle_seconds`
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_MICROSECONDS))
    try:
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's kinds are not exported by name
        raise _unfit(name, error) from error
    feed = {"x": x.cpu().numpy()} if session.get_inputs() else {}
    return lambda: session.run(None, feed)


def settle_seconds(runtime: str) -> float:
    """How long the threads of a call of `in_runtime` may keep the cores after it."""
    if runtime != "onnx":
        return SETTLE_SECONDS
    with suppress(ImportError):
        from onnxruntime import __version__ as version

        if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) >= _HEEDED_SINCE:
            return _ASLEEP_SECONDS
    return SETTLE_SECONDS


def _unfit(what: nn.Module | str, error: Exception) -> LatencyError:
    name = what if isinstance(what, str) else type(what).__name__
    return LatencyError(
        f"{name} cannot run in ONNX Runtime ({str(error).strip()[:200]}); use another runtime or "
        "leave the operation out of the space."
    )
