"""Pure architecture search, multi-search and differentiable search, one table, and exported latencies.

    python run_all.py --root runs --width 16 --images 4000 --epochs 6

Every search is a job: `darts-core jobs --root runs show nas` shows it in full.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from darts_core.autosearch import ResNet50
from darts_core.export import export_model, load
from darts_core.latency.measure import measure

HERE = Path(__file__).resolve().parent
JOBS = {
    "nas": (["nas.yaml"], []),
    "multi": (["learning_rate.yaml", "nas.yaml"], ["--multi", "serial"]),
    "differentiable": (["differentiable.yaml"], []),
}


def jobs(args: argparse.Namespace, *words: str) -> str:
    command = [sys.executable, "-c", "from darts_core.cli import main; raise SystemExit(main())"]
    done = subprocess.run(
        [*command, "jobs", "--root", args.root, *words], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise SystemExit(f"jobs {' '.join(words)} ended with status {done.returncode}")
    return done.stdout


def search(args: argparse.Namespace, name: str) -> dict:
    files, more = JOBS[name]
    words = ["create", "--name", name, "--code", str(HERE / "code"), "--boot-file", "searched.py"]
    for file in files:
        words += ["--config", str(HERE / file)]
    own = {"images": args.images, "epochs": args.epochs, "width": args.width, "batch": args.batch}
    for key, value in own.items():
        words += ["--arg", f"{key}={value}"]
    words += (
        ["--data", args.data] if Path(args.data).is_dir() else ["--arg", f"data_url={args.data}"]
    )
    words += [
        "--set",
        f"max_iterations={args.epochs}",
        "--set",
        f"general.confirm_seeds={args.seeds}",
    ]
    print(jobs(args, *words, *more, "--devices", args.device, "--wait"))
    return json.loads(jobs(args, "show", name, "--json", "--limit", "1000"))


def statistics(item: dict, name: str) -> str:
    spread = item["std"]
    return f"{item['mean']:.4f}" + (f" +- {spread:.4f}" if spread is not None else "")


def exported_ms(code: str, args: argparse.Namespace, folder: Path, shape: tuple) -> float:
    """Median milliseconds of a batch in ONNX Runtime: latency does not depend on trained values."""
    net = ResNet50(code, in_channels=shape[0], width=args.width)
    model = nn.Sequential(
        net, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(net.out_channels, 10)
    )
    meta = {
        "class_names": [str(i) for i in range(10)], "image_shape": shape, "mean": [0.0], "std": [1.0],
    }  # fmt: skip
    export_model(model.eval(), folder, meta, formats=("onnx",), time_artifacts=False)
    runner, images = load(folder, "onnx"), torch.randn(args.export_batch, *shape)
    return measure(lambda: runner(images), batch=args.export_batch, runtime="onnx").median_ms


def report(args: argparse.Namespace, results: dict[str, dict]) -> None:
    shape = (1, 8, 8) if args.data == "digits" else (1, 28, 28)
    lines = ["search | pick | val accuracy | baseline | test accuracy | baseline | eager ms | params | "
             "settings | cost (trainings) | ONNX ms | baseline ONNX ms | model"]  # fmt: skip
    reference = exported_ms("resnet50", args, Path(args.root) / "export" / "baseline", shape)
    for name, shown in results.items():
        found = shown["summary"]
        best, gain = found["best"], found["gain"][0]
        test = found["test"].get("test_accuracy", {})
        same = best["trial_id"] == found["baseline"]["trial_id"]
        theirs = test.get("baseline")
        ours = theirs if same else test.get("best")
        ms = exported_ms(best["config"]["code"], args, Path(args.root) / "export" / name, shape)
        cells = [
            name,
            best["config"]["code"],
            statistics(gain["best"], name),
            statistics(gain["baseline"], name),
            statistics(ours, name) if ours else "-",
            statistics(theirs, name) if theirs else "-",
            f"{best['values']['latency']:.2f}",
            str(best["additional_data"]["params"]),
            json.dumps({k: v for k, v in best["config"].items() if k != "code"}),
            f"{found['cost']['search']['trainings']:.2f}",
            f"{ms:.2f}",
            f"{reference:.2f}",
            str(Path(best["folder"]) / "output" / (best["model_path"] or "")),
        ]
        lines.append(" | ".join(cells))
        print(f"\n{name}: front (accuracy, latency in ms)")
        for row in shown["rows"]:
            if row["trial_id"] in found["front"]:
                print(f"  {row['code']:40} {row['accuracy']:.4f} {row['latency']:.2f}")
    print("\n" + "\n".join(lines))
    Path(args.root, "table.txt").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", default="runs")
    parser.add_argument(
        "--data", default="/usr/share/datasets/fashion-mnist", help="folder or 'digits'"
    )
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--export-batch", type=int, default=32)
    parser.add_argument("--only", nargs="+", default=list(JOBS), choices=list(JOBS))
    args = parser.parse_args()
    report(args, {name: search(args, name) for name in args.only})


if __name__ == "__main__":
    main()
