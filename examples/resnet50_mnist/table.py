"""The table over the finished searches: the picks and ResNet-50 exported and timed in one runtime."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, thread_time

import numpy as np
import torch
from torch import nn

from darts_core.autosearch import ResNet50
from darts_core.bench.results import write_results
from darts_core.export import export_model, load
from darts_core.latency.measure import measure
from darts_core.latency.timing import Timing
from darts_core.latency.turns import in_turn
from darts_core.report import Latency, ModelRow
from darts_core.study.results import read_rows

SHAPES = {"digits": (1, 8, 8)}
CLASSES = 10


def exported(config: dict, model: Path, folder: Path, args: argparse.Namespace) -> Callable:
    """The trained network of a trial, exported and loaded again: ONNX Runtime, on a GPU pt2."""
    shape = SHAPES.get(args.data, (1, 28, 28))
    net = ResNet50(config["code"], in_channels=shape[0], width=args.width)
    network = nn.Sequential(
        net, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(net.out_channels, CLASSES)
    )
    network.load_state_dict(torch.load(model, map_location="cpu", weights_only=True))
    runtime = "onnx" if args.device == "cpu" else "pt2"
    meta = {"class_names": [str(i) for i in range(CLASSES)], "image_shape": shape, "mean": [0.0],
            "std": [1.0]}  # fmt: skip
    export_model(
        network.eval(), folder, meta, formats=(runtime,), device=args.device, time_artifacts=False
    )
    runner = load(folder, runtime, device=args.device, threads=1)
    images = torch.randn(args.export_batch, *shape)
    return lambda: runner(images)


def timing(call: Callable, args: argparse.Namespace) -> Timing:
    """Milliseconds a batch; one thread on a CPU."""
    runtime = "onnx" if args.device == "cpu" else "pt2"
    return measure(call, device=args.device, batch=args.export_batch, runtime=runtime, threads=1)


def accuracies(found: dict, side: str, metric: str) -> list[float]:
    """A metric of the confirming runs, one value a fresh seed."""
    if found["best"]["trial_id"] == found["baseline"]["trial_id"]:
        side = "baseline"
    rows = [r for r in read_rows(Path(found["best"]["folder"]).parents[2])
            if r["phase"] == "confirm" and r["confirms"] == side and r["state"] == "done"]  # fmt: skip
    merged = [
        {**r["additional_data"], **r["values"]} for r in sorted(rows, key=lambda r: r["seed"])
    ]
    return [float(m[metric]) for m in merged if metric in m]


def costs(found: dict) -> dict[str, float]:
    """Trainings of the search with and without trial 0's, by the clock and by processor time.

    Other work on the machine disturbs the clock; processor time says less about a GPU.
    """
    whole, alone = found["cost"]["search"], found["cost"]["besides_yours"]
    return {
        "clock_with_trial_0": whole["trainings"],
        "clock_search_alone": alone["trainings"],
        "processor_with_trial_0": whole["processor_trainings"],
        "processor_search_alone": alone["processor_trainings"],
        "trial_0_seconds": found["baseline"]["time_total_s"],
        "trial_0_processor_seconds": found["baseline"]["cpu_seconds"],
    }


def row_of(
    name: str, trial: dict, test: list[float], time: Timing, args: argparse.Namespace, extra: dict
) -> ModelRow:
    """A row of the results file; ResNet-50's stands first and is the baseline."""
    kind = "baseline" if trial.get("is_baseline") and name == "ResNet-50" else "searched"
    return ModelRow(
        name=name,
        kind=kind,
        runtime=time.runtime,
        params=trial["additional_data"]["params"],
        accuracies=tuple(test),
        latency={args.export_batch: Latency.from_timing(time)},
        device=time.device,
        data=Path(args.data).name,
        baseline=kind == "baseline",
        extra={"config": trial["config"], **extra},
    )


def text(values: list[float]) -> str:
    """Mean +- sample standard deviation."""
    if not values:
        return "-"
    tensor = torch.tensor(values, dtype=torch.float64)
    return f"{tensor.mean():.4f}" + (f" +- {tensor.std():.4f}" if len(values) > 1 else "")


def speedups(first: Callable, second: Callable, args: argparse.Namespace) -> dict:
    """How many times faster the second call is: median, 5 and 95 % quantiles of pairs taken in turn.

    On a CPU both run in one thread, whose processor time is taken: other work on the machine interrupts the
    slower network more often, and by the clock would flatter the faster one.
    """
    clock = thread_time if args.device == "cpu" else perf_counter
    pairs = in_turn(first, second, device=args.device, rounds=31, seconds=0.2, clock=clock)
    low, middle, high = np.quantile([a / b for a, b in pairs], [0.05, 0.5, 0.95])
    return {"median": float(middle), "q05": float(low), "q95": float(high), "n": len(pairs)}


def line_of(row: ModelRow, model: Path, times: str, cost: dict | None) -> str:
    """A row of the printed table."""
    settings = {k: v for k, v in row.extra["config"].items() if k != "code"}
    cells = [
        row.name,
        row.extra["config"]["code"],
        json.dumps(settings),
        text(row.extra["val_accuracies"]),
        text(list(row.accuracies)),
        str(row.params),
        f"{next(iter(row.latency.values())).median_ms:.2f}",
        times,
        *(
            f"{cost[f'clock_{what}']:.2f} ({cost[f'processor_{what}']:.2f})" if cost else "-"
            for what in ("with_trial_0", "search_alone")
        ),
        str(model),
    ]
    return " | ".join(cells)


def print_front(name: str, shown: dict) -> None:
    """The trials that no other one beats in both objectives."""
    print(f"\n{name}: front (accuracy, latency in ms as the trials measured it)")
    for row in shown["rows"]:
        if row["trial_id"] in shown["summary"]["front"]:
            print(f"  {row['code']:40} {row['accuracy']:.4f} {row['latency']:.2f}")


def report(searches: dict[str, dict], args: argparse.Namespace, jobs: Callable) -> None:
    """Print fronts and table, write `table.txt`, and a results file with `--out`."""
    root = Path(args.root)
    first = next(iter(searches.values()))["summary"]
    base = first["baseline"]
    model = Path(base["folder"]) / "output" / base["model_path"]
    own = exported(base["config"], model, root / "export" / "baseline", args)
    reference = timing(own, args)
    val = accuracies(first, "baseline", "accuracy")
    test = accuracies(first, "baseline", "test_accuracy")
    rows = [row_of("ResNet-50", base, test, reference, args, {"val_accuracies": val})]
    lines = [
        "search | code | settings | val accuracy | test accuracy | params | exported ms | speed-up | "
        "cost with trial 0: clock (processor) | search alone: clock (processor) | model",
        line_of(rows[0], model, "1x", None),
    ]
    for name, shown in searches.items():
        found = shown["summary"]
        taken = root / "export" / name
        jobs(args, "best", name, "--export", str(taken))
        model = taken / Path(found["best"]["model_path"]).name
        pick = exported(found["best"]["config"], model, taken, args)
        time, ratio = timing(pick, args), speedups(own, pick, args)
        extra = {
            "speedup_in_turn": ratio,
            "val_accuracies": accuracies(found, "best", "accuracy"),
            "baseline_test_accuracies": accuracies(found, "baseline", "test_accuracy"),
            "cost_in_trainings": costs(found),
            "trials": found["trials"],
            "verdict": found["verdict"],
        }
        test = accuracies(found, "best", "test_accuracy")
        rows.append(row_of(name, found["best"], test, time, args, extra))
        times = f"{ratio['median']:.2f}x ({ratio['q05']:.2f} to {ratio['q95']:.2f})"
        lines.append(line_of(rows[-1], model, times, extra["cost_in_trainings"]))
        print_front(name, shown)
    print("\n" + "\n".join(lines))
    (root / "table.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if args.out:
        sizes = {key: getattr(args, key) for key in ("images", "epochs", "width", "batch")}
        notes = {
            **sizes,
            "fresh_seeds": args.seeds,
            "accuracy": "of the test images, which only the confirming runs read",
            "speedup_in_turn": "over ResNet-50, both exported networks in turn, a pair a round; on a CPU by "
            "the processor time of their one thread",
            "cost": "a multiple of trial 0's training (ResNet-50); confirming runs are not counted",
        }
        print(
            write_results("autosearch", rows, device=reference.device, folder=args.out, notes=notes)
        )
