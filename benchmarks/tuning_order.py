"""Is tuning better spent before or after pruning? ResNet-8 on digits, pruned to half of its time, both ways.

    OMP_NUM_THREADS=1 python -m benchmarks.tuning_order       # goes on where it was killed

`tune, prune`: tuned, trained under the best settings, pruned, fine-tuned. `prune, tune`: trained as
configured, pruned, tuned and trained on from the pruned params. `prune, tune anew`: the same with params
drawn anew, so that the pruned network is only a set of widths. All are the real commands, over the same
space, trials and epochs, on folds and seeds of their own; every way ends with a network of the same budget.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.demo_folds import write_fold
from benchmarks.demo_judge import paired
from darts_core import cli
from darts_core.bench.results import write_results
from darts_core.latency import device_name
from darts_core.runlog import read_json, read_yaml, write_json
from darts_core.train import load_model, save_model

_FOLD_SEED, _SEED = 43, 500
WAYS = ("tune, prune", "prune, tune", "prune, tune anew")
RECIPE = {"epochs": 20, "channels": 16, "batch_size": 64, "learning_rate": 0.08, "weight_decay": 1e-3,
          "drop_path": 0.0}  # fmt: skip
TUNE = ["tune.trials=4", "tune.pruner={name: asha, min_resource: 5}", "~tune.space.drop_path"]
PRUNE = ["prune.budget=50%", "prune.epochs=6", "prune.options.seconds=0.2"]


def command(name: str, *words: str) -> None:
    """A command that must end well."""
    if cli.main([name, *words]):
        raise SystemExit(f"{name} {' '.join(words)} failed")


def anew(pruned: Path, path: Path, seed: int) -> Path:
    """The network of `pruned` with params as a fresh one's, saved."""
    torch.manual_seed(seed)
    model, meta = load_model(pruned)
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if isinstance(module, nn.Module) and callable(reset):
            reset()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(path, model, meta)
    return path


def followed(way: str, seed: int, runs: Path) -> dict[str, Any]:
    """The last network's figures."""
    job = f"{way.replace(', ', '-').replace(' ', '-')}-{seed}"
    version = runs / job / "V001"
    data = write_fold(seed, runs / "data", _FOLD_SEED).resolve()
    shared = ["data=npz", f"data.path={data}", f"seed={_SEED + seed}", "device=cpu", f"job={job}",
              f"out={runs}"]  # fmt: skip
    given = [*shared, "version=V001", *(f"train.{key}={value}" for key, value in RECIPE.items())]

    def best() -> list[str]:
        found = read_yaml(version / "tune" / "best.yaml")["params"]
        return [*given, *(f"train.{key}={value}" for key, value in found.items())]

    if way == "tune, prune":
        command("tune", *given, "architecture=resnet8", *TUNE)
        command("train", *best(), "architecture=resnet8")
        command("prune", *best(), *PRUNE)
        return dict(read_json(version / "prune" / "result.json"))
    base = runs / f"base-{seed}" / "V001"
    whole = [word for word in given if not word.startswith("job=")]
    command("train", *whole, f"job=base-{seed}", "architecture=resnet8")
    command("prune", *whole, f"job=base-{seed}", *PRUNE)
    model = base / "prune" / "model.pt"
    if way == "prune, tune anew":
        model = anew(model, runs / f"base-{seed}" / "anew" / "model.pt", _SEED + seed)
    command("tune", *given, f"model={model}", *TUNE)
    command("train", *best(), f"model={model}")
    return dict(read_json(version / "train" / "result.json"))


def judge(way: str, seed: int, runs: Path) -> dict[str, Any]:
    """The row of a way and a seed; read where it is known."""
    path = runs / f"{WAYS.index(way)}-{seed}.json"
    if not path.is_file():
        found = followed(way, seed, runs)
        kept = ("val_accuracy", "test_accuracy", "params", "macs")
        write_json(path, {"way": way, "seed": _SEED + seed, **{key: found[key] for key in kept}})
        print(f"{way} {seed}: {found['test_accuracy']:.4f}", flush=True)
    return dict(read_json(path))


def main() -> None:
    """Run what is missing, write the results file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--note", default="", help="of the machine's state, for the results file")
    parser.add_argument("--runs", type=Path, default=Path("runs/tuning_order"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    rows = [judge(way, seed, args.runs) for seed in args.seeds for way in WAYS]
    table = []
    first = np.array([row["test_accuracy"] for row in rows if row["way"] == WAYS[0]])
    for way in WAYS:
        own = np.array([row["test_accuracy"] for row in rows if row["way"] == way])
        more, error = paired(own, first)
        table.append({"way": way, "n": len(own), "test_accuracy": float(100 * own.mean()),
                      "more_than_the_first": more, "paired_standard_error": error})  # fmt: skip
        print(f"{way:18s} {100 * own.mean():6.2f} %  {more:+.2f} ± {error:.2f}")
    print(write_results(
        "tuning-order", [*table, *rows], device=device_name(torch.device("cpu")), folder=args.out,
        notes={"recipe": RECIPE, "tune": TUNE, "prune": PRUNE, "state_of_the_machine": args.note},
    ))  # fmt: skip


if __name__ == "__main__":
    main()
