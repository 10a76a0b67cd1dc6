"""A whole search and what its cell is worth: searches over seeds and precisions, then short trainings.

    python -m benchmarks.full_search --data train.parquet --device cuda            # CIFAR-10 (JPEG), GPU
    python -m benchmarks.full_search --data FILE --device cpu --precisions fp32 --seeds 1 --search-epochs 2 \
        --out runs/try

Searches run first, each for the paper's 19,550 steps (63 epochs of 312 steps at batch 64 on 20,000 params
and 20,000 alpha images; 5,000 val, 5,000 test). Then the first search's cell, DARTS_V2 and random cells
are trained under one short recipe and tested once each.

Every part is a `darts-core` command in a run folder of its own. After `--minutes` the running command is
asked to save and stop; the same call goes on from there, and ends with status 0 when nothing is left and
3 when something is. A call with other settings is refused there. The results file is written anew after
every part.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.resumable import UNFINISHED, same_settings
from darts_core.bench.results import command_line, write_results
from darts_core.runlog import read_json, read_jsonl
from darts_core.spaces import get_space

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-c", "from darts_core.cli import main; raise SystemExit(main())"]
# seconds that a command has for its checkpoint after it was asked to stop
GRACE = 40.0
SHARES = ["data.test_fraction=0.1", "data.val_fraction=0.1111111", "data.alpha_fraction=0.5"]


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", required=True, help="parquet file with images and labels")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("runs/full_search"), help="run folders")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--minutes", type=float, default=9.0, help="stop after so many; call again")
    parser.add_argument(
        "--precisions", nargs="+", default=["tf32", "bf16"], choices=("fp32", "tf32", "bf16")
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--random", type=int, default=4, help="random cells to train")
    parser.add_argument("--limit", type=int, default=None, help="images to use; all by default")
    parser.add_argument("--search-epochs", type=int, default=63)
    parser.add_argument("--train-epochs", type=int, default=15)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--layers", type=int, default=8)
    return parser.parse_args()


def parts(args: argparse.Namespace) -> dict[str, list[str]]:
    """Name -> `darts-core` arguments of every part, in order; trainings need the first search's cell."""
    path = Path(args.data).resolve()
    data = [
        "data=parquet",
        f"data.path={path}",
        *SHARES,
        f"device={args.device}",
        f"out={args.out}",
    ]
    if args.limit:
        data.append(f"data.limit={args.limit}")
    size = {"channels": args.channels, "layers": args.layers}
    found: dict[str, list[str]] = {}
    for seed in range(args.seeds):
        for precision in args.precisions:
            # searches of all seeds see the same splits: the seed of the data is the job's
            found[f"search-{precision}-seed{seed}"] = [
                "search", *data, f"seed={seed}", f"search.epochs={args.search_epochs}",
                f"search.kernel_precision={precision}", "search.crop_padding=4", "search.flip=true",
                # the paper takes the alphas' pick
                "search.finalists=1",
                *(f"search.{key}={value}" for key, value in size.items()),
            ]  # fmt: skip
    first = args.out / f"search-{args.precisions[0]}-seed0" / "V001" / "search"
    cells = {"found": str(first / "architecture.yaml"), "DARTS_V2": "DARTS_V2"}
    for number in range(args.random):
        path = args.out / "cells" / f"random{number}.yaml"
        get_space("darts").random(np.random.default_rng(1000 + number)).to_yaml(path)
        cells[f"random{number}"] = str(path)
    for name, cell in cells.items():
        found[f"train-{name}"] = [
            "train", *data, "seed=0", f"architecture={cell}", f"train.epochs={args.train_epochs}",
            "train.crop_padding=4", "train.flip=true", "train.cutout=16", "train.drop_path=0.1",
            *(f"train.{key}={value}" for key, value in size.items()),
        ]  # fmt: skip
    return found


def stage_folder(args: argparse.Namespace, name: str) -> Path:
    """Where a part's stage leaves its files."""
    return Path(args.out / name / "V001" / name.split("-")[0])


def run_part(args: argparse.Namespace, name: str, words: list[str], until: float) -> bool:
    """Run or go on with one part; False when time was up before its end."""
    process = subprocess.Popen([*COMMAND, *words, f"job={name}", "version=V001"], cwd=ROOT)
    try:
        status = process.wait(max(1.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            # a long measurement between two steps: the last checkpoint stands
            process.kill()
            process.wait()
        return (stage_folder(args, name) / "result.json").is_file()
    if status:
        raise SystemExit(f"{name} ended with status {status}")
    return True


def go_on(
    args: argparse.Namespace,
    commands: dict[str, list[str]],
    row: Callable[[Path, str], dict[str, Any]],
) -> tuple[list[dict[str, Any]], list[str]]:
    """Run what is missing until time is up: (a row of each finished part, names of the others).

    Raises:
        SystemExit: a part was run here with other settings, or failed.
    """
    until = time.monotonic() + 60 * args.minutes
    rows: list[dict[str, Any]] = []
    left: list[str] = []
    for name, words in commands.items():
        folder = stage_folder(args, name)
        done = (folder / "result.json").is_file()
        told = {name: _told(args, words)}
        if folder.is_dir():
            same_settings(args.out, told)
        if not done and not left and time.monotonic() < until:
            done = run_part(args, name, words, until)
            # not before: a part that could not begin, as its data is not there, binds nothing
            same_settings(args.out, told)
        if done:
            rows.append(row(folder, name))
        else:
            left.append(name)
    return rows, left


def _told(args: argparse.Namespace, words: list[str]) -> list[str]:
    """The words of a part without the places of this machine: its state may go on on another."""
    found = []
    for word in words:
        key, _, value = word.partition("=")
        value = Path(value).name if key == "data.path" else value.replace(str(args.out), "OUT")
        if key != "out":
            found.append(f"{key}={value}" if "=" in word else word)
    return found


def row_of(folder: Path, name: str) -> dict[str, Any]:
    """One finished part's figures."""
    result = read_json(folder / "result.json")
    row = {"name": name, "device_seconds": result["device_seconds"], "steps": result["steps"]}
    if name.startswith("search"):
        history = read_jsonl(folder / "metrics.jsonl")
        row |= {key: result[key] for key in ("text", "val_accuracy", "guards", "stopped", "seed")}
        row |= {
            "peak_mib": result["peak_mib"],
            "ms_per_step": 1e3 * result["device_seconds"] / result["steps"],
            "val_accuracies": [line.get("val_accuracy") for line in history],
            "alphas": [line["alphas"] for line in history],
        }
        return row
    keys = ("val_accuracy", "test_accuracy", "params", "macs", "epochs", "seed")
    return row | {key: result[key] for key in keys}


def main() -> None:
    """Run what is missing until time is up, and write what is there."""
    args = options()
    args.out = args.out.resolve()
    rows, left = go_on(args, parts(args), row_of)
    if rows:
        path = write_results(
            "full-search",
            rows,
            device=device_name(args.device),
            folder=args.results,
            command=command_line(),
            notes={"data": f"{Path(args.data).name}, limit {args.limit}", "left": left},
            name=args.out.name,
        )
        print(path)
    for row in rows:
        accuracy = row.get("test_accuracy", row["val_accuracy"])
        print(f"{row['name']:24s} {row['device_seconds']:8.1f} s  accuracy {accuracy:.4f}")
    if left:
        print(f"{len(left)} parts left ({', '.join(left)}): run the same command again")
        raise SystemExit(UNFINISHED)


def device_name(device: str) -> str:
    """The hardware in words."""
    from darts_core.device import require_device
    from darts_core.latency.device import device_name as named

    return named(require_device(device))


if __name__ == "__main__":
    main()
