"""Everything that needs a GPU, in order, behind one command; call it until it says that nothing is left.

    python -m benchmarks.on_gpu --data train.parquet     # CIFAR-10 as parquet
    python -m benchmarks.on_gpu --rehearse               # the same list in toy size on the CPU

| job | command | what for |
|---|---|---|
| wheels | benchmarks.gpu_wheels --install | packages that the image lacks, from wheels/ (`make gpu-wheels`) |
| compile | benchmarks.triton_cache --compile | binaries of all steps, in many processes, without the device |
| cells | pytest -m gpu, whole cells and nets | whether what follows is worth measuring |
| step | benchmarks/gpu_step.py --tune | tiles; the step on every path; every kernel against its floor |
| search | benchmarks/full_search.py | the paper's search, tf32 and bf16, 3 seeds; then short trainings |
| export | benchmarks/export_gpu.py | the fused export path against plain graphs |
| tests | pytest -m gpu | all kernels, strategies, checkpoints, artifacts |
| sanitizer | compute-sanitizer | the small bodies, where the tool is there and the host allows it |
| latency-* | darts-core latency check | rank correlation of the latency table, 200 random networks |
| prune | darts-core prune | the trained cell to half its measured latency |
| models | darts-core bench -m experiment=models_gpu | accuracy against latency |

The most valuable come first, and each says what it will cost: the minutes that it took so far, and how many
calls of nine minutes it is thought to take. Binaries that an earlier call compiled are found again
(`FOLDER/triton-cache.tar.xz`, `benchmarks.triton_cache`).

A job runs until it is done or `--minutes` are over; it is then asked to save and stop, and the next call
goes on there. `FOLDER/jobs.json` says which are done; a failed one is tried again in the next call, after
the others. Status 0: all done; 3: call again; 1: something failed and nothing else is left.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import triton_cache
from benchmarks.full_search import SHARES, UNFINISHED
from benchmarks.resumable_tests import LEFT

ROOT = Path(__file__).resolve().parent.parent
DARTS = [sys.executable, "-c", "from darts_core.cli import main; raise SystemExit(main())"]
GRACE = 60.0
"""Seconds that a job has to save after it was asked to stop."""
CELLS = "darts_cell_on_the_gpu or whole_net"
"""Tests of whole cells and networks."""
CALLS = {
    "compile": 1,
    "cells": 1,
    "step": 2,
    "search": 10,
    "export": 1,
    "tests": 4,
    "latency": 1,
    "models": 10,
}
"""Calls of nine minutes that a job is thought to take: estimated, until one has been counted."""
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
        tests += ["-n", "4"]
    minutes = ["--minutes", "{minutes}"]
    found = {
        "wheels": [python, "-m", "benchmarks.gpu_wheels", "--install"],
        "doctor": [*DARTS, "doctor"],
        "compile": compiling(),
        "cells": [python, *tests, *minutes, "-m", "gpu", "-k", CELLS, "tests/kernels", "tests/gpu"],
        "step": [python, "benchmarks/gpu_step.py", "--tune", "--out", f"{out}/step", *minutes],
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
            "-q", "-m", "gpu", "-k", "cuda", *(f"tests/kernels/test_{name}.py" for name in small),
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
    return {
        "wheels": [python, "-m", "benchmarks.gpu_wheels", "--install", "--dry-run"],
        "doctor": [*DARTS, "doctor"],
        "cells": [
            python, *tests, "--minutes", "{minutes}", "-m", "not gpu", "-k", "first_order",
            "tests/gpu",
        ],
        "tests": [
            python, *tests, "--minutes", "{minutes}", "-m", "not gpu",
            "-k", "first_order or softmax or wait or exported or fresh", "tests/gpu",
        ],
        "step": [
            python, "benchmarks/gpu_step.py", "--tune", "--rehearse", "--out", f"{out}/step",
            "--minutes", "{minutes}",
        ],
        "export": [
            python, "-m", "benchmarks.export_gpu", "--rehearse", "--out", kept, "--seconds", "0.05",
            "--batches", "1", "4",
        ],
        "latency-darts-1": [
            *DARTS, "latency", "check", "space=darts", "device=cpu", *toy, "batch=1", "count=8",
            "seconds=0.01", f"out={out}",
        ],
        "search": [
            python, "-m", "benchmarks.full_search", "--data", str(data), "--device", "cpu",
            "--out", f"{out}/full_search", "--results", kept, "--minutes", "{minutes}", *small,
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
        "compile": compiling(),
    }  # fmt: skip


def compiling() -> list[str]:
    """The command that compiles every variant; the rehearsal's is the same, but the last of all."""
    return [
        sys.executable, "-m", "benchmarks.triton_cache", "--compile", "--minutes", "{minutes}",
        "--processes", str(min(8, os.cpu_count() or 1)),
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


def run(command: Sequence[str], until: float) -> int:
    """Exit status of a job; UNFINISHED where it was stopped in time."""
    minutes = max(0.1, (until - time.monotonic()) / 60)
    words = [word.replace("{minutes}", f"{minutes:.2f}") for word in command]
    process = subprocess.Popen(words, cwd=ROOT)
    try:
        return process.wait(max(1.0, until - time.monotonic() + 5))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return UNFINISHED


def cost(name: str, minutes: Sequence[float], until: float) -> str:
    """What a job has cost, may cost now, and is thought to cost."""
    left = max(0.0, (until - time.monotonic()) / 60)
    words = [f"at most {left:.1f} minutes of this call"]
    if minutes:
        words.append(f"{sum(minutes):.1f} so far in {len(minutes)}")
    calls = CALLS.get(name.split("-")[0])
    if calls:
        words.append(f"about {calls} in all (estimated)")
    return ", ".join(words)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def main() -> int:
    """Go on with the jobs; the exit status says whether to call again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, help="parquet file with images and labels")
    parser.add_argument("--out", type=Path, default=Path("runs/on_gpu"))
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--minutes", type=float, default=9.0, help="stop after so many; call again")
    parser.add_argument("--only", nargs="+", help="these jobs alone")
    parser.add_argument("--rehearse", action="store_true", help="toy size on the CPU")
    args = parser.parse_args()
    args.out = args.out.resolve()
    args.data = args.data.resolve() if args.data is not None else None
    args.out.mkdir(parents=True, exist_ok=True)
    record = args.out / "jobs.json"
    status = _read(record)
    until = time.monotonic() + 60 * args.minutes
    known = jobs(args)
    costs = _read(args.out / "minutes.json")
    cache = args.out / "triton-cache.tar.xz"
    if cache.is_file():
        print(
            f"{triton_cache.unpack(cache, triton_cache.cache_folder())} binaries of earlier calls"
        )
    wanted = [name for name in known if args.only is None or name in args.only]
    if args.only and set(args.only) - set(known):
        parser.error(f"unknown jobs {sorted(set(args.only) - set(known))}; there are {list(known)}")
    # what failed comes last: it may wait for what the others leave
    for name in sorted(wanted, key=lambda name: "failed" in status.get(name, "")):
        if status.get(name) == "done" or time.monotonic() > until - 5:
            continue
        print(f"== {name}: {cost(name, costs.get(name, []), until)}", flush=True)
        begun = time.monotonic()
        code = run(known[name], until)
        costs.setdefault(name, []).append(round((time.monotonic() - begun) / 60, 2))
        (args.out / "minutes.json").write_text(json.dumps(costs), encoding="utf-8")
        status[name] = {0: "done", UNFINISHED: "begun", LEFT: "begun"}.get(code, f"failed ({code})")
        record.write_text(json.dumps(status, indent=1), encoding="utf-8")
        if status[name] == "begun":
            break
    if triton_cache.cache_folder().is_dir():
        triton_cache.pack(triton_cache.cache_folder(), cache)
    for name in wanted:
        print(f"{name:24s} {status.get(name, 'not begun')}")
    left = [name for name in wanted if status.get(name) != "done"]
    failed = [name for name in left if "failed" in status.get(name, "")]
    if not left:
        print("nothing is left")
        return 0
    if failed == left:
        return 1
    print("call again")
    return UNFINISHED


if __name__ == "__main__":
    raise SystemExit(main())
