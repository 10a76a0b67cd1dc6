"""What every method finds in NAS-Bench-201: all strategies and relaxations over seeds.

    python -m benchmarks.nasbench201_methods --data train.parquet --device cuda    # CIFAR-10 (JPEG), 3 seeds
    python -m benchmarks.nasbench201_methods --device cpu --limit 200 --epochs 2 --channels 4 --layers 1 \
        --out runs/try
    python -m benchmarks.nasbench201_methods --data train.parquet --device cpu --limit 8500 --image-size 16 \
        --channels 8 --layers 1 --epochs 10 --contest 10 --random-epochs 93 --out runs/small   # equal costs

Sizes are the benchmark's: 16 channels, 5 cells a stage, 50 epochs of batch 64, half of the training images
for alpha. Strategies run with softmax, relaxations with first order; `FITTED` says what a method's file
becomes in this space. Accuracies are not looked up here: the file holds what was found, with the final
weights. Without `--data` the digits are searched.

`--contest N` adds N seeds of three contestants: the default of `run` for cells (single networks are drawn and
trained, finalists decide), random search (`--random-epochs` make its cost the default's, one training for
every four epochs) and a zero-cost prior alone. Methods run without finalists then: theirs is the pick.

Every search is a `darts-core` command in a run folder of its own. After `--minutes` the running one is asked
to save and stop; the same call goes on from there, and ends with status 0 when nothing is left and 3 when
something is. A call with other settings is refused there. The results file is written anew by every call.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.full_search import ROOT, SHARES, device_name, go_on
from benchmarks.resumable import UNFINISHED
from darts_core.bench.results import command_line, write_results
from darts_core.runlog import read_json, read_jsonl

# DrNAS's partial channels are made for 36 channels, P-DARTS's depths for a cell space of 5 to 17 cells
FITTED: dict[str, list[str]] = {
    "drnas_progressive": [
        "relax=dirichlet",
        "strategy.stages=[{operations:null,channel_fraction:4},{operations:3,channel_fraction:2}]",
    ],
    "p_darts": [
        "search.layers={shallow}",
        "strategy.stages=[{extra_layers:0},{extra_layers:{deeper},operations:4,skip_dropout:0.4},"
        "{extra_layers:{deepest},operations:3,skip_dropout:0.7}]",
    ],
}
# of `--contest`: the default of `run` for cells, and what it is compared with
CONTEST: dict[str, list[str]] = {
    "default": ["relax=gumbel"],
    "random_search": ["strategy=random_search", "search.finalists=1"],
    "zero_cost": ["strategy=zero_cost", "search.finalists=1"],
}


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--data", help="parquet file with images and labels; the digits if left out"
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("runs/nasbench201_methods"))
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--minutes", type=float, default=9.0, help="stop after so many; call again")
    parser.add_argument(
        "--only", nargs="*", help="names of strategies and relaxations; all by default"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=None, help="images to use; all by default")
    parser.add_argument("--image-size", type=int, default=None, help="pixels a side; as they are")
    parser.add_argument(
        "--contest", type=int, default=0, help="seeds of the default and its rivals"
    )
    parser.add_argument("--random-epochs", type=int, default=40, help="of random search there")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--layers", type=int, default=5, help="cells a stage")
    return parser.parse_args()


def methods(only: list[str] | None) -> list[tuple[str, str]]:
    """(group, name) of every strategy, then of every relaxation but softmax, which strategies run with."""
    found = [
        (group, path.stem)
        for group in ("strategy", "relax")
        for path in sorted((ROOT / "conf" / group).glob("*.yaml"))
        if path.stem != "softmax"
    ]
    unknown = set(only or ()) - {name for _, name in found}
    if unknown:
        raise SystemExit(
            f"No such method: {', '.join(sorted(unknown))}; there are "
            f"{', '.join(name for _, name in found)}."
        )
    return [(group, name) for group, name in found if not only or name in only]


def parts(args: argparse.Namespace) -> dict[str, list[str]]:
    """Name -> `darts-core` arguments of every search, all methods of one seed before the next seed."""
    data = ["data=digits"]
    if args.data:
        data = ["data=parquet", f"data.path={Path(args.data).resolve()}", *SHARES]
    if args.limit:
        data.append(f"data.limit={args.limit}")
    if args.image_size:
        data.append(f"data.image_size={args.image_size}")
    shallow = max(1, args.layers // 3)
    depths = {"shallow": shallow, "deeper": (args.layers - shallow) // 2}
    depths["deepest"] = args.layers - shallow

    def words(seed: int, epochs: int, *own: str) -> list[str]:
        return [
            "search", "space=nasbench201", *data, f"device={args.device}", f"out={args.out}",
            f"seed={seed}", f"search.epochs={epochs}", f"search.batch_size={args.batch_size}",
            f"search.channels={args.channels}", f"search.layers={args.layers}",
            *augmentation(args), *own,
        ]  # fmt: skip

    found = {}
    for seed in range(args.contest):
        for name, own in CONTEST.items():
            epochs = args.random_epochs if name == "random_search" else args.epochs
            more = [f"strategy.candidates={max(1, epochs // 4)}"] if name == "random_search" else []
            found[f"search-{name}-seed{seed}"] = words(seed, epochs, *own, *more)
    alone = ["search.finalists=1"] if args.contest else []
    for seed in range(args.seeds):
        for group, name in methods(args.only):
            fitted = FITTED.get(name, [])
            for key, value in depths.items():
                fitted = [word.replace(f"{{{key}}}", str(value)) for word in fitted]
            own = words(seed, args.epochs, f"{group}={name}", *alone, *fitted)
            found.setdefault(f"search-{name}-seed{seed}", own)
    return found


def augmentation(args: argparse.Namespace) -> list[str]:
    """Crops and flips for photographs; none for the digits, where a flip is another sign."""
    padding = max(1, (args.image_size or 32) // 8)
    return [f"search.crop_padding={padding}", "search.flip=true"] if args.data else []


def row_of(folder: Path, name: str) -> dict[str, Any]:
    """What one finished search found."""
    result = read_json(folder / "result.json")
    history = read_jsonl(folder / "metrics.jsonl")
    keys = (
        "text",
        "val_accuracy",
        "device_seconds",
        "steps",
        "guards",
        "stopped",
        "seed",
        "peak_mib",
    )
    return {
        "name": name,
        "method": name.split("-")[1],
        **{key: result[key] for key in keys},
        "finalists": result.get("finalists"),
        "alphas": history[-1]["alphas"],
        "found_by_epoch": [line["architecture"] for line in history],
    }


def main() -> None:
    """Run what is missing until time is up, and write what is there."""
    args = options()
    args.out = args.out.resolve()
    rows, left = go_on(args, parts(args), row_of)
    if rows:
        path = write_results(
            "nasbench201-methods",
            rows,
            device=device_name(args.device),
            folder=args.results,
            command=command_line(),
            notes={
                "data": f"{Path(args.data).name if args.data else 'digits'}, limit {args.limit}, "
                f"images of {args.image_size or 'their own'} pixels a side",
                "contest": CONTEST,
                "fitted": FITTED,
                "left": left,
            },
            name=args.out.name,
        )
        print(path)
    for row in rows:
        print(f"{row['name']:36s} {row['device_seconds']:8.1f} s  {row['text']}")
    if left:
        print(f"{len(left)} searches left ({left[0]} ...): run the same command again")
        raise SystemExit(UNFINISHED)


if __name__ == "__main__":
    main()
