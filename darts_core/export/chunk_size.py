"""The chunk size at which an exported network takes large batches fastest on this machine."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from darts_core import runlog
from darts_core.export.manifest import check_files, read_manifest
from darts_core.export.runtime import open_artifact
from darts_core.latency import Load, default_batch_sizes, device_lock, quick_ms
from darts_core.latency.device import pinned_threads
from darts_core.latency.measure import FOREIGN_CORES
from darts_core.sample_inputs import draw_inputs

__all__ = ["chunk_entry", "tune_chunks"]

log = logging.getLogger("darts_core")

# chunks are taken where they save at least so much of the time
_CLEARLY = 0.97
_ATTEMPTS = 2
# of the largest output
_ROUNDING = 0.02


def chunk_entry(
    path: Path, input_shape: tuple[int, ...], batch: int, device: torch.device
) -> dict[str, int | None]:
    """`{"chunk": size}` with the size at which ONNX Runtime takes a batch fastest, None where the whole is.

    It is empty where other work disturbed the measurement, twice: such a size is not kept.

    Args:
        path: of the ONNX file.
        input_shape: (C, H, W).
        batch: images of the batch to be served.
        device: the CPU.
    """
    for _ in range(_ATTEMPTS):
        with device_lock(device), pinned_threads(device) as threads:
            load = Load()
            times = _times(path, input_shape, batch, device, threads)
            busy = load.foreign()
        if busy <= FOREIGN_CORES:
            best = min(times, key=times.__getitem__)
            return {"chunk": best if times[best] < _CLEARLY * times[None] else None}
    log.warning(
        "no piece size for large batches of %s is kept: other processes kept %.1f cores busy meanwhile; "
        "`darts-core serve-bench DIR --tune` measures it anew",
        path.name,
        busy,
    )
    return {}


def _times(
    path: Path, input_shape: tuple[int, ...], batch: int, device: torch.device, threads: int
) -> dict[int | None, float]:
    """Milliseconds of a batch by chunk size; None is the whole, from which no other's outputs differ."""
    x = draw_inputs(input_shape, batch)
    times: dict[int | None, float] = {}
    whole: torch.Tensor | None = None
    for chunk in (None, *sorted({1, 2, 4, -(-batch // threads)})):
        if chunk is not None and 2 * chunk > batch:
            continue
        runner = open_artifact("onnx", [path], device, threads=threads, chunk=chunk)
        found = runner(x)
        whole = found if whole is None else whole
        # a norm over the batch's own statistics, say, makes a sample's output depend on those beside it
        if not _close(found, whole):
            log.info("%s is run on whole batches: in pieces it gives other outputs", path.name)
            break
        times[chunk] = quick_ms(lambda run=runner: run(x), device=device, seconds=0.2)  # type: ignore[misc]
    return times


def _close(found: torch.Tensor, whole: torch.Tensor) -> bool:
    """Whether outputs are the same up to rounding, which a step of INT8 may make larger."""
    scale = float(whole.abs().nan_to_num(0.0, 0.0).max())
    return bool(torch.allclose(found, whole, rtol=0.0, atol=_ROUNDING * scale, equal_nan=True))


def tune_chunks(folder: str | Path) -> dict[str, int | None]:
    """Measure the chunk sizes of an export folder anew, for a machine other than the exporting one.

    The manifest is changed where it is for the CPU; the sizes by artifact are returned. One that other work
    disturbed is neither kept nor returned.

    Raises:
        ExportError: the folder holds no export, or a file was changed.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    shape = tuple(int(size) for size in manifest["input_shape"])
    device = torch.device("cpu")
    found: dict[str, int | None] = {}
    for name, artifact in manifest["artifacts"].items():
        if artifact["kind"] == "onnx" and artifact.get("device", "cpu") == "cpu":
            (path,) = check_files(folder, artifact)
            entry = chunk_entry(path, shape, max(default_batch_sizes(device)), device)
            artifact |= entry
            if entry:
                found[name] = entry["chunk"]
    if found:
        runlog.write_json(folder / "manifest.json", manifest)
    return found
