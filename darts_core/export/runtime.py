"""Loading and running exported models: `load(folder)` gives one callable for any runtime.

Shapes: images_BCHW float32, normalised as the manifest says -> logits_BK float32; or what else the manifest's
`input` and `task` say.
B batch (any), C channels, H height, W width, K classes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from darts_core.device import require_device
from darts_core.errors import DartsError, ExportError, first_line, unknown_name
from darts_core.export import extras
from darts_core.export.archive import load_program
from darts_core.export.choice import choose, home_of
from darts_core.export.contents import LIBRARY, NATIVE, OTHER, PROGRAM, what_is
from darts_core.export.manifest import check_files, data_meta, read_manifest
from darts_core.export.onnx_session import open_onnx
from darts_core.tasks import TASKS, Classification, Task, saved_task

__all__ = ["LoadedModel", "load", "open_artifact"]

log = logging.getLogger("darts_core")
Runner = Callable[[torch.Tensor], torch.Tensor]
# of the kinds of artifacts, those that are told how many threads to take
_COUNT_THREADS = ("onnx", *extras.OPENVINO_HINTS)


class LoadedModel:
    """An exported model in memory: call it with normalised inputs, get outputs (of a classifier, logits).

    Attributes:
        manifest: the content of manifest.json.
        runtime: the artifact that runs (`pt2`, `onnx`, ...).
        classes: what the outputs are called, in their order.
        described: the manifest's account of inputs and outputs.
        task: what the outputs mean (`task.read`); None where it is not registered here.
    """

    def __init__(
        self, manifest: Mapping[str, Any], runtime: str, runner: Runner, device: torch.device
    ) -> None:
        self.manifest = manifest
        self.runtime = runtime
        self.device = device
        self.input_shape: tuple[int, ...] = tuple(int(size) for size in manifest["input_shape"])
        self.task: Task | None = None
        self.described = data_meta(manifest)
        self.classes: tuple[str, ...] = self.described.classes
        described = self.described.task
        if not described:  # written before there were tasks
            self.task = Classification(outputs=len(self.classes), names=self.classes)
        elif described.get("name") in TASKS:
            self.task = saved_task(described, "manifest.json")
        self._runner = runner

    def __call__(self, inputs: torch.Tensor | np.ndarray) -> torch.Tensor:
        """Outputs [B, ...] on the CPU or the model's device; of a classifier logits [B, K].

        Args:
            inputs: [B, *input_shape], normalised as the manifest says; token numbers for a shape (T,).

        Raises:
            ExportError: the inputs have another shape than the model takes, or the file is not what
                its manifest says.
        """
        try:
            x = torch.as_tensor(inputs)
        except ValueError:  # torch takes no flipped array and no foreign byte order
            array = np.asarray(inputs)
            x = torch.as_tensor(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))
        tokens = len(self.input_shape) == 1
        if x.ndim != len(self.input_shape) + 1 or tuple(x.shape[1:]) != self.input_shape:
            raise ExportError(
                f"The model takes inputs of shape [batch, *{list(self.input_shape)}], not "
                f"{list(x.shape)}; resize or convert them."
            )
        if x.is_floating_point() == tokens:
            wanted = "token numbers" if tokens else "normalised floats"
            raise ExportError(f"The model takes {wanted}, not {x.dtype}; predict() reads raw ones.")
        with torch.inference_mode():
            x = x.to(self.device, torch.int64 if tokens else torch.float32)
            outputs = _run(self._runner, x, self.runtime)
        if self.task is None:
            return outputs
        shape = (len(x), *self.task.output_shape(self.input_shape))
        if tuple(outputs.shape) != shape:
            raise ExportError(
                f"The artifact {self.runtime!r} gives values of shape {list(outputs.shape)} for "
                f"{len(x)} samples, not {list(shape)} as its manifest says; export the model again."
            )
        return outputs


def _run(runner: Runner, x: torch.Tensor, name: str) -> torch.Tensor:
    """`runner(x)`; what a runtime raises on a file that does not fit its manifest is a sentence."""
    try:
        result: Any = runner(x)
    except (DartsError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # runtimes have kinds of their own, not exported by name
        reason = first_line(error)
        raise ExportError(
            f"The artifact {name!r} cannot be run ({reason[:200]}); export the model again."
        ) from error
    if not isinstance(result, torch.Tensor):
        raise ExportError(f"The artifact {name!r} gives no tensor; export the model again.")
    return result


def load(
    folder: str | Path,
    runtime: str | None = None,
    *,
    prefer: str | None = None,
    device: str | torch.device | None = None,
    trust: bool = False,
    threads: int | None = None,
) -> LoadedModel:
    """The model that `export_model` wrote into `folder`, ready to be called.

    Args:
        folder: an export folder with its manifest.json.
        runtime: an artifact's name; by default the fastest portable fp32 one.
        prefer: instead of a name, `speed` (the fastest as measured, of any precision) or `exact` (the
            closest to the original); of what can run here.
        device: where it runs; by default where it was exported for (the first GPU where that one is not
            there, the CPU where there is none).
        trust: allow native code (AOTInductor), which is run as it is; only for files you made. The
            file itself decides whether it is such code, not what the manifest says of it.
        threads: CPU threads of ONNX Runtime or OpenVINO; torch's count by default, which the others take.

    Raises:
        ExportError: the folder, the artifact or its hash is wrong, native code is not trusted, `threads` is
            below 1, or both a name and a preference are given.
    """
    folder = Path(folder)
    if threads is not None and threads < 1:
        raise ExportError(f"threads={threads} must be at least 1; leave it out for torch's count.")
    manifest = read_manifest(folder)
    given = require_device(device) if device is not None else None
    if runtime is not None and prefer is not None:
        raise ExportError(f"Give a runtime ({runtime!r}) or a preference ({prefer!r}), not both.")
    name = runtime or choose(manifest, prefer, device=given, trust=trust)
    if name not in manifest["artifacts"]:
        raise ExportError(unknown_name("runtime", name, manifest["artifacts"]))
    artifact = manifest["artifacts"][name]
    paths = check_files(folder, artifact)
    where = given if given is not None else _home(artifact)
    chunk = artifact.get("chunk") if where.type == "cpu" else None
    runner = open_artifact(
        artifact["kind"], paths, where, threads=threads, chunk=chunk, trust=trust
    )
    if threads is not None and artifact["kind"] not in _COUNT_THREADS:
        log.warning(
            "threads=%d is for ONNX Runtime and OpenVINO: %s runs on as many as torch does, which "
            "torch.set_num_threads() tells it",
            threads,
            name,
        )
    log.info("loaded %s from %s on %s", name, folder, where)
    return LoadedModel(manifest, name, runner, where)


def _home(artifact: Mapping[str, Any]) -> torch.device:
    found = home_of(artifact)
    gpu_only = artifact.get("kind") in ("aoti", "fused_fp16", "fused_bf16", "tensorrt")
    if gpu_only and str(artifact.get("device", "cpu")).startswith("cuda") and found.type == "cpu":
        raise ExportError(
            "This artifact was made for a GPU and there is none; load the onnx or pt2 one."
        )
    return require_device(found)  # which makes a GPU the current one


def open_artifact(
    kind: str,
    paths: list[Path],
    device: torch.device,
    *,
    threads: int | None = None,
    chunk: int | None = None,
    trust: bool = False,
) -> Runner:
    """A function from images [B, C, H, W] to logits [B, K] that runs the files of one artifact.

    With `chunk`, ONNX Runtime takes batches of twice as many images or more in pieces of that size.

    Raises:
        ExportError: the kind is unknown, its runtime is not installed, or a file is native code (or to
            be run as such) and `trust` is not given.
    """
    if kind not in _CONTENTS:
        raise ExportError(unknown_name("artifact kind", kind, _CONTENTS))
    for path in paths:
        _check_content(kind, path, trust=trust)
    if kind == "pt2":
        return _open_pt2(paths[0], device)
    if kind == "onnx":
        return open_onnx(paths[0], device, threads, chunk)
    if kind == "aoti":
        return _open_aoti(paths[0], device)
    if kind in ("fused_fp16", "fused_bf16"):
        return _open_fused(paths[0], device, kind)
    if kind in extras.OPENVINO_HINTS:
        return extras.open_openvino(paths[0], device, kind, threads=threads)
    return extras.open_tensorrt(paths[0], device)


# what the file of each kind has to be
_CONTENTS = {
    "aoti": LIBRARY,
    **dict.fromkeys(("pt2", "fused_fp16", "fused_bf16"), PROGRAM),
    **dict.fromkeys(("onnx", "tensorrt", *extras.OPENVINO_HINTS), OTHER),
}


def _check_content(kind: str, path: Path, *, trust: bool) -> None:
    """Nothing, if `path` may be opened as `kind`: by its content, and by how that kind is opened."""
    found = what_is(path)
    if (found in NATIVE or kind == "aoti") and not trust:
        raise ExportError(
            f"{path} is native code that runs unchecked ({found}, opened as {kind!r}); pass "
            "trust=True (in a command: `darts-core serve-bench --trust`) if you made it, or take another "
            "artifact (`darts-core predict --runtime NAME`)."
        )
    if kind == "aoti" and found != LIBRARY:
        raise ExportError(f"{path} is no AOTInductor package; export the model again.")
    if kind != "aoti" and found == LIBRARY:
        raise ExportError(
            f"{path} is compiled code, but the manifest calls it {kind!r}; export the model again."
        )


def _open_pt2(path: Path, device: torch.device) -> Runner:
    program = load_program(path, device)
    taken = program.graph_signature.user_inputs
    in_place = any(_overwritten(node) for node in program.graph.nodes if node.name in taken)
    module = program.module()

    def run(x: torch.Tensor) -> torch.Tensor:
        # traced so: view() joins other dimensions of another layout, or fails
        result = module(
            x.clone(memory_format=torch.contiguous_format) if in_place else x.contiguous()
        )
        return result if isinstance(result, torch.Tensor) else result[0]

    return run


def _overwritten(node: Node) -> bool:
    """Whether an operation of the program may compute in the tensor of `node`, or in a view of it."""
    for user in node.users:
        schema = getattr(user.target, "_schema", None)
        if schema is None:
            continue
        seen = any(given.alias_info is not None for given in schema.returns)
        if schema.is_mutable or (seen and _overwritten(user)):
            return True
    return False


def _open_aoti(path: Path, device: torch.device) -> Runner:
    import torch._inductor

    index = (device.index or 0) if device.type == "cuda" else -1
    try:
        compiled = torch._inductor.aoti_load_package(str(path), device_index=index)
    except Exception as error:  # of the loader, of the linker
        raise ExportError(
            f"{path} cannot be loaded here ({str(error).strip()[:200]}); it is machine code of the "
            "device it was exported on. Export again, or load the onnx or pt2 artifact."
        ) from error

    def run(x: torch.Tensor) -> torch.Tensor:
        # inputs are read as they lie in memory
        result = compiled(x.contiguous())
        return result if isinstance(result, torch.Tensor) else result[0]

    return run


def _open_fused(path: Path, device: torch.device, kind: str) -> Runner:
    from darts_core.export.fused import FusedProgram

    if device.type != "cuda":
        raise ExportError(f"{path.name} runs on a GPU only; load the onnx or pt2 artifact.")
    dtype = torch.float16 if kind == "fused_fp16" else torch.bfloat16
    return FusedProgram(load_program(path, device), device, dtype)
