"""What search, tuning and policy search cost, in trainings of the network that was found.

    python -m benchmarks.cost_in_trainings --seeds 3 --keep FOLDER

One training is `darts-core train` of the found architecture once for `train.epochs`, on this device.
Per seed, on images of Fashion-MNIST: a search, finalists included; one training; tuning with the budget
`tune.trainings=3.9` (whole trials and pruned ones together); a search for an augmentation policy with
`tune.trainings=1.95`; last, one training with the tuned settings and the found policy. Costs are
`device_seconds` of each stage's result.json over those of the one training. The validation accuracy before
and after is stated; the split `test` decides nothing here. The budgets lie a little below 4 and 2, as a
trial is ended after an epoch and not within it.

The stages lie in `--keep`: the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from darts_core.bench.results import command_line, write_results
from darts_core.runlog import read_json


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000, help="outside the test split")
    parser.add_argument("--epochs", type=int, default=20, help="of one training")
    parser.add_argument("--search-epochs", type=int, default=8)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--search-channels", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--tune", type=float, default=3.9, help="trainings that tuning may use")
    parser.add_argument("--policy", type=float, default=1.95, help="trainings of the policy search")
    parser.add_argument(
        "--keep", type=Path, default=Path("runs/cost_in_trainings"), help="of the runs"
    )
    parser.add_argument("--out", default="benchmarks/results")
    return parser.parse_args()


def _run(command: str, *arguments: str) -> None:
    line = [sys.executable, "-m", "darts_core.cli", command, *arguments]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)


def _one_seed(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    job = f"seed{seed}"
    common = [
        "data=fashion_mnist",
        f"data.limit={options.images}",
        "data.test_limit=1000",
        f"+data.seed={seed}",
        f"seed={seed}",
        f"out={options.keep}",
        f"job={job}",
    ]
    recipe = [
        f"train.epochs={options.epochs}",
        f"train.channels={options.channels}",
        "train.layers=1",
        "train.batch_size=64",
        "train.learning_rate=0.05",
        "train.weight_decay=5e-4",
        "train.drop_path=0",
    ]
    first, second, third = (options.keep / job / name for name in ("V001", "V002", "V003"))
    _run(
        "search",
        *common,
        "version=V001",
        "space=nasbench201",
        "strategy=first_order",
        f"search.epochs={options.search_epochs}",
        f"search.channels={options.search_channels}",
        "search.layers=1",
        "search.batch_size=64",
        "search.alpha_learning_rate=3e-3",
    )
    network = f"architecture={first / 'search'}"
    _run("train", *common, *recipe, network, "version=V001")
    plain = read_json(first / "train" / "result.json")
    unit = float(plain["device_seconds"])
    budget = ["tune.trials=null", f"tune.training_seconds={unit}"]
    _run(
        "tune", *common, *recipe, network, "version=V001", *budget, f"tune.trainings={options.tune}"
    )
    _run(
        "tune",
        *common,
        *recipe,
        network,
        "version=V003",
        *budget,
        f"tune.trainings={options.policy}",
        "tune.policy=gradient",
        "+tune.options.steps_per_epoch=20",
    )
    places = {"search": first, "tune": first, "policy": third}
    stages = {name: read_json(place / name / "result.json") for name, place in places.items()}
    best = [f"train.{key}={value}" for key, value in stages["tune"]["best"].items()]
    use = ["augment=found", f"augment.path={third / 'policy' / 'policy.yaml'}"]
    _run("train", *common, *recipe, *best, *use, network, "version=V002")
    final = read_json(second / "train" / "result.json")
    costs = {name: float(stages[name]["device_seconds"]) / unit for name in stages}
    finalists = stages["search"]["finalists"]
    return {
        "name": f"seed {seed}",
        "one_training_seconds": unit,
        **costs,
        "of_search_finalists": float(finalists["device_seconds"]) / unit,
        "together": sum(costs.values()),
        "trials": stages["tune"]["spent"]["trials"],
        "val_accuracy": plain["val_accuracy"],
        "val_accuracy_tuned_with_policy": final["val_accuracy"],
    }


def main() -> None:
    """Run all seeds, print and store the figures."""
    options = _options()
    rows = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        rows.append(_one_seed(options, seed))
        print(
            {k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True
        )
    names = [key for key, value in rows[0].items() if isinstance(value, (int, float))]
    mean: dict[str, Any] = {"name": "mean", "n": len(rows)}
    for name in names:
        values = [float(row[name]) for row in rows]
        mean[name] = statistics.fmean(values)
        if len(values) > 1:
            mean[f"{name}_error"] = statistics.stdev(values) / math.sqrt(len(values))
    path = write_results(
        "cost-in-trainings",
        [*rows, mean],
        folder=options.out,
        command=command_line(without=("--keep", "--out")),
        notes={
            "data": "Fashion-MNIST",
            "threads": os.environ.get("OMP_NUM_THREADS", "all"),
            **{k: v for k, v in vars(options).items() if k not in ("keep", "out")},
        },
    )
    print(path)


if __name__ == "__main__":
    main()
