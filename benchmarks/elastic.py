"""One elastic training against its rivals: ResNet-20 on Fashion-MNIST, several seeds, one results file.

    python -m benchmarks.elastic base shrink step alone prune scaled write --seeds 0 1 2

Every step goes on where it was; a step whose results are there is taken as it is. `base` trains the network
to its end, `shrink` is the command with one epoch of fine-tuning a point, `step` times elastic steps beside
plain ones in turn, `alone` trains five points' networks from scratch for as many epochs as base and elastic
training together with the same teacher, `prune` and `scaled` are rivals at four common budgets. `write`
fills the table of what is there; what was not run is missing from it.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from darts_core import cli
from darts_core.bench.results import write_results
from darts_core.elastic import Sandwich, elastic
from darts_core.latency import device_name
from darts_core.prune.finetune import fine_tune
from darts_core.runlog import read_json, write_json
from darts_core.settings import TrainConfig
from darts_core.study.hypervolume import hypervolume
from darts_core.train import evaluate, load_model

STEPS = ("base", "shrink", "step", "alone", "prune", "scaled", "write")
BUDGETS = (0.75, 0.5, 0.35, 0.25)


@dataclass(frozen=True)
class Case:
    """Sizes of the experiment."""

    seed: int
    out: Path
    data: tuple[str, ...]
    architecture: str
    width: int
    epochs: int
    elastic_epochs: int
    points: int
    looks: int

    @property
    def folder(self) -> Path:
        """Of this seed."""
        return self.out / f"seed{self.seed}"

    def run(self, command: str, job: str, *words: str) -> Path:
        """A stage's folder once it is finished."""
        common = (*self.data, f"seed={self.seed}", f"out={self.folder}", f"job={job}", "device=cpu",
                  "version=V001", "train.batch_size=64", "train.drop_path=0")  # fmt: skip
        status = cli.main([command, *words, *common])
        if status:
            raise SystemExit(status)
        return self.folder / job / "V001" / command

    def base(self) -> Path:
        """The network, trained to its end."""
        return self.run(
            "train", "base", f"architecture={self.architecture}", f"train.channels={self.width}",
            f"train.epochs={self.epochs}", "train.learning_rate=0.1", "train.weight_decay=0.0005",
        )  # fmt: skip

    def shrink(self) -> Path:
        """The front."""
        return self.run(
            "shrink", "shrink", f"model={self.base()}", f"shrink.epochs={self.elastic_epochs}",
            f"shrink.points={self.points}", f"shrink.options.looks={self.looks}",
            "shrink.fine_tuning=1", "export.formats=[onnx]",
        )  # fmt: skip


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `path` holds, made first where it is missing."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, make())
    return dict(read_json(path))


def bundle_of(case: Case) -> Any:
    """The data of the case."""
    from darts_core.data import load_data

    given = dict(word.removeprefix("data.").split("=", 1) for word in case.data)
    name = given.pop("data")
    return load_data(name, **{k: int(v) if v.isdigit() else v for k, v in given.items()})


def step_cost(case: Case, rounds: int = 20) -> dict[str, Any]:
    """Elastic steps and the plain steps of their sub-networks, in turn; the ratio of each pair."""
    model, _ = load_model(case.base() / "model.pt")
    bundle = bundle_of(case)
    x, y = next(iter(bundle.batches("params", 64)))
    net = elastic(model, x)
    sandwich = Sandwich(net, seed=case.seed)
    net.model.train()
    ratios, cached = [], []

    def loss_of(output: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output, y)

    for turn in range(rounds + 2):
        chosen = sandwich.choices()
        plain = [net.cut(choices).train() for choices in chosen]
        moved = x + 1e-3 * turn  # an input that the teacher has not seen
        asked = _timed(lambda moved=moved: sandwich.backward(moved, loss_of))
        sandwich.step -= 1  # the same sub-networks
        again = _timed(lambda moved=moved: sandwich.backward(moved, loss_of))
        apart = sum(_timed(lambda m=m, moved=moved: loss_of(m(moved)).backward()) for m in plain)
        net.model.zero_grad()
        if turn >= 2:
            ratios.append(asked / apart)
            cached.append(again / apart)
    return {"ratio_teacher_asked": spread(ratios), "ratio_teacher_looked_up": spread(cached)}


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def spread(values: list[float]) -> dict[str, Any]:
    """Median, standard deviation and number."""
    return {
        "median": statistics.median(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        "n": len(values),
    }


def alone(case: Case, count: int = 5) -> dict[str, Any]:
    """Five points' networks trained from scratch with the same teacher, as long as both trainings."""
    shrunk = case.shrink()
    points = read_json(shrunk / "front.json")["points"]
    places = np.unique(np.linspace(0, len(points) - 1, count).round().astype(int))
    bundle = bundle_of(case)
    teacher, _ = load_model(case.base() / "model.pt")
    config = TrainConfig(epochs=case.epochs + case.elastic_epochs, batch_size=64, drop_path=0.0,
                         learning_rate=0.1, weight_decay=5e-4)  # fmt: skip
    rows = []
    for place in places:
        point = points[place]

        def train(point: dict[str, Any] = point) -> dict[str, Any]:
            model, _ = load_model(shrunk / point["folder"] / "model.pt")
            torch.manual_seed(case.seed)
            for module in model.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()
            model.requires_grad_(True)
            fine_tune(model, bundle.without_test(), config, teacher=copy.deepcopy(teacher),
                      distillation=0.5, seed=case.seed, device=torch.device("cpu"))  # fmt: skip
            return {"folder": point["folder"], "ours": point["metric"],
                    "alone": evaluate(model, bundle, "test").accuracy}  # fmt: skip

        rows.append(kept(case.folder / "alone" / f"{place}.json", train))
    gains = [row["ours"] - row["alone"] for row in rows]
    return {"rows": rows, "mean_gain": statistics.mean(gains), "worst_gain": min(gains)}


def rivals(case: Case, which: str) -> dict[str, Any]:
    """Points (ms, test accuracy) of a rival at the common budgets."""
    points = []
    for budget in BUDGETS:
        if which == "prune":
            # as long as the elastic training and its fine-tuning, shared out over the budgets
            epochs = max(1, round((case.elastic_epochs + 1) * 2.5 / len(BUDGETS)))
            at = case.run("prune", f"prune{budget}", f"model={case.base()}", f"prune.epochs={epochs}",
                          f"prune.budget={100 * budget:g}%")  # fmt: skip
            result = read_json(at / "result.json")
            points.append([result["latency_after_ms"], result["test_accuracy"]])
        else:
            width = max(2, round(case.width * budget**0.5 / 2) * 2)
            at = case.run("train", f"scaled{budget}", f"architecture={case.architecture}",
                          f"train.channels={width}", f"train.epochs={case.epochs}",
                          "train.learning_rate=0.1", "train.weight_decay=0.0005")  # fmt: skip
            points.append([clock(case, at), read_json(at / "result.json")["test_accuracy"]])
    return {"points": points}


def clock(case: Case, at: Path) -> float:
    """The measured median of a trained network, as `shrink` measures."""
    from darts_core.elastic.device_clock import DeviceClock

    model, meta = load_model(at / "model.pt")
    return DeviceClock(meta["image_shape"], torch.device("cpu"))(model).median_ms


def area(points: list[list[float]], worst_ms: float, least: float) -> float:
    """The area over (log ms, accuracy) that the points dominate, up to the reference point."""
    costs = [(np.log(ms), -accuracy) for ms, accuracy in points]
    return hypervolume(costs, (np.log(worst_ms), -least))


def summary(case: Case) -> dict[str, Any]:
    """The row of one seed: what was run of the table."""
    base = read_json(case.base() / "result.json")
    row: dict[str, Any] = {"seed": case.seed, "base_accuracy": base["test_accuracy"]}
    shrunk = case.folder / "shrink" / "V001" / "shrink"
    if not (shrunk / "result.json").is_file():
        return row
    result, front = read_json(shrunk / "result.json"), read_json(shrunk / "front.json")
    own = [[p["latency_ms"], p["metric"]] for p in front["points"]]
    cost = result["training_seconds"] + sum(result["choosing_seconds"].values())
    half = [p for p in own if p[0] <= 0.5 * front["base"]["latency_ms"]]
    row |= {
        "cost_in_trainings": cost / base["device_seconds"],
        "points": len(own),
        "judged": result["judged"],
        "found_by": result["found_by"],
        "whole_minus_base": front["points"][0]["metric"] - base["test_accuracy"],
        "half_latency_minus_base": max((p[1] for p in half), default=float("nan"))
        - base["test_accuracy"],
        "front": own,
    }
    reference = (1.05 * front["base"]["latency_ms"], 0.5)
    row["hypervolume"] = {"ours": area(own, *reference), "reference": list(reference)}
    for name in ("step", "alone", "prune", "scaled"):
        path = case.folder / f"{name}.json"
        if path.is_file():
            row[name] = read_json(path)
            if "points" in row[name]:
                row["hypervolume"][name] = area(row[name]["points"], *reference)
    return row


def main() -> None:
    """Parse the command line, run the steps of every seed, write the results file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("steps", nargs="+", choices=STEPS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", nargs="+", default=["data=fashion_mnist", "data.limit=10000"])
    parser.add_argument("--architecture", default="resnet20")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=20, help="of the base")
    parser.add_argument("--elastic-epochs", type=int, default=10)
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--looks", type=int, default=100)
    parser.add_argument("--runs", type=Path, default=Path("runs/elastic"), help="run folders")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    cases = [
        Case(seed, args.runs, tuple(args.data), args.architecture, args.width, args.epochs,
             args.elastic_epochs, args.points, args.looks)
        for seed in args.seeds
    ]  # fmt: skip
    work: dict[str, Callable[[Case], Any]] = {
        "base": Case.base,
        "shrink": Case.shrink,
        "step": lambda case: kept(case.folder / "step.json", lambda: step_cost(case)),
        "alone": lambda case: kept(case.folder / "alone.json", lambda: alone(case)),
        "prune": lambda case: kept(case.folder / "prune.json", lambda: rivals(case, "prune")),
        "scaled": lambda case: kept(case.folder / "scaled.json", lambda: rivals(case, "scaled")),
    }
    for case in cases:
        for step in STEPS[:-1]:
            if step in args.steps:
                work[step](case)
    if "write" in args.steps:
        rows = [summary(case) for case in cases]
        notes = {"data": args.data, "architecture": args.architecture, "width": args.width,
                 "epochs": args.epochs, "elastic_epochs": args.elastic_epochs}  # fmt: skip
        device = device_name(torch.device("cpu"))
        print(write_results("elastic", rows, device=device, folder=args.out, notes=notes))


if __name__ == "__main__":
    main()
