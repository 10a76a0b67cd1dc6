"""Exported networks on a CPU against eager and torch.compile (default and best mode), at batch 1 and 32.

    python -m benchmarks.export_cpu prepare          # writes the files, warms compilers: no quiet machine
    python -m benchmarks.export_cpu time write       # needs a quiet machine, a few minutes

DARTS_V2 and ResNet-18 as published, and a NAS-Bench-201 network, on 3x32x32 images, with running
statistics away from their start. Every file is verified against eager when it is written; INT8 and
bf16 need a bundle of images, here random ones that the network itself has named. Each row is kept in
`--runs`; rows that were measured under foreign load are measured again.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.export_gpu import network
from darts_core.architecture import Architecture
from darts_core.bench.results import write_results
from darts_core.bench.runtimes import available_runtimes, prepare
from darts_core.bench.timed import time_models
from darts_core.errors import DartsError
from darts_core.export import FORMATS, export_model, load, tune_chunks
from darts_core.runlog import read_json, write_json, write_text
from darts_core.supernet import build
from darts_core.tasks import Classification

SHAPE = (3, 32, 32)
# 3x3 convolutions on most edges; N=5, C=16: the 17-cell form of the benchmark
_NB201 = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
    "+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
)
COMPILED = ("compile", "compile_max")
"""torch.compile by default, and with max-autotune and frozen parameters; the rival is the faster one."""
MODELS = ("DARTS_V2", "nasbench201", "resnet18")
RIVALS = ("eager", "channels_last", "compile")
RUNTIMES = (
    "eager", "channels_last", *COMPILED, "pt2", "aoti", "onnx", "openvino", "openvino_bf16", "onnx_int8",
)  # fmt: skip


def make(name: str) -> nn.Module:
    """The network in eval mode; the same one in every process."""
    if name != "nasbench201":
        return network(name, False)
    torch.manual_seed(0)
    model = build(Architecture.from_text(_NB201), channels=16, layers=5)
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.randn(16, *SHAPE))
    return model.eval()


class RandomImages:
    """Images drawn at random, labelled by the network itself: a bundle for calibration and checks."""

    name = "random"
    image_shape = SHAPE
    class_names = tuple(str(k) for k in range(10))
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    device = torch.device("cpu")

    def __init__(self, model: nn.Module, count: int = 512) -> None:
        generator = torch.Generator().manual_seed(7)
        self.x = torch.randn(count, *SHAPE, generator=generator)
        with torch.inference_mode():
            self.y = torch.cat([model(part).argmax(1) for part in self.x.split(64)])
        self.task = Classification().fitted(self.y.numpy(), self.class_names)

    def size(self, _: str) -> int:
        """Images of a split."""
        return len(self.y)

    def batches(
        self, split: str, size: int, **_: Any
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The images in order: the first half to calibrate on, the second to check."""
        half = len(self.y) // 2
        part = slice(0, half) if split == "params" else slice(half, None)
        yield from zip(self.x[part].split(size), self.y[part].split(size), strict=True)


def prepare_model(name: str, runs: Path, runtimes: list[str]) -> None:
    """Write every file of one model that is not there yet."""
    model = make(name)
    bundle = RandomImages(model)
    for mode in set(COMPILED) & set(runtimes):
        if (runs / name / f"{mode}d").is_file():
            continue
        warm = prepare(model, mode, device=torch.device("cpu"), bundle=None, folder=runs)
        for batch in (1, 32):
            warm.call(torch.randn(batch, *SHAPE))
        (runs / name).mkdir(parents=True, exist_ok=True)
        (runs / name / f"{mode}d").touch()
    for runtime in runtimes:
        folder = runs / name / runtime
        if runtime not in FORMATS or (folder / "manifest.json").is_file():
            continue
        try:
            export_model(
                model, folder, bundle, formats=(runtime,), time_artifacts=False, channels_last=True,
                allow_accuracy_loss=True,
            )  # fmt: skip
        except DartsError as error:
            print(f"{name} {runtime}: left out, {error}", flush=True)


def time_row(name: str, runtime: str, runs: Path, seconds: float) -> dict[str, Any]:
    """Times of one model in one runtime, in this process."""
    device = torch.device("cpu")
    facts: dict[str, Any] = {}
    if runtime in FORMATS:
        from darts_core.bench.runtimes import Prepared
        from darts_core.export import read_manifest

        tune_chunks(runs / name / runtime)
        found = read_manifest(runs / name / runtime)["artifacts"][runtime]
        kept = ("precision", "relative_error", "val_agreement", "chunk")
        facts = {key: found.get(key) for key in kept}
        loaded = load(runs / name / runtime, runtime, trust=True)
        ready = Prepared(loaded, runtime, facts["precision"])
    else:
        ready = prepare(make(name), runtime, device=device, bundle=None, folder=runs)
    rows = time_models([(ready, SHAPE)], device=device, seconds=seconds)[0]
    return {
        "model": name, "runtime": runtime, "precision": ready.precision, **facts,
        "latency": {str(batch): vars(row) for batch, row in rows.items()},
    }  # fmt: skip


def in_fresh_process(name: str, runtime: str, args: argparse.Namespace) -> None:
    """One row, measured in a process of its own and kept."""
    path = args.runs / "rows" / f"{name}-{runtime}.json"
    if path.is_file() and not _flagged(read_json(path)):
        return
    if runtime in FORMATS and not (args.runs / name / runtime / "manifest.json").is_file():
        return
    command = [
        sys.executable, "-m", "benchmarks.export_cpu", "row", "--models", name, "--runtimes", runtime,
        "--runs", str(args.runs), "--seconds", str(args.seconds),
    ]  # fmt: skip
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=dict(os.environ),
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        print(f"{name} {runtime}: {(done.stderr.strip().splitlines() or ['?'])[-1]}", flush=True)
        return
    row = json.loads(done.stdout.strip().splitlines()[-1])
    write_json(path, row)
    times = ", ".join(f"batch {b}: {t['median_ms']:.2f} ms" for b, t in row["latency"].items())
    print(f"{name} {runtime}: {times}{' FLAGGED' if _flagged(row) else ''}", flush=True)


def _flagged(row: Any) -> bool:
    return any(time["flagged"] for time in row["latency"].values())


def write(args: argparse.Namespace) -> Path:
    """The results file, with each row's speed-up against eager and the faster mode of torch.compile."""
    rows = []
    for name in args.models:
        known = {
            runtime: read_json(path)
            for runtime in args.runtimes
            if (path := args.runs / "rows" / f"{name}-{runtime}.json").is_file()
        }
        for row in known.values():
            for rival in RIVALS:
                modes = COMPILED if rival == "compile" else (rival,)
                rows_of = [known[mode]["latency"] for mode in modes if mode in known]
                if rows_of:
                    row[f"speedup_vs_{rival}"] = {
                        batch: min(times[batch]["median_ms"] for times in rows_of)
                        / time["median_ms"]
                        for batch, time in row["latency"].items()
                    }
            rows.append(row)
    device = next(iter(rows[0]["latency"].values()))["device"]
    path = write_results(
        "export", rows, device=device, folder=args.out,
        command="python -m benchmarks.export_cpu prepare time write",
        notes={
            "networks": "DARTS_V2 C=36 L=20, ResNet-18 of width 64, NAS-Bench-201 C=16 N=5; 3x32x32",
            "val_agreement": "top class against eager on 256 random images, which an untrained network "
            "separates by little; speedup_vs_compile is against the faster one of torch.compile's default "
            "mode and its best (max_autotune, freezing); bf16 and INT8 files are written here whatever they "
            "lose",
        },
    )  # fmt: skip
    write_text(path.with_suffix(".md"), _table(rows))
    return path


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Medians with 5 and 95 % quantiles, and the speed-ups."""
    lines = [
        "| network | runtime | ms, batch 1 | ms, batch 32 | vs eager | vs channels-last "
        "| vs the faster torch.compile |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = [row["model"], row["runtime"]]
        for time in row["latency"].values():
            cells.append(f"{time['median_ms']:.2f} ({time['q05_ms']:.2f}-{time['q95_ms']:.2f})")
        for rival in RIVALS:
            found = row.get(f"speedup_vs_{rival}", {})
            cells.append(" / ".join(f"{value:.2f}x" for value in found.values()))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the steps that are named."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("steps", nargs="+", choices=("prepare", "time", "write", "row"))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES), choices=RUNTIMES)
    parser.add_argument("--runs", type=Path, default=Path("runs/export_cpu"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--seconds", type=float, default=4.0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    possible = available_runtimes(torch.device("cpu"))
    lacking = [name for name in args.runtimes if name not in possible]
    if lacking:
        print(f"left out, as they cannot run here: {', '.join(lacking)}", file=sys.stderr)
    args.runtimes = [name for name in args.runtimes if name in possible]
    if args.steps == ["row"]:
        print(json.dumps(time_row(args.models[0], args.runtimes[0], args.runs, args.seconds)))
        return
    for name in args.models:
        if "prepare" in args.steps:
            prepare_model(name, args.runs, args.runtimes)
        if "time" in args.steps:
            for runtime in args.runtimes:
                in_fresh_process(name, runtime, args)
    if "write" in args.steps:
        print(write(args))


if __name__ == "__main__":
    main()
