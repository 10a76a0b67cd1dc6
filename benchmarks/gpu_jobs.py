"""The jobs of `benchmarks.on_gpu`, in their order: the real ones, and their rehearsal on a CPU."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
from pathlib import Path

from benchmarks.full_search import SHARES
from benchmarks.gpu_wheels import PYTHON

__all__ = ["SITE", "jobs"]

SITE = "site"
"""The folder, in the jobs' own, that carried packages are installed into."""
DARTS = [sys.executable, "-c", "from darts_core.cli import main; raise SystemExit(main())"]
CELLS = "darts_cell_on_the_gpu or whole_net"
"""Tests of whole cells and networks."""
MODELS = "resnet18,mobilenetv2,DARTS_V2"
RUNTIMES = "eager,graph,compile_graph,onnx,pt2"


def jobs(args: argparse.Namespace) -> dict[str, list[str]]:
    """Name -> command, in order. `{minutes}` is replaced by what is left of this call."""
    out, python = args.out, sys.executable
    if args.rehearse:
        return rehearsal(args)
    tests = ["-m", "pytest", "-p", "benchmarks.resumable_tests", "--resume", f"{out}/tests"]
    if importlib.util.find_spec("xdist"):
        # the compiler is what takes time
        tests += ["-n", str(processes(8))]
    minutes = ["--minutes", "{minutes}"]
    found = {
        "wheels": [python, "-m", "benchmarks.gpu_wheels", "--install", *wheels(args)],
        "doctor": [*DARTS, "doctor"],
        "compile": compiling(),
        "cells": [python, *tests, *minutes, "-m", "gpu", "-k", CELLS, "tests/kernels", "tests/gpu"],
        "step": [
            python, "benchmarks/gpu_step.py", "--tune", "--out", f"{out}/step",
            "--results", str(args.results), *minutes,
        ],
    }  # fmt: skip
    if args.data is not None:
        found["search"] = [
            python, "-m", "benchmarks.full_search", "--data", str(args.data), "--device", "cuda",
            "--out", f"{out}/full_search", "--results", str(args.results), *minutes,
        ]  # fmt: skip
    found |= {
        "export": [python, "-m", "benchmarks.export_gpu", "--out", str(args.results)],
        "tests": [python, *tests, *minutes, "-m", "gpu", "tests"],
    }
    if shutil.which("compute-sanitizer"):
        small = [
            "depthwise",
            "pointwise",
            "pool",
            "node_sum",
            "point_stats",
            "partial",
            "drawn",
            "cell",
        ]
        found["sanitizer"] = [
            "compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "1", python, "-m", "pytest",
            "-q", "-p", "benchmarks.resumable_tests", "--resume", f"{out}/sanitizer", *minutes,
            "-m", "gpu", "-k", "cuda", *(f"tests/kernels/test_{name}.py" for name in small),
        ]  # fmt: skip
    for space, layers in (("darts", 8), ("nasbench201", 5)):
        for batch in (1, 256):
            found[f"latency-{space}-{batch}"] = [
                *DARTS, "latency", "check", f"space={space}", "device=cuda", "channels=16",
                f"layers={layers}", "size=32", f"batch={batch}", "count=200", f"out={out}",
            ]  # fmt: skip
    if args.data is not None:
        cell = out / "full_search" / "search-tf32-seed0" / "V001" / "search" / "architecture.yaml"
        found["prune"] = pruning(args, args.data, "cuda", "50%")
        pruned = out / "prune" / "V001" / "prune"
        found["models"] = [
            *DARTS, "bench", "-m", "experiment=models_gpu", f"data.path={args.data}",
            f"model={MODELS},{cell},{pruned}", f"runtime={RUNTIMES}", f"out={out}", "job=models",
            "version=V001", f"bench.options.results={args.results}",
        ]  # fmt: skip
    return found


def rehearsal(args: argparse.Namespace) -> dict[str, list[str]]:
    """The same jobs on the CPU in minutes: what they print is no result."""
    out, python = args.out, sys.executable
    data = args.data or made_up_images(out / "toy.parquet")
    kept = str(out / "results")
    tests = ["-m", "pytest", "-p", "benchmarks.resumable_tests", "--resume", f"{out}/tests"]
    toy = ["channels=4", "layers=1", "size=16"]
    cell = out / "full_search" / "search-fp32-seed0" / "V001" / "search" / "architecture.yaml"
    pruned = out / "prune" / "V001" / "prune"
    small = ["--limit", "240", "--search-epochs", "1", "--train-epochs", "1", "--channels", "4",
             "--layers", "1", "--random", "1", "--seeds", "1", "--precisions", "fp32"]  # fmt: skip
    # wheels are for one Python; under another they are listed
    dry = [] if f"{sys.version_info.major}.{sys.version_info.minor}" == PYTHON else ["--dry-run"]
    minutes = ["--minutes", "{minutes}"]
    return {
        "wheels": [python, "-m", "benchmarks.gpu_wheels", "--install", *wheels(args), *dry],
        "doctor": [*DARTS, "doctor"],
        "compile": compiling("--most", "3"),
        "cells": [
            python, *tests, *minutes, "-m", "not gpu", "-k", "checkpoints and darts and FirstOrder",
            "tests/gpu/test_whole_net.py",
        ],
        "step": [
            python, "benchmarks/gpu_step.py", "--tune", "--rehearse", "--out", f"{out}/step",
            "--results", kept, *minutes,
        ],
        "search": [
            python, "-m", "benchmarks.full_search", "--data", str(data), "--device", "cpu",
            "--out", f"{out}/full_search", "--results", kept, *minutes, *small,
        ],
        "export": [
            python, "-m", "benchmarks.export_gpu", "--rehearse", "--out", kept, "--seconds", "0.05",
            "--batches", "1", "4", "--models", "DARTS_V2",
        ],
        "tests": [
            python, *tests, *minutes, "-m", "not gpu", "-k", "wait",
            "tests/gpu",
        ],
        "sanitizer": [
            "env", "TRITON_INTERPRET=1", python, "-m", "pytest", "-q", "-p", "tests.kernels.racecheck",
            "-m", "interpret", "tests/kernels/test_weighted_sum.py",
        ],
        # `check` refuses times of a busy machine, which is none of a rehearsal's business
        "latency-darts-1": [
            *DARTS, "latency", "prepare", "space=darts", "device=cpu", *toy, "batch=1", "count=8",
            f"out={out}",
        ],
        "prune": pruning(args, data, "cpu", "90%", "data.limit=240", "prune.epochs=1"),
        "models": [
            *DARTS, "bench", "-m", "experiment=models_gpu", f"data.path={data}", "data.limit=240",
            "device=cpu", f"model=resnet8,{cell},{pruned}", "runtime=eager,pt2", f"out={out}", "job=models",
            "version=V001", "train.channels=4", "train.layers=1", "train.epochs=1",
            "train.auxiliary=false", "train.precision=fp32", "bench.seconds=0.1",
            "bench.options.seeds=1", "bench.options.precisions=[fp32]",
            f"bench.options.results={kept}",
        ],
    }  # fmt: skip


def processes(most: int) -> int:
    """How many run side by side."""
    return min(most, os.cpu_count() or 1)


def wheels(args: argparse.Namespace) -> list[str]:
    """Installed beside the image's own packages, which stay as they are."""
    return ["--folder", str(args.carried), "--target", str(args.out / SITE)]


def compiling(*more: str) -> list[str]:
    """The command that compiles every variant."""
    return [
        sys.executable, "-m", "benchmarks.triton_cache", "--compile", "--minutes", "{minutes}",
        "--processes", str(processes(16)), *more,
    ]  # fmt: skip


def pruning(
    args: argparse.Namespace, data: Path, device: str, budget: str, *more: str
) -> list[str]:
    """The command that prunes the searched and trained network of the full search."""
    model = args.out / "full_search" / "train-found" / "V001" / "train"
    return [
        *DARTS, "prune", f"model={model}", "data=parquet", f"data.path={data}", *SHARES,
        f"device={device}", f"prune.budget={budget}", f"out={args.out}", "job=prune",
        "version=V001", *more,
    ]  # fmt: skip


def made_up_images(path: Path) -> Path:
    """A parquet file of random 32x32 PNGs with labels, in the form of the real one."""
    import io

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    if path.is_file():
        return path
    rng = np.random.default_rng(0)
    images, labels = [], []
    for number in range(600):
        label = number % 10
        pixels = rng.integers(0, 120, (32, 32, 3)) + 13 * label
        buffer = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
        images.append({"bytes": buffer.getvalue(), "path": None})
        labels.append(label)
    pq.write_table(pa.table({"img": images, "label": labels}), path)
    return path
