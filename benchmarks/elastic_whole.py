"""What an elastic training costs the whole network, and what it gives the others, under several recipes.

    python -m benchmarks.elastic_whole --seeds 10 11 --judge val
    python -m benchmarks.elastic_whole --seeds 0 1 2 --judge test --recipes lr0.02 lr0.005

A network is trained to its end; each recipe then trains a copy of it, elastic. Differences against the base,
on the split that `--judge` names, of the whole network, of the smallest sub-network and of four drawn ones
(the same for all recipes): recipes are chosen on val with some seeds, and judged on test with others.
`plain` recipes run the whole network alone, which tells the schedule's share from that of the sharing. Every
training is kept in `--runs`, one file each; a run that was stopped goes on, one with other sizes or epochs is
refused there.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.elastic_case import RECIPE, kept, train_config
from benchmarks.resumable import same_settings
from darts_core.bench.results import command_line, write_results
from darts_core.data import load_data
from darts_core.elastic import Elastic, Sandwich, elastic
from darts_core.elastic.fit import fit_elastic, norm_batches
from darts_core.elastic.variables import middle
from darts_core.latency import device_name
from darts_core.models.baselines import baseline
from darts_core.prune.rounds import take_batches
from darts_core.train import evaluate, fit

DRAWN = 4
BASE = train_config(RECIPE)


@dataclass(frozen=True)
class Recipe:
    """Of one elastic training.

    Attributes:
        learning_rate: of its start; it falls along a cosine to 0.
        drawn: sub-networks a step beside the whole and the smallest; None runs the whole one alone.
        share: of the base in each loss.
        others: weight of each sub-network's loss beside the whole network's 1.
        depth: whether blocks may be skipped.
        in_place: whether sub-networks learn from the whole network, too, or from the base alone.
        changes: of the training's other settings.
    """

    learning_rate: float
    drawn: int | None = 2
    share: float = 0.5
    others: float = 1.0
    depth: bool = True
    in_place: bool = True
    changes: tuple[tuple[str, Any], ...] = ()


RECIPES = {
    **{f"lr{rate:g}": Recipe(rate) for rate in (0.005, 0.02, 0.05)},
    **{f"plain-lr{rate:g}": Recipe(rate, drawn=None) for rate in (0.02, 0.1)},
    **{f"lr{rate:g}-others0.5": Recipe(rate, others=0.5) for rate in (0.05, 0.1)},
    **{f"lr{rate:g}-others0.25": Recipe(rate, others=0.25) for rate in (0.05, 0.1, 0.2)},
    "lr0.05-others0.25-base-teaches": Recipe(0.05, others=0.25, in_place=False),
    "lr0.1-others0.5-base-teaches": Recipe(0.1, others=0.5, in_place=False),
    "lr0.2-others0.125": Recipe(0.2, others=0.125),
    "lr0.02-taught": Recipe(0.02, share=1.0),
    "lr0.02-labels": Recipe(0.02, share=0.0),
    "lr0.02-drawn1": Recipe(0.02, drawn=1),
    "lr0.02-widths": Recipe(0.02, depth=False),
    "lr0.02-warmup": Recipe(0.02, changes=(("warmup_epochs", 1.0),)),
    "lr0.02-unclipped": Recipe(0.02, changes=(("grad_clip", 0.0),)),
}


class _WholeAlone(Sandwich):
    """Steps of the whole network alone."""

    def choices(self) -> list[dict[str, int]]:
        return [self.net.largest]


class _BaseTeaches(Sandwich):
    """Sub-networks learn from the base alone."""

    def _for_others(self, taught: Any, whole: Any) -> Any:
        return taught


def bundle_of(args: argparse.Namespace, seed: int) -> Any:
    """`args.train` training images, `args.val` of val, and the test split."""
    some = args.train + args.val
    return load_data(
        args.data, limit=some, val_fraction=args.val / some, test_limit=args.test_limit, seed=seed,
        image_size=args.image_size,
    )  # fmt: skip


def base_of(args: argparse.Namespace, seed: int, bundle: Any) -> Any:
    """The network, trained to its end."""
    path = args.runs / f"seed{seed}" / "base.pt"
    torch.manual_seed(seed)
    model = baseline(args.architecture, bundle.num_outputs, bundle.in_channels, args.width)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        config = replace(BASE, epochs=args.epochs)
        fit(
            model, bundle.without_test(), config, train_on=("params", "alpha"), select_on=None,
            seed=seed,
        )  # fmt: skip
        torch.save(model.state_dict(), path)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def values(net: Elastic, bundle: Any, split: str) -> dict[str, Any]:
    """The metric of the whole network and of sub-networks, norms recalibrated."""
    norms = norm_batches(bundle)
    generator = np.random.default_rng(0)
    drawn = [net.draw(generator) for _ in range(DRAWN)]
    return {
        "whole": evaluate(net.model, bundle, split).value,
        "middle": evaluate(net.cut(middle(net.variables), norms), bundle, split).value,
        "smallest": evaluate(net.cut(net.smallest, norms), bundle, split).value,
        "drawn": [evaluate(net.cut(one, norms), bundle, split).value for one in drawn],
    }


def train(args: argparse.Namespace, recipe: Recipe, seed: int, bundle: Any, base: Any) -> Any:
    """One elastic training and what became of the networks."""
    plain = bundle.without_test()
    batches = take_batches(plain, torch.device("cpu"))
    net = elastic(
        copy.deepcopy(base), batches[0][0], batches=batches, task=bundle.task, depth=recipe.depth
    )
    config = replace(
        BASE, epochs=args.elastic_epochs, learning_rate=recipe.learning_rate, **dict(recipe.changes)
    )
    taught: type[Sandwich] = Sandwich if recipe.in_place else _BaseTeaches
    kind: type[Sandwich] = _WholeAlone if recipe.drawn is None else taught
    sandwich = kind(
        net, drawn=recipe.drawn or 0, share=recipe.share, others=recipe.others, seed=seed,
        task=bundle.task,
    )  # fmt: skip
    started = time.process_time()
    # its own look at val after each epoch is not what is measured here
    fit_elastic(net, plain.take("val", min(100, plain.size("val"))), config, sandwich, seed=seed)
    seconds = time.process_time() - started
    return {**values(net, bundle, args.judge), "process_seconds": round(seconds, 1)}


def row_of(name: str, found: dict[int, dict[str, Any]], bases: dict[int, float]) -> dict[str, Any]:
    """A recipe's differences against the base in points, a list over the seeds and the mean of each."""
    row: dict[str, Any] = {"recipe": name, "seeds": sorted(found)}
    for what in ("whole", "middle", "smallest", "drawn"):
        points = [
            round(100 * (float(np.mean(np.ravel(one[what])[:DRAWN])) - bases[seed]), 3)
            for seed, one in sorted(found.items())
        ]
        spread = statistics.stdev(points) if len(points) > 1 else None
        row[what] = {"points": points, "mean": statistics.mean(points), "std": spread}
    row["process_seconds"] = [one["process_seconds"] for _, one in sorted(found.items())]
    return row


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--recipes", nargs="+", choices=sorted(RECIPES), default=list(RECIPES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11])
    parser.add_argument("--judge", choices=("val", "test"), default="val")
    parser.add_argument("--data", default="fashion_mnist")
    parser.add_argument("--train", type=int, default=5000, help="images to train on")
    parser.add_argument("--val", type=int, default=5000, help="images to choose on")
    parser.add_argument("--test-limit", type=int, default=None)
    parser.add_argument("--image-size", type=int, default=14)
    parser.add_argument("--architecture", default="resnet20")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=16, help="of the base")
    parser.add_argument("--elastic-epochs", type=int, default=8)
    parser.add_argument("--runs", type=Path, default=Path("runs/elastic_whole"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Train what is missing, print and write the table."""
    args = arguments(words)
    # these have files of their own
    apart = ("recipes", "seeds", "judge", "runs", "out")
    settings = {k: v for k, v in vars(args).items() if k not in apart}
    found: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in args.recipes}
    bases: dict[int, float] = {}
    for seed in args.seeds:
        bundle = bundle_of(args, seed)
        same_settings(args.runs, settings)
        base = base_of(args, seed, bundle)
        at = args.runs / f"seed{seed}" / args.judge
        first = kept(
            at / "base.json", lambda b=base, d=bundle: {"value": evaluate(b, d, args.judge).value}
        )
        bases[seed] = first["value"]
        for name in args.recipes:
            found[name][seed] = kept(
                at / f"{name}.json",
                lambda n=name, s=seed, d=bundle, b=base: train(args, RECIPES[n], s, d, b),
            )
            row = row_of(name, {seed: found[name][seed]}, bases)
            shown = ("whole", "middle", "drawn", "smallest")
            print(seed, f"base {100 * bases[seed]:.2f}", name, *(
                f"{what} {row[what]['mean']:+.2f}" for what in shown
            ), f"{row['process_seconds'][0]} s", flush=True)  # fmt: skip
    rows = [row_of(name, found[name], bases) for name in args.recipes]
    path = write_results(
        "elastic-whole", rows, device=device_name(torch.device("cpu")), folder=args.out,
        name=f"{args.elastic_epochs}-epochs-{args.judge}", notes={
            **{k: str(v) for k, v in vars(args).items() if k not in ("recipes", "runs", "out")},
            "bases": {str(seed): value for seed, value in bases.items()},
            "unit": "points of the metric against the base of the same seed",
        },
        command=command_line(without=("--runs", "--out")),
    )  # fmt: skip
    print(path)


if __name__ == "__main__":
    main()
