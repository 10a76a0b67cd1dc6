"""The chunk size at which an exported network takes large batches fastest on this machine."""

from __future__ import annotations

from pathlib import Path

import torch

from darts_core import runlog
from darts_core.export.manifest import check_files, read_manifest
from darts_core.export.runtime import open_artifact
from darts_core.latency import default_batch_sizes, device_lock, quick_ms
from darts_core.latency.device import pinned_threads
from darts_core.sample_inputs import draw_inputs

__all__ = ["best_chunk", "tune_chunks"]

# chunks are taken where they save at least so much of the time
_CLEARLY = 0.97


def best_chunk(
    path: Path, input_shape: tuple[int, ...], batch: int, device: torch.device
) -> int | None:
    """The chunk size at which ONNX Runtime takes a batch fastest; None where the whole is.

    Args:
        path: of the ONNX file.
        input_shape: (C, H, W).
        batch: images of the batch to be served.
        device: the CPU.
    """
    x = draw_inputs(input_shape, batch)
    times: dict[int | None, float] = {}
    with device_lock(device), pinned_threads(device) as threads:
        for chunk in (None, *sorted({1, 2, 4, -(-batch // threads)})):
            if chunk is not None and 2 * chunk > batch:
                continue
            runner = open_artifact("onnx", [path], device, threads=threads, chunk=chunk)
            times[chunk] = quick_ms(lambda run=runner: run(x), device=device, seconds=0.2)  # type: ignore[misc]
    best = min(times, key=times.__getitem__)
    return best if times[best] < _CLEARLY * times[None] else None


def tune_chunks(folder: str | Path) -> dict[str, int | None]:
    """Measure the chunk sizes of an export folder anew, for a machine other than the exporting one.

    The manifest is changed where it is for the CPU; the sizes by artifact are returned.

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
            found[name] = best_chunk(path, shape, max(default_batch_sizes(device)), device)
            artifact["chunk"] = found[name]
    if found:
        runlog.write_json(folder / "manifest.json", manifest)
    return found
