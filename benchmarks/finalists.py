"""What a pool of finalists should hold and how to judge it: real trainings of stacks of convolutions.

    python -m benchmarks.finalists --runs runs/finalists      # goes on where it was killed

Random networks of the space `convnet`, by what they take of ResNet-8's time as ONNX at batch 32, and some
plain stacks of dense 3x3 convolutions are trained on the folds that settings of the demo are chosen with
(`benchmarks.demo_folds --choosing`), never on those of its judge:

* long, as the demo trains what it ships; accuracy and loss on the fold's test part are the truth;
* briefly, as finalists are trained; accuracy and loss on val after each epoch are what a search knows.

The results say how good networks are that fill the budget and others, how well each cheap signal orders
them (Spearman), and what the pick of a halving of 16 of them is worth by each rule.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.demo_folds import FOLDS, write_fold
from darts_core.architecture import Architecture
from darts_core.bench.results import write_results
from darts_core.data.load import load_data
from darts_core.latency import choice_latency_model, device_name
from darts_core.latency.check import spearman
from darts_core.latency.table import open_table
from darts_core.metric import ACCURACY
from darts_core.models.baselines import baseline
from darts_core.relax.gumbel import GumbelStraightThrough
from darts_core.relax.softmax import Softmax
from darts_core.runlog import read_json, write_json
from darts_core.search import SearchConfig, search
from darts_core.search.finalists import Finalist, prior_of, shared_weights_of
from darts_core.search.halving import Standing, best_first
from darts_core.settings import TrainConfig
from darts_core.spaces import ChoiceSpace, get_space
from darts_core.strategies import FirstOrder
from darts_core.supernet import build, create_supernet
from darts_core.train import evaluate, fit

_FOLD_SEED, _FIRST_SEED, _DRAW_SEED = 7, 200, 11
LONG = TrainConfig(
    epochs=40, batch_size=64, learning_rate=0.08, weight_decay=1e-3, label_smoothing=0.1, drop_path=0.0
)  # fmt: skip
BRIEF = replace(LONG, epochs=12)
# stratum -> from, to (of ResNet-8's time) and how many
STRATA = {"fills the budget": (0.30, 0.38, 16), "takes less": (0.20, 0.30, 9)}
PLAIN = ((1, 3, 3), (2, 3, 4), (3, 3, 3), (2, 4, 4), (2, 3, 3), (1, 4, 4))
RUNGS = (3, 6, 12)
# a mixture computes every candidate, a sample one of them; 12 epochs were the demo's before
SUPERNETS = {
    "shared weights, softmax": (
        Softmax, SearchConfig(epochs=12, alpha_warmup_epochs=3, learning_rate=0.05)
    ),
    "shared weights, gumbel": (
        GumbelStraightThrough, SearchConfig(epochs=50, alpha_warmup_epochs=15, learning_rate=0.05)
    ),
}  # fmt: skip
SIZES = {"channels": 16, "layers": 1, "num_classes": 10, "in_channels": 1}
_POOLS, _POOL = 2000, 12


def stack(space: ChoiceSpace, widths: Sequence[int]) -> Architecture:
    """Three dense 3x3 convolutions of these widths, a pool between."""
    made = {label: options[0] for label, options in space.choices} | {"levels": 3}
    made |= {f"level{number}.width": width for number, width in enumerate(widths, 1)}
    return Architecture(space.name, choices=tuple(made.items()))


def session(model: nn.Module, folder: Path) -> Callable[[int], float]:
    """A timer of the network as ONNX: the third fastest tenth of so many calls, in seconds."""
    import onnxruntime

    path = folder / "timed.onnx"
    torch.onnx.export(
        model.eval(), (torch.randn(32, 1, 8, 8),), str(path), dynamo=False, input_names=["x"]
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    loaded = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    x_BCHW = np.random.default_rng(0).standard_normal((32, 1, 8, 8)).astype(np.float32)

    def taken(calls: int) -> float:
        seconds = []
        for _ in range(calls):
            started = time.perf_counter()
            loaded.run(None, {"x": x_BCHW})
            seconds.append(time.perf_counter() - started)
        return float(np.percentile(seconds, 30))

    return taken


def candidates(folder: Path) -> list[dict[str, Any]]:
    """The networks with stratum and share of ResNet-8's time; drawn and timed once, then read."""
    path = folder / "candidates.json"
    if path.is_file():
        return list(read_json(path)["candidates"])
    space = get_space("convnet")
    assert isinstance(space, ChoiceSpace)
    reference = session(baseline("resnet8", width=16, num_classes=10, in_channels=1), folder)

    def share(architecture: Architecture) -> float:
        own = session(build(architecture, **SIZES), folder)
        own(10)
        return float(np.median([own(40) / reference(20) for _ in range(3)]))

    found = [(stack(space, widths), "plain") for widths in PLAIN]
    rows = [{"stratum": s, "share": share(a), "architecture": a.to_dict()} for a, s in found]
    rng, seen = np.random.default_rng(_DRAW_SEED), {repr(build(a, **SIZES)) for a, _ in found}
    left = {name: count for name, (_, _, count) in STRATA.items()}
    while any(left.values()):
        architecture = space.random(rng)
        text = repr(build(architecture, **SIZES))
        if text in seen:
            continue
        seen.add(text)
        taken = share(architecture)
        for name, (low, high, _) in STRATA.items():
            if low <= taken < high and left[name]:
                left[name] -= 1
                row = {"stratum": name, "share": taken, "architecture": architecture.to_dict()}
                rows.append(row)
    write_json(path, {"schema_version": 1, "candidates": rows})
    return rows


def trained(
    folder: Path, networks: Sequence[Mapping[str, Any]], folds: int
) -> list[dict[str, Any]]:
    """A row for each training of each network and fold; those that are in the file are not repeated."""
    path = folder / "rows.jsonl"
    rows = [json.loads(line) for line in path.open(encoding="utf-8")] if path.is_file() else []
    known = {(row["network"], row["recipe"], row["fold"]) for row in rows}
    for fold in range(folds):
        data = write_fold(fold, folder / "data", _FOLD_SEED)
        bundle = load_data("npz", path=data)
        for number, network in enumerate(networks):
            for recipe, config in (("long", LONG), ("brief", BRIEF)):
                if (number, recipe, fold) in known:
                    continue
                torch.manual_seed(_FIRST_SEED + fold)
                model = build(Architecture.from_dict(network["architecture"]), **SIZES)
                history = fit(
                    model, bundle.without_test(), config, seed=_FIRST_SEED + fold, verbose=False
                ).history
                row = {"network": number, "recipe": recipe, "fold": fold,
                       "val": [[e["val_accuracy"], e["val_loss"]] for e in history]}  # fmt: skip
                if recipe == "long":
                    judged = evaluate(model, bundle, "test")
                    row |= {"accuracy": judged.accuracy, "loss": judged.loss, "n": judged.n}
                rows.append(row)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    return rows


def of_supernets(
    folder: Path, networks: Sequence[Mapping[str, Any]], folds: int
) -> dict[str, list[list[float]]]:
    """Relaxation -> for each fold the accuracy of every network under the supernet's shared weights."""
    path = folder / "shared.json"
    known: dict[str, list[list[float]]] = read_json(path)["shared"] if path.is_file() else {}
    made = [Architecture.from_dict(network["architecture"]) for network in networks]
    for name, (relaxation, settings) in SUPERNETS.items():
        for fold in range(len(known.setdefault(name, [])), folds):
            bundle = load_data(
                "npz", path=write_fold(fold, folder / "data", _FOLD_SEED)
            ).without_test()
            torch.manual_seed(_FIRST_SEED + fold)
            sizes = {key: value for key, value in SIZES.items() if key != "layers"}
            supernet = create_supernet(
                get_space("convnet"), image_size=8, relaxation=relaxation(), **sizes
            )
            search(supernet, FirstOrder(), bundle, settings, seed=_FIRST_SEED + fold)
            data = bundle.batches("alpha", 64, seed=_FIRST_SEED + fold, epoch=0)
            batches = [batch for batch, _ in zip(data, range(4), strict=False)]
            known[name].append(shared_weights_of(supernet, batches)(made))
            write_json(path, {"schema_version": 1, "shared": known})
    return known


def expected_times(folder: Path, networks: Sequence[Mapping[str, Any]]) -> list[float]:
    """What the latency table says of every network, in milliseconds, before overhead and slope."""
    path, cpu = folder / "latency.json", torch.device("cpu")
    cost = choice_latency_model(
        get_space("convnet"), lambda a: build(a, **SIZES), torch.randn(2, 1, 8, 8),
        open_table(path, cpu, "onnx", torch.float32), batch=32, device=cpu, path=path,
    )  # fmt: skip
    return [cost.sum_of(Architecture.from_dict(network["architecture"])) for network in networks]


class Known:
    """What the trainings say, by network and fold."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = {(r["network"], r["recipe"], r["fold"]): r for r in rows}
        self.folds = sorted({r["fold"] for r in rows})

    def accuracy(self, network: int) -> float:
        """Pooled over folds, in per cent."""
        found = [self.rows[network, "long", fold] for fold in self.folds]
        return 100 * sum(r["accuracy"] * r["n"] for r in found) / sum(r["n"] for r in found)

    def loss(self, network: int) -> float:
        """On the test parts, a mean over folds."""
        return float(np.mean([self.rows[network, "long", fold]["loss"] for fold in self.folds]))

    def val(self, network: int, fold: int, epochs: int) -> tuple[float, float]:
        """Accuracy and loss on val after so many epochs of a brief training."""
        accuracy, loss = self.rows[network, "brief", fold]["val"][epochs - 1]
        return accuracy, loss


Rule = Callable[[Sequence[Standing], int, int], list[Standing]]
RULES: dict[str, Rule] = {
    "accuracy, then loss": lambda left, rung, _: sorted(
        left, key=lambda s: (-s.accuracies[rung], s.losses[rung])
    ),
    "loss": lambda left, rung, _: sorted(left, key=lambda s: s.losses[rung]),
    "accuracy, within its standard error loss": best_first,
}


def halved(known: Known, pool: Sequence[int], fold: int, rule: Rule, examples: int) -> int:
    """The network that a halving of the pool on one fold ends with."""
    finalist = Finalist(Architecture("convnet", choices=(("a", 1),)), "random")
    left = [Standing(finalist, network, metric=ACCURACY) for network in pool]
    for rung in RUNGS:
        for standing in left:
            standing.accuracies[rung], standing.losses[rung] = known.val(standing.place, fold, rung)
        left = rule(left, rung, examples)
        if rung != RUNGS[-1]:
            left = left[: -(-len(left) // 2)]
    return left[0].place


def signal(name: str, each: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """A row: mean and spread over folds of a signal's correlation with each truth."""
    row: dict[str, Any] = {"what": "signal", "name": name}
    for key, values in each.items():
        row[f"spearman_with_{key}"] = float(np.mean(values))
        row[f"spearman_with_{key}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return row


def summary(
    known: Known,
    networks: Sequence[Mapping[str, Any]],
    prior: Sequence[float],
    shared: Mapping[str, Sequence[Sequence[float]]],
    examples: int,
) -> Iterator[dict[str, Any]]:
    """Rows for the file: strata, signals, rules."""
    everyone = range(len(networks))
    groups = {s: [i for i in everyone if networks[i]["stratum"] == s] for s in ("plain", *STRATA)}
    for name, members in groups.items():
        own = [known.accuracy(i) for i in members]
        yield {"what": "stratum", "name": name, "networks": len(members), "accuracy": float(np.mean(own)),
               "accuracy_std": float(np.std(own, ddof=1)), "best": max(own),
               "share": float(np.mean([networks[i]["share"] for i in members]))}  # fmt: skip
    drawn = [i for i in everyone if networks[i]["stratum"] in STRATA]
    truth = {i: -known.loss(i) for i in drawn}
    rates = {i: known.accuracy(i) for i in drawn}
    of_prior = [prior[i] for i in drawn]
    yield signal("zero-cost prior", {
        "test_loss": [spearman(of_prior, [truth[i] for i in drawn])],
        "test_accuracy": [spearman(of_prior, [rates[i] for i in drawn])],
    })  # fmt: skip
    for name, by_fold in shared.items():
        each = {
            key: [spearman([values[i] for i in drawn], [judged[i] for i in drawn]) for values in by_fold]
            for key, judged in (("test_loss", truth), ("test_accuracy", rates))
        }  # fmt: skip
        yield signal(name, each)
    for place, name, sign in ((0, "val accuracy", 1), (1, "val loss", -1)):
        for rung in RUNGS:
            each = {
                key: [spearman([sign * known.val(i, fold, rung)[place] for i in drawn],
                               [judged[i] for i in drawn]) for fold in known.folds]
                for key, judged in (("test_loss", truth), ("test_accuracy", rates))
            }  # fmt: skip
            yield signal(f"{name} after {rung} epochs", each)
    for stratum in (None, *STRATA):
        members = drawn if stratum is None else groups[stratum]
        for name, rule in RULES.items():
            rng = np.random.default_rng(0)
            size = min(_POOL, len(members) - 1)
            won = [
                rates[halved(known, rng.choice(members, size, replace=False), fold, rule, examples)]
                for _ in range(_POOLS // len(known.folds)) for fold in known.folds
            ]  # fmt: skip
            yield {"what": "rule", "name": name, "pool": stratum or "both strata", "of": size,
                   "accuracy": float(np.mean(won)), "accuracy_std": float(np.std(won, ddof=1))}  # fmt: skip


def main() -> None:
    """Parse the command line, train, write the results file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/finalists"))
    parser.add_argument("--folds", type=int, default=FOLDS, help="so many, from the first on")
    parser.add_argument("--note", default="", help="of the machine's state, for the results file")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    networks = candidates(args.runs)
    known = Known(trained(args.runs, networks, args.folds))
    bundle = load_data("npz", path=write_fold(0, args.runs / "data", _FOLD_SEED)).without_test()
    batch = next(iter(bundle.batches("alpha", 64, seed=0, epoch=0)))
    made = [Architecture.from_dict(network["architecture"]) for network in networks]
    prior = prior_of(lambda a: build(a, **SIZES), batch)(made)
    taken = expected_times(args.runs, networks)
    agreement = spearman(taken, [network["share"] for network in networks])
    shared = of_supernets(args.runs, networks, args.folds)
    rows: list[dict[str, Any]] = [
        {"what": "latency table", "networks": len(taken), "spearman_with_measured": agreement},
        *summary(known, networks, prior, shared, bundle.size("val")),
    ]
    each = [
        {"what": "network", **network, "accuracy": known.accuracy(i), "test_loss": known.loss(i),
         "prior": prior[i], "expected_ms": taken[i]} for i, network in enumerate(networks)
    ]  # fmt: skip
    path = write_results(
        "finalists", rows + each, device=device_name(torch.device("cpu")), folder=args.out,
        command=f"python -m benchmarks.finalists --folds {args.folds}",
        notes={"data": "scikit-learn digits, the five folds of --choosing", "state_of_the_machine": args.note,
               "folds": known.folds, "epochs": [LONG.epochs, BRIEF.epochs], "val": bundle.size("val")},
    )  # fmt: skip
    for row in rows:
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
    print(path)


if __name__ == "__main__":
    main()
