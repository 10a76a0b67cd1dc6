"""The demo's recipe judged on all 1,797 digits: five folds, the test part of each chose nothing.

    python -m benchmarks.demo_folds                  # goes on where it was killed; --folds 0 1 for some
    python -m benchmarks.demo_folds --only-time      # the times again, on a quiet machine
    python -m benchmarks.demo_folds --choosing --runs runs/choosing   # other folds and seeds: to try settings

For each fold `darts-core run experiment=demo` searches, tunes, trains and exports a network, and tunes and
trains its rivals over the same trials: ResNet-8 of width 4, 8, 16 and 32, and a network drawn by hand (three
3x3 convolutions of 16, 48 and 48 channels, two max pools). A killed benchmark goes on where it was; one with
other folds, seeds or settings is refused there.

Accuracies are pooled over the folds, differences paired by image. Times are those of the exported files, each
network in its fastest form, at one batch size; all networks of a fold take turns, so that ratios hold under
other work too, while milliseconds do not.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.demo_judge import interleaved, line_at, paired, ratio
from benchmarks.resumable import same_settings
from darts_core import cli
from darts_core.architecture import Architecture
from darts_core.bench.results import slug, write_results
from darts_core.data.digits import load_digits
from darts_core.data.load import load_data
from darts_core.data.splits import stratified_pick
from darts_core.export import export_model, load, read_manifest
from darts_core.latency import device_name
from darts_core.runlog import read_json, write_json
from darts_core.spaces import ChoiceSpace, get_space
from darts_core.train import load_model

FOLDS = 5
# folds and seeds of the judge, with which no setting was chosen; and those to choose with
_JUDGING, _CHOOSING = (20_261_127, 100), (7, 200)
OURS, RIVAL, HAND = "searched", "ResNet-8, width 16", "three convolutions by hand"
PLACES = {
    RIVAL: "baseline/train",
    "ResNet-8, width 4": "rivals/resnet8-w4/train",
    "ResNet-8, width 8": "rivals/resnet8-w8/train",
    "ResNet-8, width 32": "rivals/resnet8-w32/train",
    HAND: "rivals/hand/train",
}
FORMS = ("onnx", "pt2")
_BY_HAND = {"levels": 3, "level1.width": 1, "level2.width": 3, "level3.width": 3}


def write_fold(fold: int, folder: Path, seed: int) -> Path:
    """The images of a fold: its fifth of every class for the test, the others for everything else."""
    path = folder / f"fold{fold}.npz"
    if not path.is_file():
        raw = load_digits()
        rng, left = np.random.default_rng(seed), np.arange(len(raw.targets))
        tests = []
        for number in range(FOLDS):
            picked, left = stratified_pick(
                raw.targets, left, round(len(left) / (FOLDS - number)), rng
            ) if number < FOLDS - 1 else (left, left[:0])  # fmt: skip
            tests.append(picked)
        test = tests[fold]
        rest = np.setdiff1d(np.arange(len(raw.targets)), test)
        images = raw.inputs[:, 0]
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(
            path,
            x_train=images[rest], y_train=raw.targets[rest],
            x_test=images[test], y_test=raw.targets[test],
        )  # fmt: skip
    return path


def write_hand(folder: Path) -> Path:
    """The network that a person draws in ten minutes, as an architecture file."""
    space = get_space("convnet")
    assert isinstance(space, ChoiceSpace)
    made = {label: _BY_HAND.get(label, options[0]) for label, options in space.choices}
    path = folder / "hand.yaml"
    Architecture(space.name, choices=tuple(made.items())).to_yaml(path)
    return path


def run_fold(fold: int, runs: Path, seeds: tuple[int, int], more: Sequence[str]) -> Path:
    """The version's folder of a fold, its run finished."""
    data, hand = write_fold(fold, runs / "data", seeds[0]), write_hand(runs / "data")
    status = cli.main(
        ["run", "experiment=demo", "data=npz", f"data.path={data.resolve()}",
         f"seed={seeds[1] + fold}", f"bench.rivals=[4,8,32,{hand.resolve()}]",
         f"job=fold{fold}", f"out={runs}", "version=V001", *more]
    )  # fmt: skip
    if status:
        raise SystemExit(status)
    return runs / f"fold{fold}" / "V001"


def exported(version: Path, data: Path) -> dict[str, Path]:
    """Network -> the folder with its exported forms; ours as the run left it."""
    bundle = load_data("npz", path=data).without_test()
    found = {OURS: version / "export"}
    for name, place in PLACES.items():
        folder = version / "judged" / slug(name)
        if not (folder / "manifest.json").is_file():
            model, meta = load_model(version / place / "model.pt")
            export_model(model, folder, meta, formats=FORMS, bundle=bundle, time_artifacts=False)
        found[name] = folder
    return found


def right_answers(folders: Mapping[str, Path], data: Path) -> dict[str, list[int]]:
    """Network -> 1 or 0 for every test image of the fold, as the exported file answers."""
    bundle = load_data("npz", path=data)
    found: dict[str, list[int]] = {}
    for name, folder in folders.items():
        form = next(f for f in FORMS if f in read_manifest(folder)["artifacts"])
        loaded = load(folder, form, device="cpu")
        found[name] = []
        for x_BCHW, y_B in bundle.batches("test", 32, drop_last=False, shuffle=False):
            found[name] += (loaded(x_BCHW).argmax(1) == y_B).int().tolist()
    return found


def times(
    folders: Mapping[str, Path], batch: int, rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Network -> form -> milliseconds a round."""
    x_BCHW = torch.randn(batch, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    calls: dict[str, Callable[[], object]] = {}
    for name, folder in folders.items():
        for form in read_manifest(folder)["artifacts"]:
            loaded = load(folder, form, device="cpu")
            calls[f"{name}|{form}"] = lambda loaded=loaded: loaded(x_BCHW)  # type: ignore[misc]
    with torch.inference_mode():
        taken = interleaved(calls, rounds=rounds)
    found: dict[str, dict[str, list[float]]] = {}
    for key, values in taken.items():
        name, _, form = key.partition("|")
        found.setdefault(name, {})[form] = values
    return found


def fastest(forms: Mapping[str, Sequence[float]]) -> tuple[str, list[float]]:
    """The form with the smallest median, and its rounds."""
    form = min(forms, key=lambda f: float(np.median(forms[f])))
    return form, list(forms[form])


def summary(folds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a network: pooled accuracy, paired difference of ours to it, time over ResNet-8's."""
    rows = []
    pooled = {
        n: np.concatenate([np.array(f["right"][n], float) for f in folds])
        for n in folds[0]["right"]
    }
    for name, right in pooled.items():
        ratios = [ratio(fastest(f["times"][name])[1], fastest(f["times"][RIVAL])[1]) for f in folds]
        gain, error = paired(pooled[OURS], right)
        each = [100 * float(np.mean(f["right"][name])) for f in folds]
        rows.append({
            "network": name, "n_images": len(right), "accuracy": 100 * float(right.mean()),
            "accuracy_by_fold": each, "ours_minus_this": gain, "paired_standard_error": error,
            "time_over_resnet8": float(np.mean([r for r, _ in ratios])),
            "time_over_resnet8_by_fold": [r for r, _ in ratios],
            "time_standard_error_by_fold": [e for _, e in ratios],
            "ms_by_fold": [float(np.median(fastest(f["times"][name])[1])) for f in folds],
            "forms": [fastest(f["times"][name])[0] for f in folds],
        })  # fmt: skip
    return rows


def above_the_line(folds: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Ours against what ResNet-8 of another width would reach at the same time, paired by image.

    `in_standard_errors` is None where both answer every image alike: the error is 0.
    """
    ours, line = [], []
    for fold in folds:
        scaled = [n for n in fold["right"] if n.startswith("ResNet-8")]
        known = [
            (float(np.median(fastest(fold["times"][n])[1])), np.array(fold["right"][n], float))
            for n in scaled
        ]
        ours.append(np.array(fold["right"][OURS], float))
        line.append(line_at(float(np.median(fastest(fold["times"][OURS])[1])), known))
    gain, error = paired(np.concatenate(ours), np.concatenate(line))
    errors = gain / error if error else None
    return {"points": gain, "paired_standard_error": error, "in_standard_errors": errors}


def judge(fold: int, args: argparse.Namespace) -> dict[str, Any]:
    """What is known of a fold: answers and times, kept in its folder."""
    seeds = _CHOOSING if args.choosing else _JUDGING
    same_settings(args.runs, {"seeds of folds and runs": seeds, "overrides": args.override})
    timing = {"batch": args.batch, "rounds": args.rounds}
    version = args.runs / f"fold{fold}" / "V001"
    known = version / "judged.json"
    found = read_json(known) if known.is_file() else {}
    if "times" in found and not args.only_time and found.get("timing", timing) == timing:
        return dict(found)
    if not args.only_time:
        run_fold(fold, args.runs, seeds, args.override)
    elif not (version / "costs.json").is_file():
        raise SystemExit(
            f"{version} holds no finished run: --only-time needs one; name finished --folds, or leave it out."
        )
    data = write_fold(fold, args.runs / "data", seeds[0])
    folders = exported(version, data)
    if "right" not in found:
        found["right"] = right_answers(folders, data)
    found["times"], found["timing"] = times(folders, args.batch, args.rounds), timing
    found["costs"] = read_json(version / "costs.json")["trainings"]
    found["architecture"] = read_json(version / "search" / "result.json")["text"]
    write_json(known, found)
    return dict(found)


def main() -> None:
    """Parse the command line, run and judge the folds, write the results file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    every = range(FOLDS)
    parser.add_argument("--folds", type=int, nargs="+", choices=every, default=list(every))
    parser.add_argument("--only-time", action="store_true", help="time finished folds again")
    parser.add_argument(
        "--choosing", action="store_true", help="folds and seeds to try settings on"
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--note", default="", help="of the machine's state, for the results file")
    parser.add_argument("--runs", type=Path, default=Path("runs/demo_folds"), help="run folders")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("override", nargs="*", help="settings that differ from the demo's")
    args = parser.parse_args()
    folds = [judge(fold, args) for fold in args.folds]
    rows, line = summary(folds), above_the_line(folds)
    path = write_results(
        "demo-folds-choosing" if args.choosing else "demo-folds",
        rows,
        device=device_name(torch.device("cpu")),
        folder=args.out,
        command="python -m benchmarks.demo_folds",
        notes={
            "data": "scikit-learn digits, 1,797 images of 8x8 in five stratified folds",
            "folds": args.folds, "batch": args.batch, "threads": torch.get_num_threads(),
            "state_of_the_machine": args.note, "overrides": args.override,
            "above_the_line_of_scaled_resnet8": line,
            "architectures": [fold["architecture"] for fold in folds],
            "costs_in_trainings": [fold["costs"] for fold in folds],
        },
    )  # fmt: skip
    for row in rows:
        print(
            f"{row['network']:28s} {row['accuracy']:6.2f} %  ours {row['ours_minus_this']:+.2f} "
            f"± {row['paired_standard_error']:.2f}  time x{row['time_over_resnet8']:.2f}"
        )
    print(f"above the line: {line['points']:+.2f} ± {line['paired_standard_error']:.2f} points")
    print(path)


if __name__ == "__main__":
    main()
