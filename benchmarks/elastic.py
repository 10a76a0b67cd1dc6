"""One elastic training against its rivals: ResNet-20 on Fashion-MNIST, several seeds, one results file.

    python -m benchmarks.elastic all --seeds 0 1 2
    python -m benchmarks.elastic base shrink whole shares write --seeds 0 --name vit --architecture vit.yaml \
        --width 96 --recipe train.optimizer=adamw train.learning_rate=0.001 train.weight_decay=0.05

Every step goes on where it was, and what is there already is taken as it is: by seed, by step, by budget.
`base` trains the network to its end, `shrink` is the command with one epoch of fine-tuning a point, `whole`
judges the whole network after the elastic training, `shares` times the points beside the base in turn,
`step` times elastic steps beside plain ones in turn, `memory` compares their peaks
(`benchmarks/elastic_steps.py`), `alone` trains five points' networks from scratch for
as many epochs as base and elastic training together with the same teacher; `prune`, `taylor` and `scaled`
are rivals at common budgets (`benchmarks/elastic_rivals.py`). `again` times all points, ours and theirs,
beside the base in one go: a core may run small networks a quarter slower for minutes. `write` fills the
table of what is there; what was not run is missing from it. Points are compared by their share of the base's
time, and chosen for a budget on val.

Hypervolumes are written by three rules, each with a point of ours for each common budget: `ours` is the best
on val within each; `best_four` the ones within them whose hypervolume on val is the largest, as faster
networks count more in it than better ones; `bounded` are those of `ours`, but time below the tightest budget
counts as that budget, as nobody was asked for less. `whole_front` has all points of ours.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.elastic_case import RECIPE, Case, kept, shares_in_turn, train_config
from benchmarks.elastic_rivals import RIVALS, rival, rival_networks
from benchmarks.elastic_steps import memory, step_cost
from benchmarks.resumable import same_settings
from darts_core.bench.results import command_line, write_results
from darts_core.checkpoint import load_checkpoint
from darts_core.latency import device_name
from darts_core.prune.finetune import fine_tune
from darts_core.runlog import read_json
from darts_core.study.hypervolume import hypervolume
from darts_core.train import evaluate, load_model

STEPS = ("base", "shrink", "whole", "shares", "step", "memory", "alone", *RIVALS, "again", "write")
# the reference point of the hypervolume: what is slower or worse counts nothing
WORST_SHARE, LEAST = 1.05, 0.5


def alone(case: Case, count: int = 5) -> dict[str, Any]:
    """Five points' networks trained from scratch with the same teacher, as long as both trainings."""
    shrunk = case.shrink()
    points = read_json(shrunk / "front.json")["points"]
    places = np.unique(np.linspace(0, len(points) - 1, count).round().astype(int))
    bundle = case.bundle()
    teacher, _ = load_model(case.base() / "model.pt")
    config = train_config(case.recipe, epochs=case.epochs + case.elastic_epochs)
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
                    "alone": evaluate(model, bundle, "test").value}  # fmt: skip

        rows.append(kept(case.folder / "alone" / f"{place}.json", train))
    gains = [row["ours"] - row["alone"] for row in rows]
    return {"rows": rows, "mean_gain": statistics.mean(gains), "worst_gain": min(gains)}


def whole(case: Case) -> dict[str, Any]:
    """The whole network after the elastic training, on test."""
    model, _ = load_model(case.base() / "model.pt")
    bundle = case.bundle()
    before = evaluate(model, bundle, "test").value
    # the same network, its channels moved
    model.load_state_dict(load_checkpoint(case.shrink() / "checkpoint.pt")["model"])
    return {"base": before, "whole": evaluate(model, bundle, "test").value}


def shares(case: Case) -> dict[str, Any]:
    """The points of the front with their shares of the base's time, measured in turn."""
    front = case.shrink()
    content, rows = read_json(front / "front.json"), []
    for point in content["points"]:
        at = front / point["folder"]
        path = case.folder / "shares" / f"{at.name}.json"
        rows.append({
            **kept(path, lambda at=at: {"share": case.share_of(at)}),
            "budget": point["budget_ms"] / content["base"]["latency_ms"],
            "metric": point["metric"],
            "val_metric": point["val_metric"],
            "macs": point["macs"],
        })  # fmt: skip
    return {"points": rows, "test_examples": case.bundle().size("test")}


def judged(case: Case) -> list[str]:
    """The rivals that there are."""
    return [name for name in RIVALS if (case.folder / f"{name}.json").is_file()]


def forget_again(case: Case) -> None:
    """Where a rival came behind `again`: its shares would be of another go than the others'."""
    path = case.folder / "again.json"
    if path.is_file() and not set(judged(case)) <= set(read_json(path)):
        path.unlink()


def again(case: Case, rounds: int = 15) -> dict[str, list[float]]:
    """The shares of the front's points (`shares`) and of each rival's, all sampled in turn in one go."""
    front, base = case.shrink(), load_model(case.base() / "model.pt")
    points = read_json(front / "front.json")["points"]
    networks = {"shares": [load_model(front / p["folder"] / "model.pt")[0] for p in points]}
    networks |= {name: rival_networks(case, name) for name in judged(case)}
    models = [model.eval() for several in networks.values() for model in several]
    found = iter(shares_in_turn(models, base[0], base[1]["image_shape"], rounds))
    return {name: [next(found) for _ in several] for name, several in networks.items()}


def retimed(row: dict[str, Any]) -> dict[str, Any]:
    """`row` with the shares of `again`, where it was run; what each point took before is `first_share`."""
    for name, shares in row.pop("again", {}).items():
        points = [
            {**point, "first_share": point["share"], "share": share}
            for point, share in zip(row[name]["points"], shares, strict=True)
        ]
        row[name] = {**row[name], "points": points}
    return row


def at_budgets(points: Sequence[dict[str, Any]], budgets: Sequence[float]) -> list[dict[str, Any]]:
    """For each budget the point made for it, or for a tighter one, that is best on val."""
    found = []
    for budget in budgets:
        able = [point for point in points if point["budget"] <= budget + 1e-6]
        if able:
            found.append(max(able, key=lambda point: point["val_metric"]))
    return found


def best_together(
    points: Sequence[dict[str, Any]], budgets: Sequence[float]
) -> list[dict[str, Any]]:
    """For each budget a point made for it, or for a tighter one: those of the largest hypervolume on val."""
    able = [[p for p in points if p["budget"] <= budget + 1e-6] for budget in budgets]
    choices = itertools.product(*(found for found in able if found))
    return list(max(choices, key=lambda chosen: area(chosen, metric="val_metric")))


def area(
    points: Sequence[dict[str, Any]],
    least: float = LEAST,
    fastest: float = 0.0,
    metric: str = "metric",
) -> float:
    """Over (log share of the base's time, metric) that the points dominate, up to the reference point.

    Args:
        points: with their `share` and `metric`.
        least: the metric of the reference point; its time is `WORST_SHARE`.
        fastest: a smaller share counts as this one.
        metric: "metric" (test) or "val_metric".
    """
    costs = [(math.log(max(point["share"], fastest)), -point[metric]) for point in points]
    return hypervolume(costs, (math.log(WORST_SHARE), -least)) if costs else 0.0


def ahead_of(
    ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]
) -> list[float | None]:
    """What ours has more than each point of theirs in no more time: the best on val that is no slower.

    Unlike the hypervolume it does not follow from how far below a budget a network happens to fall. None
    where none of ours is as fast.
    """
    found: list[float | None] = []
    for other in theirs:
        able = [point for point in ours if point["share"] <= other["share"]]
        best = max(able, key=lambda point: float(point["val_metric"])) if able else None
        found.append(None if best is None else best["metric"] - other["metric"])
    return found


def summary(case: Case) -> dict[str, Any]:
    """The row of one seed: what was run of the table."""
    row: dict[str, Any] = {"seed": case.seed}
    for name in ("whole", "step", "memory", "alone", *RIVALS, "shares", "again"):
        path = case.folder / f"{name}.json"
        if path.is_file():
            row[name] = read_json(path)
    row = retimed(row)
    if (case.folder / "shrink" / "V001" / "shrink" / "result.json").is_file():
        seconds, result = case.seconds(), read_json(case.shrink() / "result.json")
        row |= {
            "seconds": seconds,
            "cost_in_trainings": (seconds["base"] + seconds["front"]) / seconds["base"],
            "points": result["points"],
            "judged": result["judged"],
            "found_by": result["found_by"],
        }
    if "shares" in row:
        ours = at_budgets(row["shares"]["points"], case.budgets)
        row["ours"] = {"points": ours}
        row["hypervolume"] = {
            name: area(row[name]["points"]) for name in ("ours", *RIVALS) if name in row
        }
        row["hypervolume"]["whole_front"] = area(row["shares"]["points"])
        row["hypervolume"]["best_four"] = area(best_together(row["shares"]["points"], case.budgets))
        row["hypervolume_bounded"] = {
            name: area(row[name]["points"], fastest=min(case.budgets))
            for name in ("ours", *RIVALS)
            if name in row
        }
        row["ahead_of"] = {
            name: ahead_of(row["shares"]["points"], row[name]["points"])
            for name in RIVALS
            if name in row
        }
        half = at_budgets(row["shares"]["points"], [0.5])
        if half and "whole" in row:
            row["half_minus_base"] = half[0]["metric"] - row["whole"]["base"]
    if "whole" in row:
        row["whole_minus_base"] = row["whole"]["whole"] - row["whole"]["base"]
    return row


def compared(
    rows: Sequence[dict[str, Any]], ours: str = "ours", of: str = "hypervolume"
) -> dict[str, Any]:
    """Rival -> the hypervolume that the front has more, over the seeds that have both, paired.

    Args:
        rows: of the seeds.
        ours: "ours" or "best_four", a point for each budget, as a rival has; or "whole_front", all that the
            training gave.
        of: "hypervolume" or "hypervolume_bounded".
    """
    found: dict[str, Any] = {}
    for name in RIVALS:
        more = [row[of][ours] - row[of][name] for row in rows if name in row.get(of, {})]
        if more:
            found[name] = mean_of(more)
    return found


def ahead(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rival -> what the front has more in no more time, the mean of a seed's points, over the seeds."""
    found: dict[str, Any] = {}
    for name in RIVALS:
        seeds = [
            statistics.mean(gains)
            for row in rows
            if (gains := [v for v in row.get("ahead_of", {}).get(name, ()) if v is not None])
        ]
        if seeds:
            found[name] = mean_of(seeds)
    return found


def mean_of(differences: Sequence[float]) -> dict[str, Any]:
    """Mean of paired differences, its standard error (None of a single one), and their number."""
    count = len(differences)
    error = statistics.stdev(differences) / math.sqrt(count) if count > 1 else None
    return {"mean": statistics.mean(differences), "standard_error": error, "n": count}


def main(words: list[str] | None = None) -> None:
    """Parse the command line, run the steps of every seed, write the results file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("steps", nargs="+", choices=("all", *STEPS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", nargs="+", default=["data=fashion_mnist", "data.limit=10000"])
    parser.add_argument("--architecture", default="resnet20")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=20, help="of the base")
    parser.add_argument("--elastic-epochs", type=int, default=10)
    parser.add_argument("--fine-tuning", type=int, default=1, help="epochs of each point")
    parser.add_argument("--front", type=float, nargs="+", default=list(Case.front))
    parser.add_argument("--looks", type=int, default=100)
    parser.add_argument("--budgets", type=float, nargs="+", default=list(Case.budgets))
    parser.add_argument("--recipe", nargs="+", default=list(RECIPE), help="of every other training")
    parser.add_argument("--elastic-recipe", nargs="+", default=[], help="beside its epochs")
    parser.add_argument("--name", default="", help="a word in the results file's name")
    parser.add_argument("--seconds", type=float, default=1.0, help="longest time for one timing")
    parser.add_argument("--rounds", type=int, default=20, help="of the step's timing")
    parser.add_argument("--runs", type=Path, default=Path("runs/elastic"), help="run folders")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args(words)
    cases = [
        Case(seed, args.runs, tuple(args.data), args.architecture, args.width, args.epochs,
             args.elastic_epochs, tuple(args.front), args.looks, tuple(args.budgets), args.fine_tuning,
             args.seconds, tuple(args.recipe), tuple(args.elastic_recipe))
        for seed in args.seeds
    ]  # fmt: skip
    made: dict[str, Callable[[Case], dict[str, Any]]] = {
        "whole": whole,
        "shares": shares,
        "step": lambda case: step_cost(case, args.rounds),
        "memory": memory,
        "alone": alone,
        **{name: lambda case, name=name: rival(case, name) for name in RIVALS},
        "again": again,
    }
    wanted = STEPS if "all" in args.steps else args.steps
    for case in cases:
        for step in (step for step in STEPS[:-1] if step in wanted):
            held: dict[str, Any] = {"rounds": args.rounds} if step == "step" else {}
            if step in RIVALS:
                held = {"budgets": case.budgets}
            # the stages hold to theirs by themselves
            same_settings(case.folder, held)
            if step == "again":
                forget_again(case)
            if step in made:
                kept(case.folder / f"{step}.json", lambda c=case, s=step: made[s](c))
            else:
                {"base": Case.base, "shrink": Case.shrink}[step](case)
    if "write" in wanted:
        for case in cases:
            if judged(case):  # ours enters with a point for each of their budgets
                same_settings(case.folder, {"budgets": case.budgets})
        rows = [summary(case) for case in cases]
        notes = {
            "data": args.data, "architecture": args.architecture, "width": args.width,
            "epochs": args.epochs, "elastic_epochs": args.elastic_epochs, "budgets": args.budgets,
            "fine_tuning": args.fine_tuning, "recipe": args.recipe, "elastic_recipe": args.elastic_recipe,
            "hypervolume_reference": {"share_of_base_time": WORST_SHARE, "metric": LEAST},
            "hypervolume_more_than": compared(rows), "ahead_of": ahead(rows),
            "whole_front_more_than": compared(rows, "whole_front"),
            "best_four_more_than": compared(rows, "best_four"),
            "bounded_more_than": compared(rows, of="hypervolume_bounded"),
        }  # fmt: skip
        device = device_name(torch.device("cpu"))
        made_at = write_results(
            "elastic", rows, device=device, folder=args.out, notes=notes, name=args.name,
            command=command_line(without=("--runs", "--out")),
        )  # fmt: skip
        print(made_at)


if __name__ == "__main__":
    main()
