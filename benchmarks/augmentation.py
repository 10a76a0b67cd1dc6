"""Accuracy of augmentation policies, found and published, on few training images; paired over seeds.

    python benchmarks/augmentation.py --images 4000 --seeds 5 --keep FOLDER

For each seed the same small network is trained from the same start: with no policy, with published
policies (`--published`), and with what a search finds (`--found gradient density`). A search sees the
splits `params` and `alpha` only (of `--images` together, which every training then learns from); the
figure is the accuracy on the whole test split. The gain over no policy and its standard error stand in
the results file, with what each search cost in trainings of this network without a policy (on a CPU by
the processor's time).

Each training and search that is done is noted in `--keep`: the same command goes on where it was; a search
that was cut off begins anew, so that its cost is that of the whole.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import random
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darts_core.augment import AUGMENTATIONS, Operation, Policy, policy_to_yaml
from darts_core.bench.results import command_line, write_results
from darts_core.data import DataBundle, load_data
from darts_core.latency import device_name
from darts_core.models.baselines import resnet
from darts_core.runlog import config_hash, read_json, write_json
from darts_core.study.augment_search import OPERATIONS, search_policy
from darts_core.study.budget import Budget
from darts_core.train.config import TrainConfig
from darts_core.train.evaluation import evaluate
from darts_core.train.loop import fit
from darts_core.train.policy_objectives import bilevel_objective, density_objective

_VAL_FRACTION = 0.15
Row = dict[str, float]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="fashion_mnist")
    parser.add_argument("--path", default=None)
    parser.add_argument("--images", type=int, default=4000, help="to train on (params and alpha)")
    parser.add_argument("--network", default="strided", help="strided, or resnet8 ... resnet50")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trainings", type=float, default=2.0, help="budget of a density search")
    parser.add_argument(
        "--search-epochs",
        type=int,
        default=19,
        help="budget of a gradient search, of 20 steps each",
    )
    parser.add_argument("--published", nargs="*", default=["randaugment"])
    parser.add_argument(
        "--found",
        nargs="*",
        default=["gradient"],
        help="gradient, density; start: the policy that the gradient search starts from",
    )
    parser.add_argument("--crop", type=int, default=0, help="random crop padding, in all runs")
    parser.add_argument("--flip", action="store_true", help="mirror half the images, in all runs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--keep", type=Path, default=None, help="folder of policies and finished rows"
    )
    parser.add_argument("--out", default="benchmarks/results")
    return parser.parse_args()


def _strided(classes: int, channels: int, width: int) -> nn.Module:
    """Three 3x3 convolutions of stride 2 and a linear layer: learns 4,000 images by heart in seconds."""
    layers: list[nn.Module] = []
    for c_out in (width, 2 * width, 4 * width):
        layers += [
            nn.Conv2d(channels, c_out, 3, 2, 1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(),
        ]
        channels = c_out
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(classes))


def _network(options: argparse.Namespace, bundle: DataBundle, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    if options.network != "strided":
        return resnet(options.network, bundle.num_classes, bundle.image_shape[0], options.width)
    model = _strided(bundle.num_classes, bundle.image_shape[0], options.width)
    model.eval()(torch.zeros(1, *bundle.image_shape))
    return model


def _train(options: argparse.Namespace, bundle: DataBundle, config: TrainConfig, seed: int) -> Row:
    """Test accuracy (0..1), and device-seconds of one training."""
    model = _network(options, bundle, seed)
    started = _seconds(options)
    fit(model, bundle, config, select_on=None, seed=seed, device=bundle.device)
    seconds = _seconds(options) - started
    return {"test_accuracy": evaluate(model, bundle, "test").accuracy, "train_seconds": seconds}


def _seconds(options: argparse.Namespace) -> float:
    """The clock of costs: on a CPU the processor's own time, which other work does not disturb."""
    return time.process_time() if options.device == "cpu" else time.perf_counter()


def _search(
    options: argparse.Namespace,
    bundle: DataBundle,
    config: TrainConfig,
    method: str,
    seed: int,
    seconds: float,
    folder: Path,
) -> tuple[Policy, float]:
    """The policy found, and the device-seconds of the search."""
    started = _seconds(options)
    if method == "gradient":
        objective: Any = bilevel_objective(
            _network(options, bundle, seed),
            bundle,
            batch_size=config.batch_size,
            seed=seed,
            warm_up=replace(config, epochs=options.epochs // 2),
            folder=folder,
        )
        settings: dict[str, Any] = {"steps_per_epoch": 20, "device": str(bundle.device)}
    else:
        objective = density_objective(
            lambda: _network(options, bundle, seed), bundle, config, seed=seed, folder=folder
        )
        settings = {}
    # the objective's own training without a policy is part of the cost
    left = options.trainings * seconds - (_seconds(options) - started)
    result = search_policy(
        objective,
        method=method,
        folder=folder,
        budget=Budget(epochs=options.search_epochs)
        if method == "gradient"
        else Budget(device_seconds=left),
        channels=bundle.image_shape[0],
        seed=seed,
        **settings,
    )
    return result.policy, _seconds(options) - started


def _unlearned(channels: int, seed: int) -> Policy:
    """What the gradient search starts from: probabilities of a half, middle magnitudes, drawn pairs."""
    names = [name for name in OPERATIONS if channels > 1 or not AUGMENTATIONS[name].colour]
    pairs = list(itertools.combinations(names, 2))
    chosen = random.Random(seed).sample(pairs, 25)
    subs = tuple(tuple(Operation(name, 0.5, 5.0) for name in pair) for pair in chosen)
    return Policy(subs, name="start")


class _Seed:
    """The runs of one seed; finished ones are read from the folder."""

    def __init__(self, options: argparse.Namespace, seed: int, folder: Path) -> None:
        self.options, self.seed, self.folder = options, seed, folder
        limit = round(options.images / (1 - _VAL_FRACTION))
        self.bundle = load_data(
            options.data,
            options.path,
            seed=seed,
            limit=limit,
            val_fraction=_VAL_FRACTION,
            device=options.device,
        )
        self.config = TrainConfig(
            epochs=options.epochs,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            weight_decay=options.weight_decay,
            cutout=0,
            crop_padding=options.crop,
            flip=options.flip,
            drop_path=0.0,
        )
        self._warm = False

    def _kept(self, name: str) -> Path:
        return self.folder / f"seed{self.seed}-{name}.json"

    def train(self, name: str, policy: str | None, **more: float) -> Row:
        """The row of one training, from the folder where it is done."""
        path = self._kept(name)
        if path.is_file():
            return dict(read_json(path)["row"])
        if not self._warm:
            # a short throw-away training: the first one on a device pays for its start
            _train(self.options, self.bundle, replace(self.config, epochs=1), self.seed)
            self._warm = True
        config = replace(self.config, policy=policy)
        row = {**_train(self.options, self.bundle, config, self.seed), **more}
        write_json(path, {"schema_version": 1, "row": row})
        logging.info("seed %d, %s: test %.4f", self.seed, name, row["test_accuracy"])
        return row

    def find(self, method: str, one_training: float) -> Row:
        """The row of a search and the training under what it found."""
        name = "start of the search" if method == "start" else f"found by {method}"
        if self._kept(name).is_file():
            return self.train(name, None)
        own = self.folder / f"seed{self.seed}-{method}"
        done = own / "cost.json"
        if not done.is_file():
            shutil.rmtree(own, ignore_errors=True)
            policy, seconds = self._searched(method, one_training, own)
            policy_to_yaml(policy, own / "policy.yaml")
            write_json(done, {"schema_version": 1, "seconds": seconds})
        cost = float(read_json(done)["seconds"]) / one_training
        return self.train(name, str(own / "policy.yaml"), search_trainings=cost)

    def _searched(self, method: str, one_training: float, own: Path) -> tuple[Policy, float]:
        if method == "start":
            return _unlearned(self.bundle.image_shape[0], self.seed), 0.0
        return _search(self.options, self.bundle, self.config, method, self.seed, one_training, own)

    def rows(self) -> dict[str, Row]:
        """All rows of this seed by name."""
        found = {name: self.train(name, name) for name in ("none", *self.options.published)}
        seconds = found["none"]["train_seconds"]
        for method in self.options.found:
            name = "start of the search" if method == "start" else f"found by {method}"
            found[name] = self.find(method, seconds)
        return found


def _spread(values: list[float]) -> tuple[float, float | None]:
    """Mean and standard error."""
    if len(values) < 2:
        return values[0], None
    return statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values))


def _summary(name: str, runs: list[dict[str, Row]]) -> dict[str, Any]:
    accuracy = [run[name]["test_accuracy"] for run in runs]
    row: dict[str, Any] = {"name": name, "n": len(runs), "test_accuracy": accuracy}
    row["mean"], row["standard_error"] = _spread(accuracy)
    for other in ("none", "randaugment"):
        if other in runs[0]:
            gains = [run[name]["test_accuracy"] - run[other]["test_accuracy"] for run in runs]
            row[f"gain_over_{other}"], row[f"gain_over_{other}_error"] = _spread(gains)
    row["train_seconds"] = _spread([run[name]["train_seconds"] for run in runs])[0]
    if "search_trainings" in runs[0][name]:
        row["search_trainings"] = _spread([run[name]["search_trainings"] for run in runs])[0]
        row["search_trainings_most"] = max(run[name]["search_trainings"] for run in runs)
    return row


def main() -> None:
    """Run all seeds and write the results file."""
    options = _options()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    elsewhere = ("out", "keep", "seeds", "first_seed", "published", "found")
    settings = {k: v for k, v in vars(options).items() if k not in elsewhere}
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.keep or Path(scratch)) / config_hash(settings)
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        runs = [_Seed(options, seed, folder).rows() for seed in seeds]
    rows = [_summary(name, runs) for name in runs[0]]
    for row in rows:
        logging.info("%s", {k: v for k, v in row.items() if k != "test_accuracy"})
    path = write_results(
        "augmentation",
        rows,
        device=device_name(torch.device(options.device)),
        folder=options.out,
        command=command_line(without=("--out", "--keep")),
        notes={**settings, "seeds": list(seeds), "threads": torch.get_num_threads()},
    )
    logging.info("written: %s", path)


if __name__ == "__main__":
    main()
