"""Early stopping against full trials: the same study with ASHA and without, paired over seeds.

    python benchmarks/sweep_asha.py --trials 30 --epochs 30 --seeds 5
    python benchmarks/sweep_asha.py --data fashion_mnist --limit 4000

A trial trains a small network (a perceptron with one hidden layer, or `--network resnet8`) on real
digits (8x8) or another data set (split `params`); learning rate, weight decay, label smoothing and
batch size are tuned.
Reported per seed: the best validation accuracy and the epochs used, both ways; over seeds: mean
difference with its standard error, and the share of the cost. The split `test` is not read.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from darts_core.bench.results import command_line, write_results
from darts_core.data import DataBundle, load_data
from darts_core.study import TrialHandle, run_study
from darts_core.train import TrainConfig, baseline, fit

SPACE = {
    "learning_rate": {"low": 1e-4, "high": 1.0, "log": True},
    "weight_decay": {"low": 1e-6, "high": 1e-1, "log": True},
    "label_smoothing": {"low": 0.0, "high": 0.4},
    "batch_size": {"choices": [32, 64, 128]},
}


@lru_cache(maxsize=2)
def _bundle(data: str, path: str | None, limit: int, val_fraction: float) -> DataBundle:
    bundle = load_data(data, path, seed=0, val_fraction=val_fraction)
    return bundle.take("params", min(limit, bundle.size("params")))


def _network(name: str, width: int, bundle: DataBundle) -> nn.Module:
    channels, classes = bundle.image_shape[0], bundle.num_classes
    if name == "mlp":
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(bundle.image_shape), width),
            nn.ReLU(),
            nn.Linear(width, classes),
        )
    return baseline(name, classes, in_channels=channels, width=width)


@dataclass(frozen=True)
class Training:
    """One trial; the network's start and the order of the data are the same for all of a seed."""

    epochs: int
    limit: int
    network: str
    width: int
    seed: int
    val_fraction: float = 0.15
    data: str = "digits"
    data_path: str | None = None
    reuse_process: bool = True

    def __call__(self, trial: TrialHandle) -> dict[str, Any]:
        """The validation accuracy in percent, reported after each epoch."""
        torch.set_num_threads(1)
        config = TrainConfig(
            epochs=self.epochs, drop_path=0.0, cutout=0, crop_padding=0, flip=False, **trial.params
        )
        bundle = _bundle(self.data, self.data_path, self.limit, self.val_fraction)
        torch.manual_seed(self.seed)
        model = _network(self.network, self.width, bundle)

        def report(epoch: int, row: dict[str, Any]) -> None:
            trial.report(epoch, val_accuracy=100 * row["val_accuracy"])

        fitted = fit(
            model,
            bundle,
            config,
            train_on=("params",),
            seed=self.seed,
            checkpoint=trial.folder / "checkpoint.pt",
            on_epoch=report,
        )
        return {"val_accuracy": 100 * (fitted.val or 0.0)}


def study(objective: Training, pruner: Any, trials: int) -> tuple[float, int]:
    """(best validation accuracy in percent, epochs used) of one study."""
    with tempfile.TemporaryDirectory() as folder:
        found = run_study(
            objective, SPACE, folder=folder, trials=trials, pruner=pruner, seed=objective.seed,
            epochs_per_trial=objective.epochs,
        )  # fmt: skip
    return found.best_value, int(found.spent["epochs"])


def mean_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The row of the means over seeds; of a single one there is no standard error."""
    differences = [row["difference"] for row in rows]
    count = len(differences)
    error = statistics.stdev(differences) / math.sqrt(count) if count > 1 else None
    return {
        "name": "mean",
        "difference": round(statistics.fmean(differences), 3),
        "standard_error": None if error is None else round(error, 3),
        "cost_share": round(statistics.fmean(row["cost_share"] for row in rows), 3),
    }


def main() -> None:
    """Run all pairs, print and store the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-path", default=None, help="its files")
    parser.add_argument("--limit", type=int, default=500, help="training images")
    parser.add_argument(
        "--val-fraction", type=float, default=0.15, help="of the non-test images; the score's grain"
    )
    parser.add_argument("--network", default="mlp", help="mlp, or a hand-designed network's name")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--reduction-factor", type=int, default=None, help="of ASHA; its default")
    parser.add_argument("--out", default="benchmarks/results")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    pruner: Any = "asha"
    if args.reduction_factor is not None:
        pruner = {"name": "asha", "reduction_factor": args.reduction_factor}
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        objective = Training(
            args.epochs, args.limit, args.network, args.width, seed, args.val_fraction,
            args.data, args.data_path,
        )  # fmt: skip
        asha, asha_epochs = study(objective, pruner, args.trials)
        full, full_epochs = study(objective, "none", args.trials)
        rows.append(
            {
                "name": f"seed {seed}",
                "asha_best_percent": round(asha, 3),
                "full_best_percent": round(full, 3),
                "difference": round(asha - full, 3),
                "asha_epochs": asha_epochs,
                "full_epochs": full_epochs,
                "cost_share": round(asha_epochs / full_epochs, 3),
            }
        )
        print(rows[-1], flush=True)
    rows.append(mean_of(rows))
    print(rows[-1])
    bundle = _bundle(args.data, args.data_path, args.limit, args.val_fraction)
    notes = {
        **{key: value for key, value in vars(args).items() if key != "out"},
        "training_images": bundle.size("params"),
        "validation_images": bundle.size("val"),
    }
    command = command_line(without=("--out",))
    print(write_results("sweep-asha", rows, folder=args.out, command=command, notes=notes))


if __name__ == "__main__":
    main()
