"""Early stopping of a study with two objectives against its full trials, paired over seeds.

    python -m benchmarks.sweep_front --seeds 10
    python -m benchmarks.sweep_front --trials 60 --cost-share 0.2 --first-seed 10 --runs runs/sweep_front_60

A trial trains a perceptron with one hidden layer on real digits (8x8, split `params`); its width, learning
rate, weight decay, label smoothing and batch size are drawn at random (`--sampler` for another one, whose
points follow from what each study has seen), and both the validation accuracy and the number of parameters
are objectives. Per seed three studies:

* full: every trial to its end;
* stopped: the same trials under ASHA by non-dominated rank and hypervolume contribution;
* fewer: as many of the first trials, to their end, as the stopped study's epochs pay for.

Reported: the share of the full study's hypervolume that the fronts of the other two have, with the nadir
of the full front (its worst value in each objective) as the reference point, and the share of its epochs.
The split `test` is not read. Studies lie in `--runs` and go on where they were cut off; with other settings
they are refused there.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.resumable import same_settings
from darts_core.bench.results import command_line, write_results
from darts_core.data import DataBundle, load_data
from darts_core.runlog import read_json, write_json
from darts_core.study import StudyResult, TrialHandle, TrialRecord, run_study
from darts_core.study.hypervolume import hypervolume
from darts_core.study.pareto import pareto_mask, signs
from darts_core.train import TrainConfig, fit

OBJECTIVES = {"val_accuracy": "maximize", "params": "minimize"}
SPACE = {
    "width": {"low": 2, "high": 128, "log": True},
    "learning_rate": {"low": 1e-3, "high": 1.0, "log": True},
    "weight_decay": {"low": 1e-6, "high": 1e-1, "log": True},
    "label_smoothing": {"low": 0.0, "high": 0.4},
    "batch_size": {"choices": [32, 64, 128]},
}


@lru_cache(maxsize=1)
def _bundle(limit: int) -> DataBundle:
    bundle = load_data("digits", seed=0, val_fraction=0.4)
    return bundle.take("params", min(limit, bundle.size("params")))


@dataclass(frozen=True)
class Training:
    """One trial; the network's start and the order of the data are the same for all of a seed."""

    epochs: int
    limit: int
    seed: int

    def __call__(self, trial: TrialHandle) -> dict[str, Any]:
        """Both objectives, reported after each epoch."""
        torch.set_num_threads(1)
        settings = {name: value for name, value in trial.params.items() if name != "width"}
        config = TrainConfig(
            epochs=self.epochs, drop_path=0.0, cutout=0, crop_padding=0, flip=False, **settings
        )
        bundle, width = _bundle(self.limit), int(trial.params["width"])
        torch.manual_seed(self.seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
        params = float(sum(p.numel() for p in model.parameters()))

        def report(epoch: int, row: dict[str, Any]) -> None:
            trial.report(epoch, val_accuracy=100 * row["val_accuracy"], params=params)

        fitted = fit(
            model, bundle, config, train_on=("params",), seed=self.seed,
            checkpoint=trial.folder / "checkpoint.pt", on_epoch=report,
        )  # fmt: skip
        return {"val_accuracy": 100 * (fitted.val or 0.0), "params": params}


def study(folder: Path, objective: Training, pruner: Any, args: argparse.Namespace) -> StudyResult:
    """One study of a seed; the same call again goes on."""
    return run_study(
        objective, SPACE, folder=folder, trials=args.trials, pruner=pruner, seed=objective.seed,
        sampler=args.sampler, objectives=OBJECTIVES, epochs_per_trial=objective.epochs,
    )  # fmt: skip


def costs(trials: Sequence[TrialRecord]) -> np.ndarray:
    """The objectives of the complete trials as costs: [trials, 2]."""
    values = np.array([trial.values for trial in trials if trial.state == "complete"])
    return values.reshape(-1, len(OBJECTIVES)) * signs(list(OBJECTIVES.values()))


def seed_row(seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """The figures of one seed."""
    kept = args.runs / f"seed{seed}" / "row.json"
    if kept.is_file():
        return dict(read_json(kept))
    objective = Training(args.epochs, args.limit, seed)
    pruner: dict[str, Any] = {"name": "asha", "cost_share": args.cost_share}
    stopped = study(kept.parent / "stopped", objective, pruner, args)
    full = study(kept.parent / "full", objective, "none", args)
    paid = int(stopped.spent["epochs"]) // args.epochs
    front = costs(full.trials)
    front = front[pareto_mask(front)]
    nadir = front.max(axis=0)
    whole = hypervolume(front, nadir)

    def share(trials: Sequence[TrialRecord]) -> float | None:
        return round(hypervolume(costs(trials), nadir) / whole, 4) if whole else None

    row = {
        "name": f"seed {seed}",
        "front": [[round(-a, 3), int(p)] for a, p in front[np.argsort(front[:, 1])].tolist()],
        "hypervolume_share_stopped": share(stopped.trials),
        "hypervolume_share_fewer": share(full.trials[:paid]),
        "epochs_share": round(stopped.spent["epochs"] / full.spent["epochs"], 4),
        "complete_stopped": len(costs(stopped.trials)),
        "complete_fewer": paid,
        "epochs_full": int(full.spent["epochs"]),
    }
    write_json(kept, row)
    return row


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean, standard error (None of a single seed) and worst of each share."""
    found: dict[str, Any] = {"name": "mean", "seeds": len(rows)}
    for key in ("hypervolume_share_stopped", "hypervolume_share_fewer", "epochs_share"):
        values = [row[key] for row in rows if row[key] is not None]
        error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
        found |= {
            key: round(statistics.fmean(values), 4),
            f"{key}_standard_error": None if error is None else round(error, 4),
            f"{key}_least": min(values),
        }
    return found


def main() -> None:
    """Run all seeds, print and store the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=400, help="training images")
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--cost-share", type=float, default=0.25, help="of ASHA; its default")
    parser.add_argument("--runs", type=Path, default=Path("runs/sweep_front"))
    parser.add_argument("--out", default="benchmarks/results")
    args = parser.parse_args()
    kept = ("trials", "epochs", "limit", "sampler", "cost_share")
    same_settings(args.runs, {name: getattr(args, name) for name in kept})
    rows = []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        rows.append(seed_row(seed, args))
        print(rows[-1], flush=True)
    rows.append(summary(rows))
    print(rows[-1])
    bundle = _bundle(args.limit)
    notes = {
        **{key: str(value) for key, value in vars(args).items() if key not in ("out", "runs")},
        "training_images": bundle.size("params"),
        "validation_images": bundle.size("val"),
        "objectives": OBJECTIVES,
    }
    command = command_line(without=("--out", "--runs"))
    print(write_results("sweep-front", rows, folder=args.out, command=command, notes=notes))


if __name__ == "__main__":
    main()
