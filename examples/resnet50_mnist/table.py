"""The table over the finished searches: the picks and ResNet-50 exported and timed in one runtime."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from darts_core.autosearch import ResNet50
from darts_core.bench.results import write_results
from darts_core.export import export_model, load
from darts_core.jobs.results import read_rows
from darts_core.latency.measure import measure, speedup
from darts_core.latency.timing import Timing
from darts_core.report import Latency, ModelRow

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
    """Trainings of the search with and without trial 0, by the clock and by processor time.

    Other work on the machine disturbs the clock; processor time says less about a GPU.
    """
    rows = [
        r for r in read_rows(Path(found["best"]["folder"]).parents[2]) if r["phase"] != "confirm"
    ]
    result = {}
    for name, key in (("clock", "time_total_s"), ("processor", "cpu_seconds")):
        unit = float(found["baseline"][key])
        total = sum(float(r[key]) for r in rows) / unit
        result[f"{name}_with_trial_0"], result[f"{name}_search_alone"] = total, total - 1
    return {**result, "trial_0_seconds": float(found["baseline"]["time_total_s"])}


def row_of(name: str, kind: str, trial: dict, test: list[float], time: Timing, args: argparse.Namespace,
           extra: dict) -> ModelRow:  # fmt: skip
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
        extra=extra,
    )


def text(values: list[float]) -> str:
    """Mean +- sample standard deviation."""
    if not values:
        return "-"
    tensor = torch.tensor(values, dtype=torch.float64)
    return f"{tensor.mean():.4f}" + (f" +- {tensor.std():.4f}" if len(values) > 1 else "")


def faster(reference: Timing, time: Timing) -> str:
    """The speed-up; none is stated of timings that other work disturbed."""
    flagged = reference.flagged or time.flagged
    return "disturbed" if flagged else f"{speedup(reference, time):.2f}x"


def report(searches: dict[str, dict], args: argparse.Namespace, jobs: Callable) -> None:
    """Print fronts and table, write `table.txt`, and a results file with `--out`."""
    root = Path(args.root)
    hers = next(iter(searches.values()))["summary"]
    base = hers["baseline"]
    base_model = Path(base["folder"]) / "output" / base["model_path"]
    base_call = exported(base["config"], base_model, root / "export" / "baseline", args)
    base_time = timing(base_call, args)
    val, test = (
        accuracies(hers, "baseline", "accuracy"),
        accuracies(hers, "baseline", "test_accuracy"),
    )
    lines = ["search | pick | settings | val accuracy | test accuracy | params | exported ms | speed-up | "
             "cost with trial 0 | cost of the search alone | model"]  # fmt: skip
    lines.append(
        f"(yours) | {base['config']['code']} |  | {text(val)} | {text(test)} | "
        f"{base['additional_data']['params']} | {base_time.median_ms:.2f} | | 1 | 0 | {base_model}"
    )
    rows = [row_of("ResNet-50", "baseline", base, test, base_time, args,
                   {"code": base["config"]["code"], "val_accuracies": val})]  # fmt: skip
    for name, shown in searches.items():
        found = shown["summary"]
        best = found["best"]
        taken = root / "export" / name
        jobs(args, "best", name, "--export", str(taken))
        model = taken / Path(best["model_path"]).name
        time = timing(exported(best["config"], model, taken, args), args)
        val, test = (
            accuracies(found, "best", "accuracy"),
            accuracies(found, "best", "test_accuracy"),
        )
        theirs = accuracies(found, "baseline", "test_accuracy")
        cost = costs(found)
        settings = {k: v for k, v in best["config"].items() if k != "code"}
        lines.append(
            f"{name} | {best['config']['code']} | {json.dumps(settings)} | {text(val)} | {text(test)} | "
            f"{best['additional_data']['params']} | {time.median_ms:.2f} | {faster(base_time, time)} | "
            f"{cost['clock_with_trial_0']:.2f} | {cost['clock_search_alone']:.2f} | {model}"
        )
        rows.append(
            row_of(name, "searched", best, test, time, args, {
                "config": best["config"], "val_accuracies": val, "baseline_test_accuracies": theirs,
                "cost_in_trainings": cost, "trials": found["trials"], "verdict": found["verdict"],
            })
        )  # fmt: skip
        print(f"\n{name}: front (accuracy, latency in ms as the trials measured it)")
        for row in shown["rows"]:
            if row["trial_id"] in found["front"]:
                print(f"  {row['code']:40} {row['accuracy']:.4f} {row['latency']:.2f}")
    print("\n" + "\n".join(lines))
    (root / "table.txt").write_text("\n".join(lines) + "\n")
    if args.out:
        notes = {"images": args.images, "epochs": args.epochs, "width": args.width, "batch": args.batch,
                 "fresh_seeds": args.seeds, "accuracy": "of the test images, read by confirming runs only",
                 "cost": "in trainings of trial 0 (ResNet-50); confirming runs are not counted"}  # fmt: skip
        print(
            write_results("autosearch", rows, device=base_time.device, folder=args.out, notes=notes)
        )
