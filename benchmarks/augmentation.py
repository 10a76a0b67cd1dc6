"""Accuracy of augmentation policies, found and published, on few training images; paired over seeds.

    python benchmarks/augmentation.py --data fashion_mnist --limit 4000 --epochs 40 --seeds 5

For each seed the same small residual network is trained from the same start: with no policy, with
RandAugment and TrivialAugment, and with the policies that the gradient and the density search find.
A search sees the splits `params` and `alpha` only and may cost `--trainings` trainings; the figure
is the accuracy on the test split. Its cost, the gain over no policy and its standard error stand
in the results file.
"""

from __future__ import annotations

import argparse
import logging
import math
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from darts_core.augment import policy_to_yaml
from darts_core.bench.results import write_results
from darts_core.data import DataBundle, load_data
from darts_core.train.baselines import resnet
from darts_core.train.config import TrainConfig
from darts_core.train.evaluation import evaluate
from darts_core.train.loop import fit
from darts_core.train.policy_objectives import bilevel_objective, density_objective
from darts_core.tune.augment_search import PolicySearchResult, search_policy
from darts_core.tune.budget import Budget

PUBLISHED = ("none", "randaugment", "trivialaugment")
FOUND = ("gradient", "density")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="fashion_mnist")
    parser.add_argument("--path", default=None)
    parser.add_argument("--limit", type=int, default=4000, help="images outside the test split")
    parser.add_argument("--network", default="resnet8")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trainings", type=float, default=2.0, help="budget of each search")
    parser.add_argument(
        "--flip", action="store_true", help="mirror half of the images, in all runs"
    )
    parser.add_argument("--crop", type=int, default=2, help="random crop padding, in all runs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--keep", type=Path, default=None, help="folder for policies and logs")
    parser.add_argument("--out", default="benchmarks/results")
    return parser.parse_args()


def _network(options: argparse.Namespace, bundle: DataBundle, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return resnet(options.network, bundle.num_classes, bundle.image_shape[0], options.width)


def _train(
    options: argparse.Namespace, bundle: DataBundle, config: TrainConfig, seed: int
) -> tuple[float, float]:
    """(test accuracy, device-seconds) of one training."""
    model = _network(options, bundle, seed)
    result = fit(model, bundle, config, select_on=None, seed=seed, device=bundle.device)
    return evaluate(model, bundle, "test").accuracy, result.train_seconds


def _search(
    options: argparse.Namespace,
    bundle: DataBundle,
    config: TrainConfig,
    method: str,
    seed: int,
    seconds: float,
    folder: Path,
) -> PolicySearchResult:
    limit = options.trainings * seconds
    if method == "gradient":
        objective: Any = bilevel_objective(_network(options, bundle, seed), bundle, seed=seed)
        settings: dict[str, Any] = {"steps_per_epoch": 20, "device": str(bundle.device)}
    else:
        # half of the training images, half of the steps: this training is part of the cost
        objective = density_objective(
            lambda: _network(options, bundle, seed), bundle, config, seed=seed
        )
        limit -= seconds / 2
        settings = {}
    return search_policy(
        objective,
        method=method,
        folder=folder,
        budget=Budget(device_seconds=limit),
        channels=bundle.image_shape[0],
        seed=seed,
        **settings,
    )


def _one_seed(options: argparse.Namespace, seed: int, folder: Path) -> dict[str, dict[str, float]]:
    bundle = load_data(
        options.data, options.path, seed=seed, limit=options.limit, device=options.device
    )
    config = TrainConfig(
        epochs=options.epochs,
        batch_size=64,
        learning_rate=0.1,
        cutout=0,
        crop_padding=options.crop,
        flip=options.flip,
        drop_path=0.0,
    )
    # a short throw-away training: the first one on a device pays for its start
    _train(options, bundle, replace(config, epochs=1), seed)
    rows: dict[str, dict[str, float]] = {}
    for name in PUBLISHED:
        accuracy, seconds = _train(options, bundle, replace(config, policy=name), seed)
        rows[name] = {"test_accuracy": accuracy, "train_seconds": seconds, "search_trainings": 0.0}
    one_training = rows["none"]["train_seconds"]
    for method in FOUND:
        own = folder / f"seed{seed}-{method}"
        result = _search(options, bundle, config, method, seed, one_training, own)
        policy_to_yaml(result.policy, own / "policy.yaml")
        cost = result.spent.device_seconds / one_training + (0.5 if method == "density" else 0.0)
        policy = str(own / "policy.yaml")
        accuracy, seconds = _train(options, bundle, replace(config, policy=policy), seed)
        rows[f"found by {method}"] = {
            "test_accuracy": accuracy,
            "train_seconds": seconds,
            "search_trainings": cost,
        }
    for name, row in rows.items():
        logging.info("seed %d, %s: test %.4f", seed, name, row["test_accuracy"])
    return rows


def _spread(values: list[float]) -> tuple[float, float]:
    """Mean and standard error."""
    if len(values) < 2:
        return values[0], math.nan
    return statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values))


def main() -> None:
    """Run all seeds and write the results file."""
    options = _options()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        runs = [_one_seed(options, seed, folder) for seed in seeds]
    rows = []
    for name in runs[0]:
        accuracy = [run[name]["test_accuracy"] for run in runs]
        row: dict[str, Any] = {"name": name, "n": len(runs), "test_accuracy": accuracy}
        row["mean"], row["standard_error"] = _spread(accuracy)
        for other in ("none", "randaugment"):
            gains = [run[name]["test_accuracy"] - run[other]["test_accuracy"] for run in runs]
            row[f"gain_over_{other}"], row[f"gain_over_{other}_error"] = _spread(gains)
        row["search_trainings"] = _spread([run[name]["search_trainings"] for run in runs])[0]
        row["train_seconds"] = _spread([run[name]["train_seconds"] for run in runs])[0]
        rows.append(row)
        logging.info(
            "%-18s test %.4f +- %.4f, over none %+.4f +- %.4f, search %.2f trainings",
            name,
            row["mean"],
            row["standard_error"],
            row["gain_over_none"],
            row["gain_over_none_error"],
            row["search_trainings"],
        )
    device = torch.cuda.get_device_name() if options.device.startswith("cuda") else "cpu"
    settings = {k: str(v) for k, v in vars(options).items() if k not in ("out", "keep")}
    path = write_results("augmentation", rows, device=device, folder=options.out, notes=settings)
    logging.info("written: %s", path)


if __name__ == "__main__":
    main()
