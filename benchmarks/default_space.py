"""Which space `run` should search by default: seven ways to half of ResNet-8's time, at about equal cost.

    OMP_NUM_THREADS=1 python -m benchmarks.default_space digits            # goes on where it was killed
    OMP_NUM_THREADS=1 python -m benchmarks.default_space fashion_mnist --ways convnet resnet

Each way is the real commands: a search that aims at half of the time of ResNet-8 (width 16) with finalists,
then one training; or (`elastic`) a training of ResNet-8 and `shrink` to half of its time. Epochs of the
searches are such that no way takes much more processor time than another; it is stated (of a command that was
killed and went on, that of its last sitting), as are misses of the aim. Neither folds nor seeds are those of
the demo's judge (`benchmarks.demo_folds`).

Times are those of ONNX files at batch 32; the network and ResNet-8 take turns, so that the ratio holds beside
other work.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.demo_folds import write_fold
from benchmarks.demo_judge import interleaved, paired, ratio
from benchmarks.elastic_case import kept
from darts_core import cli
from darts_core.bench.results import write_results
from darts_core.export import export_model, load
from darts_core.latency import device_name
from darts_core.models.baselines import baseline
from darts_core.runlog import read_json, write_json
from darts_core.train import load_model, save_model

_FOLD_SEED, _SEED, _BATCH = 31, 300, 32
# a way's own sizes: as large as half of ResNet-8's time allows; epochs by data, for equal processor time
CELLS, CHOICES = ["relax=softmax"], ["relax=gumbel"]
WAYS: dict[str, list[str]] = {
    "convnet": ["space=convnet", "search.channels=16", "search.layers=1", *CHOICES],
    "convnet_deep": ["space=convnet_deep", "search.channels=16", "search.layers=1", *CHOICES],
    "resnet": ["space=resnet", "search.channels=16", "search.layers=1", *CHOICES],
    "mobilenet": ["space=mobilenet", "search.channels=16", "search.layers=1", *CHOICES],
    "nasbench201": ["space=nasbench201", "search.channels=8", "search.layers=1", *CELLS],
    "darts": ["space=darts", "search.channels=4", "search.layers=3", *CELLS],
    "elastic": [],
}
EPOCHS = {
    "digits": {
        "convnet": 24, "convnet_deep": 24, "resnet": 40, "mobilenet": 20, "nasbench201": 24, "darts": 4,
        "elastic": 20,
    },
    "fashion_mnist": {
        "convnet": 8, "convnet_deep": 8, "resnet": 8, "mobilenet": 4, "nasbench201": 3, "darts": 1,
        "elastic": 4,
    },
}  # fmt: skip
RECIPE = {"digits": 30, "fashion_mnist": 8}
SHARE = 0.5


def words(data: str, way: str, seed: int, runs: Path) -> list[str]:
    """The settings that every command of a way is given."""
    if data == "digits":
        path = write_fold(seed, runs / "data", _FOLD_SEED).resolve()
        given = ["data=npz", f"data.path={path}"]
    else:
        given = [
            "data=fashion_mnist",
            "data.path=/usr/share/datasets/fashion-mnist",
            "data.limit=3000",
        ]
        given += ["data.test_limit=5000", f"data.seed={_SEED + seed}"]
    shared = [
        f"seed={_SEED + seed}",
        "device=cpu",
        f"job={data}-{way}-{seed}",
        f"out={runs}",
        "version=V001",
    ]
    recipe = [f"train.epochs={RECIPE[data]}", "train.batch_size=64", "train.learning_rate=0.08",
              "train.weight_decay=1e-3", "train.label_smoothing=0.1", "train.drop_path=0.0"]  # fmt: skip
    return [*given, *shared, *recipe]


def command(argv: Sequence[str], seconds: Path) -> float:
    """Processor seconds of a command that must end well; kept in a file, as a finished one takes none."""

    def finished() -> dict[str, float]:
        started = time.process_time()
        if cli.main(list(argv)):
            raise SystemExit(f"{' '.join(argv)} failed")
        return {"seconds": time.process_time() - started}

    return float(kept(seconds, finished)["seconds"])


def made(data: str, way: str, seed: int, runs: Path) -> tuple[Path, dict[str, float]]:
    """The folder of the network of a way, and processor seconds by stage."""
    given, epochs = words(data, way, seed, runs), EPOCHS[data][way]
    version = runs / f"{data}-{way}-{seed}" / "V001"
    taken: dict[str, float] = {}

    def run(name: str, *more: str) -> None:
        at = runs / "seconds" / f"{data}-{way}-{seed}-{name}.json"
        taken[name] = command([name, *more], at)

    if way == "elastic":
        run("train", *given, "architecture=resnet8", "train.channels=16")
        small = [
            "shrink.budgets=[50%]",
            "shrink.pick=50%",
            f"shrink.epochs={epochs}",
            "shrink.export=false",
        ]
        run("shrink", *given, *small)
        return version / "shrink", taken
    own = WAYS[way]
    sizes = [word.replace("search.", "train.") for word in own if word.startswith("search.")]
    plain = [word for word in given if not word.startswith("train.")]
    search = [f"search.epochs={epochs}", f"search.alpha_warmup_epochs={epochs // 3}", "search.batch_size=64",
              "search.learning_rate=0.05", "search.guards.eigenvalue=null", f"latency.share={SHARE}",
              "latency.firm=false", "latency.baseline=resnet8", "latency.baseline_width=16",
              "latency.wait_seconds=3"]  # fmt: skip
    run("search", *plain, *own, *search)
    run("train", *given, *sizes)
    return version / "train", taken


def time_over_resnet8(folder: Path, shape: Sequence[int]) -> tuple[float, float]:
    """(the network's time over ResNet-8's, its standard error), both as ONNX files, in turn."""
    x_BCHW = torch.randn(_BATCH, *shape, generator=torch.Generator().manual_seed(0))
    node = {"name": "resnet8", "num_classes": 10, "in_channels": shape[0], "width": 16}
    model, meta = load_model(folder / "model.pt")
    rival = baseline(**node).eval()
    own = ("architecture", "build", "baseline", "replaced", "sizes")
    about = {k: v for k, v in meta.items() if k not in own}
    calls = {}
    for name, network, described in (
        ("ours", model, meta), ("resnet8", rival, {**about, "baseline": node})
    ):  # fmt: skip
        home = folder / "timed" / name
        home.mkdir(parents=True, exist_ok=True)
        save_model(home / "model.pt", network, described)
        export_model(network, home, described, formats=("onnx",), time_artifacts=False)
        loaded = load(home, "onnx", device="cpu")
        calls[name] = lambda loaded=loaded: loaded(x_BCHW)
    with torch.inference_mode():
        taken = interleaved(calls, rounds=20)
    return ratio(taken["ours"], taken["resnet8"])


def judge(data: str, way: str, seed: int, runs: Path) -> dict[str, Any]:
    """The row of a way and a seed; read where it is known."""
    path = runs / f"{data}-{way}-{seed}.json"
    if path.is_file():
        return dict(read_json(path))
    folder, taken = made(data, way, seed, runs)
    result = read_json(folder / "result.json")
    over, error = time_over_resnet8(folder, (1, 8, 8) if data == "digits" else (1, 28, 28))
    search = folder.parent / "search" / "result.json"
    found = read_json(search) if search.is_file() else {}
    row = {
        "data": data, "way": way, "seed": _SEED + seed,
        "val_accuracy": result["val_accuracy"], "test_accuracy": result["test_accuracy"],
        "params": result["params"], "time_over_resnet8": over, "time_standard_error": error,
        "processor_seconds": {k: round(v, 1) for k, v in taken.items()},
        "missed": (found.get("aim") or {}).get("missed", ""), "doubt": found.get("doubt", ""),
        "architecture": found.get("text", ""),
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, row)
    print(f"{data} {way} seed {row['seed']}: {100 * row['test_accuracy']:.2f} %, x{over:.2f}, "
          f"{sum(taken.values()):.0f} s", flush=True)  # fmt: skip
    return row


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a way: means over seeds, and how much better the best within the aim is, paired by seed."""
    ways = list(dict.fromkeys(row["way"] for row in rows))
    by_way = {way: {row["seed"]: row for row in rows if row["way"] == way} for way in ways}

    def mean(way: str, key: str) -> float:
        return float(np.mean([row[key] for row in by_way[way].values()]))

    within = [way for way in ways if mean(way, "time_over_resnet8") <= 1.05 * SHARE]
    best = max(within or ways, key=lambda way: mean(way, "test_accuracy"))
    found = []
    for way, own in by_way.items():
        accuracy = [100 * row["test_accuracy"] for row in own.values()]
        seeds = [seed for seed in own if seed in by_way[best]]
        more = [by_way[best][s]["test_accuracy"] - own[s]["test_accuracy"] for s in seeds]
        error = paired(np.array(more), np.zeros(len(more)))[1] if len(more) > 1 else None
        found.append({
            "way": way, "n": len(own), "test_accuracy": float(np.mean(accuracy)),
            "spread": float(np.std(accuracy, ddof=1)) if len(accuracy) > 1 else None,
            "time_over_resnet8": mean(way, "time_over_resnet8"),
            "processor_seconds": float(np.mean([sum(r["processor_seconds"].values()) for r in own.values()])),
            "best": best, "best_minus_this": 100 * float(np.mean(more)), "paired_standard_error": error,
        })  # fmt: skip
    return found


def main() -> None:
    """Parse the command line, run what is missing, write the results file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("data", choices=list(EPOCHS))
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--note", default="", help="of the machine's state, for the results file")
    parser.add_argument("--runs", type=Path, default=Path("runs/default_space"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    for seed in args.seeds:
        for way in args.ways:
            judge(args.data, way, seed, args.runs)
    # of earlier calls, too
    rows = [dict(read_json(path)) for path in sorted(args.runs.glob(f"{args.data}-*.json"))]
    table = summary(rows)
    path = write_results(
        "default-space", [*table, *rows], device=device_name(torch.device("cpu")), folder=args.out,
        name=args.data, notes={
            "ways": WAYS, "epochs": EPOCHS[args.data], "training_epochs": RECIPE[args.data],
            "share_of_resnet8": SHARE, "batch": _BATCH, "threads": torch.get_num_threads(),
            "state_of_the_machine": args.note,
        },
    )  # fmt: skip
    for row in table:
        error = row["paired_standard_error"]
        spread = "" if error is None else f" ± {error:.2f}"
        print(f"{row['way']:12s} {row['test_accuracy']:6.2f} % ({row['n']})  {row['best']} is "
              f"{row['best_minus_this']:+.2f}{spread} better  time x{row['time_over_resnet8']:.2f}  "
              f"{row['processor_seconds']:.0f} s")  # fmt: skip
    print(path)


if __name__ == "__main__":
    main()
