"""Three latency budgets at equal cost: a searched network's front, ResNet-18s of other widths, random search.

    OMP_NUM_THREADS=1 python -m benchmarks.three_budgets --seeds 0 1 2     # goes on where it was killed
    OMP_NUM_THREADS=1 python -m benchmarks.three_budgets --choosing --seeds 0 --runs runs/choosing

Budgets are an eighth, a quarter and a half of the time of ResNet-18 (width 16). Every contestant has the
processor time of `--trainings` trainings of ResNet-18, all included, and as many trials of tuning, on one
of its networks, whose settings all its trainings share:

* `ours`: a search that aims at the eighth, with finalists; what it found, in the largest width within that;
  tuning; one training, whose network serves the larger budgets, too (a wider form for a half of the time was
  more accurate in no run, and took a third to a half of the seconds);
* `scaled`: the widest ResNet-18 for each budget as measured; tuning (of the widest); three trainings;
* `random`: the same with random networks of the space within the eighth, trained briefly, the best on val of
  which is taken, instead of a search;
* `reference`: ResNet-18 itself; tuning, and one training with the time that is left.

Epochs of the last trainings are such that the time is used up. Times are those of ONNX files at batch 32,
each sampled in turn with ResNet-18, so that ratios hold beside work on other cores (not on the same one: keep
one core free of anything else); accuracies are of the test split, which chose nothing. `--choosing` takes
other seeds, to try settings on. A killed command goes on (its seconds are those of the last sitting); other
settings are refused there. For some seconds or minutes a core may run small networks a quarter slower, and
ResNet-18 hardly: `--only-time` takes the shares of all judged networks of a seed again, in one go.
"""

from __future__ import annotations

import argparse
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.elastic import WORST_SHARE, area, mean_of
from benchmarks.elastic_case import bundle_of, kept, shares_in_turn
from benchmarks.elastic_rivals import epochs_for
from benchmarks.resumable import same_settings
from darts_core import cli
from darts_core.architecture import Architecture
from darts_core.bench.results import command_line, write_results
from darts_core.data import DataBundle
from darts_core.latency import device_name
from darts_core.models.baselines import baseline
from darts_core.runlog import read_json, write_json
from darts_core.settings import TrainConfig
from darts_core.spaces import get_space
from darts_core.supernet import build
from darts_core.train import evaluate, fit, load_model

BUDGETS = (0.5, 0.25, 0.125)
RIVAL, WIDTH = "resnet18", 16
CONTESTANTS = ("ours", "scaled", "random", "reference")
_JUDGING, _CHOOSING = 400, 390
RECIPE: dict[str, Any] = {"batch_size": 64, "learning_rate": 0.1, "weight_decay": 5e-4, "drop_path": 0.0,
          "crop_padding": 2, "flip": True}  # fmt: skip
TRIED = {
    "learning_rate": {"low": 0.03, "high": 0.3, "log": True},
    "weight_decay": {"low": 1e-4, "high": 3e-3, "log": True},
    "label_smoothing": {"low": 0.0, "high": 0.2},
}
# of the hypervolume's reference point: about what a linear classifier reaches on Fashion-MNIST
_LEAST = 0.8
# ResNet-18's accuracy is to be had with so much of its time; timings of one network differ by less
_QUARTER, _GRACE = 0.25, 1.02
# widths of the searched network that are tried
_UNITS = range(12, 65, 4)
# rounds in which all judged networks of a seed are timed again: about a minute
_AGAIN = 101
# random networks, how long they are trained, and which part of the budget they take at least
_DRAWN, _BRIEF, _FILL = 8, 4, 0.75


@dataclass(frozen=True)
class Contest:
    """Sizes of the contest.

    Attributes:
        seed: of all draws and of the splits.
        out: where its runs lie.
        data: words of the command line.
        space: that is searched.
        epochs: of one training of ResNet-18, and of a trial.
        trainings: of ResNet-18, which a contestant may cost.
        trials: of each tuning.
        search: words of the search.
        channels: of the networks of the space.
        layers: of them.
        budgets: shares of ResNet-18's time, the largest first; the search aims at the last.
    """

    seed: int
    out: Path
    data: tuple[str, ...]
    space: str
    epochs: int
    trainings: float
    trials: int
    search: tuple[str, ...]
    channels: int = 16
    layers: int = 1
    budgets: tuple[float, ...] = BUDGETS

    @property
    def folder(self) -> Path:
        """Of this seed."""
        return self.out / f"seed{self.seed}"

    def run(self, command: str, job: str, *words: str) -> tuple[Path, float]:
        """A stage's folder and its processor seconds."""
        common = (f"seed={self.seed}", f"data.seed={self.seed}", f"out={self.folder}", f"job={job}",
                  "device=cpu", "version=V001")  # fmt: skip

        def finished() -> dict[str, Any]:
            started = time.process_time()
            status = cli.main([command, *self.data, *words, *common])
            if status:
                raise SystemExit(status)
            return {"seconds": time.process_time() - started}

        taken = kept(self.folder / "seconds" / f"{job}-{command}.json", finished)
        return self.folder / job / "V001" / command, float(taken["seconds"])

    def trained(self, job: str, epochs: int, *words: str, **settings: Any) -> tuple[Path, float]:
        """A training with the recipe, changed by `settings`."""
        recipe = {**RECIPE, **settings, "epochs": epochs}
        return self.run(
            "train", job, *(f"train.{key}={value}" for key, value in recipe.items()), *words
        )

    def tuned(self, job: str, *words: str) -> tuple[dict[str, Any], float, float]:
        """(the best settings, processor seconds of the tuning, those of an epoch of that network)."""
        recipe = [
            f"train.{key}={value}" for key, value in {**RECIPE, "epochs": self.epochs}.items()
        ]
        tried = [f"++tune.space.{key}={_flow(how)}" for key, how in TRIED.items()]
        at, seconds = self.run("tune", job, *recipe, *words, *tried, f"tune.trials={self.trials}")
        found = read_json(at / "result.json")
        return found["best"], seconds, seconds / max(1, found["spent"]["epochs"])

    def sizes(self) -> list[str]:
        """Words of a training for the sizes that the search builds networks with."""
        return [f"train.channels={self.channels}", f"train.layers={self.layers}"]

    def built(self, architecture: Architecture, bundle: DataBundle) -> nn.Module:
        """A network of the space, untrained."""
        torch.manual_seed(self.seed)
        return build(
            architecture, channels=self.channels, layers=self.layers, num_classes=bundle.num_outputs,
            in_channels=bundle.in_channels,
        )  # fmt: skip

    def once(self) -> tuple[Path, float]:
        """ResNet-18, trained once: its folder and its processor seconds."""
        return self.trained("once", self.epochs, f"architecture={RIVAL}", f"train.channels={WIDTH}")

    def allowed(self) -> float:
        """Processor seconds of a contestant."""
        return self.trainings * self.once()[1]

    def bundle(self) -> Any:
        """The data."""
        return bundle_of((*self.data, f"data.seed={self.seed}"))

    def share(self, model: nn.Module, rounds: int = 5) -> float:
        """The time of a network over ResNet-18's."""
        return self.shares([model], rounds)[0]

    def shares(self, models: Sequence[nn.Module], rounds: int) -> list[float]:
        """Those of several, all sampled in turn."""
        rival, meta = load_model(self.once()[0] / "model.pt")
        return shares_in_turn(models, rival, meta["image_shape"], rounds)


@dataclass(frozen=True)
class _Entry:
    """A network that takes part: the words of its training, and itself, untrained."""

    words: tuple[str, ...]
    network: nn.Module


def _flow(value: Any) -> str:
    """A mapping as one word of the command line."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_flow(item)}" for key, item in value.items()) + "}"
    return str(value)


def ours(case: Contest) -> dict[str, Any]:
    """A search at the smallest budget, and one training of what it finds."""
    aim = [
        f"space={case.space}", "relax=gumbel", f"latency.share={case.budgets[-1]}", "latency.firm=false",
        f"latency.baseline={RIVAL}", f"latency.baseline_width={WIDTH}", "latency.wait_seconds=3",
    ]  # fmt: skip
    sizes = [f"search.channels={case.channels}", f"search.layers={case.layers}"]
    found, searching = case.run("search", "ours", *aim, *case.search, *sizes)
    made = _widest(case, "ours", found / "architecture.yaml", searching)
    made["seconds"]["search"] = searching
    return {**made, "architecture": read_json(found / "result.json")["text"]}


def _widest(case: Contest, name: str, place: Path, spent: float) -> dict[str, Any]:
    """What was found for the smallest budget, in the largest width within it, or as it was searched."""
    started = time.process_time()
    architecture, bundle = Architecture.from_yaml(place), case.bundle()

    def made(channels: int) -> nn.Module:
        return replace(case, channels=channels).built(architecture, bundle)

    able = [n for n in _UNITS if case.share(made(n).eval()) <= case.budgets[-1]]
    width = max(able, default=case.channels)
    words = (f"architecture={place}", f"train.channels={width}", f"train.layers={case.layers}")
    choosing = time.process_time() - started
    found = _tuned_once(case, name, [_Entry(words, made(width))], spent + choosing)
    found["seconds"]["choosing"] = choosing
    return {**found, "widths": [width]}


def scaled(case: Contest) -> dict[str, Any]:
    """The widest ResNet-18 within each budget."""
    started = time.process_time()
    bundle = case.bundle()

    def widest(budget: float) -> int:
        def within(lost: int) -> bool:
            made = baseline(RIVAL, bundle.num_outputs, bundle.in_channels, WIDTH - lost)
            return case.share(made.eval()) <= budget

        return WIDTH - bisect_left(range(WIDTH - 1), True, key=within)

    widths = [widest(budget) for budget in case.budgets]
    entries = [_resnet(bundle, width) for width in widths]
    return _tuned_once(case, "scaled", entries, time.process_time() - started) | {"widths": widths}


def random(case: Contest) -> dict[str, Any]:
    """Instead of the search random networks, trained for as many epochs as finalists in the mean."""

    def drawn() -> dict[str, Any]:
        started = time.process_time()
        place = _best_drawn(case, case.budgets[-1])
        return {"seconds": time.process_time() - started, "place": str(place)}

    taken = kept(case.folder / "seconds" / "random-drawn.json", drawn)
    place = Path(taken["place"])
    made = _widest(case, "random", place, taken["seconds"])
    made["seconds"]["search"] = taken["seconds"]
    text = repr(dict(Architecture.from_yaml(place).choices))
    return {**made, "architecture": text}


def reference(case: Contest) -> dict[str, Any]:
    """ResNet-18 with as much time."""
    return _tuned_once(case, "reference", [_resnet(case.bundle(), WIDTH)], 0.0)


def _resnet(bundle: DataBundle, width: int) -> _Entry:
    words = (f"architecture={RIVAL}", f"train.channels={width}")
    return _Entry(words, baseline(RIVAL, bundle.num_outputs, bundle.in_channels, width))


def _step_seconds(network: nn.Module, bundle: DataBundle, steps: int = 8) -> float:
    """Processor seconds of a training step, the median of some."""
    x_BCHW, y_B = (
        torch.randn(RECIPE["batch_size"], *bundle.input_shape),
        torch.zeros(RECIPE["batch_size"]),
    )
    taken = []
    for _ in range(2 + steps):
        started = time.process_time()
        nn.functional.cross_entropy(network.train()(x_BCHW), y_B.long()).backward()
        taken.append(time.process_time() - started)
    return float(np.median(taken[2:]))


def _tuned_once(
    case: Contest, name: str, entries: Sequence[_Entry], spent: float, tuned: int = 0
) -> dict[str, Any]:
    """Tuning of one network; then all are trained with its settings for the time that is left."""
    bundle = case.bundle()
    steps = [_step_seconds(entry.network, bundle) for entry in entries]
    best, tuning, epoch = case.tuned(name, *entries[tuned].words)
    allowed = (case.allowed() - spent - tuning) / len(entries)
    networks, training = [], 0.0
    for number, entry in enumerate(entries):
        epochs = epochs_for(allowed, epoch, steps[number] / steps[tuned])
        at, seconds = case.trained(f"{name}{number}", epochs, *entry.words, **best)
        networks.append(str(at))
        training += seconds
    found = {"choosing": spent, "tune": tuning, "train": training}
    return {"seconds": found, "networks": networks, "best": best}


def _best_drawn(case: Contest, budget: float) -> Path:
    """The architecture file of the best of some random networks, each trained briefly."""
    path = case.folder / "drawn" / f"{budget:g}.yaml"
    bundle, space = case.bundle().without_test(), get_space(case.space)
    rng = np.random.default_rng((case.seed, int(1000 * budget)))
    config = TrainConfig(epochs=_BRIEF, **RECIPE)
    tried: list[tuple[float, Architecture]] = []
    while len(tried) < _DRAWN:
        drawn = space.random(rng)
        made = case.built(drawn, bundle)
        if not _FILL * budget <= case.share(made.eval()) <= budget:
            continue
        fit(made, bundle, config, seed=case.seed, device=torch.device("cpu"))
        tried.append((evaluate(made, bundle, "val").value, drawn))
    path.parent.mkdir(parents=True, exist_ok=True)
    max(tried, key=lambda pair: pair[0])[1].to_yaml(path)
    return path


def judged(case: Contest, made: dict[str, Any]) -> dict[str, Any]:
    """A contestant with its networks' share of ResNet-18's time and their accuracy on test."""
    bundle, points = case.bundle(), []
    for place in made["networks"]:
        model, _ = load_model(Path(place) / "model.pt")
        points.append({
            "share": case.share(model.eval(), 15),
            "val_metric": evaluate(model, bundle, "val").value,
            "metric": evaluate(model, bundle, "test").value,
        })  # fmt: skip
    total = sum(made["seconds"].values())
    return {
        "points": points, "hypervolume": area(points, _LEAST), "seconds": made["seconds"],
        "trainings": total / case.once()[1], "best": made["best"],
        "architecture": made.get("architecture", ""), "widths": made.get("widths"),
    }  # fmt: skip


def timed_again(case: Contest, names: Sequence[str]) -> None:
    """All judged networks' shares anew, in one go; what the judging took stays beside as `first_share`."""
    paths = [case.folder / f"{name}-judged.json" for name in names]
    for path in paths:
        if not path.is_file():
            raise SystemExit(f"{path} is missing: --only-time needs what the contest has judged.")
    places = [
        Path(place)
        for name in names
        for place in read_json(case.folder / f"{name}.json")["networks"]
    ]
    models = [load_model(place / "model.pt")[0].eval() for place in places]
    shares = iter(case.shares(models, _AGAIN))
    for path in paths:
        found = read_json(path)
        points = [{"first_share": p["share"], **p, "share": next(shares)} for p in found["points"]]
        write_json(path, {**found, "points": points, "hypervolume": area(points, _LEAST)})


def summary(rows: Sequence[dict[str, Any]], budgets: Sequence[float] = BUDGETS) -> dict[str, Any]:
    """What ours has more than each rival, paired by seed.

    Of hypervolume, of accuracy within each budget, and of ResNet-18's accuracy with a quarter of its time;
    among points within a budget the best on val counts.
    """
    found: dict[str, Any] = {}
    for name in ("scaled", "random"):
        pairs = [(row["ours"], row[name]) for row in rows if name in row]
        if not pairs:
            continue
        more = [ours["hypervolume"] - rival["hypervolume"] for ours, rival in pairs]
        found[f"hypervolume_more_than_{name}"] = mean_of(more)
        found[f"metric_more_than_{name}"] = {
            f"{budget:g}": mean_of([_within(ours, budget) - _within(rival, budget) for ours, rival in pairs])
            for budget in budgets
        }  # fmt: skip
    gains = [
        _within(row["ours"], _QUARTER) - row["reference"]["points"][0]["metric"]
        for row in rows if "reference" in row
    ]  # fmt: skip
    found["quarter_minus_resnet18"] = mean_of(gains) if gains else None
    return found


def _within(contestant: dict[str, Any], budget: float) -> float:
    """The metric of the best on val within a budget; nothing (0) where it has no such network."""
    able = [p for p in contestant["points"] if p["share"] <= _GRACE * budget]
    return float(max(able, key=lambda p: p["val_metric"])["metric"]) if able else 0.0


def main(words: list[str] | None = None) -> None:
    """Parse the command line, run what is missing, write the results file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--choosing", action="store_true", help="other seeds, to try settings on")
    parser.add_argument(
        "--only-time", action="store_true", help="time what was judged again, in one go"
    )
    parser.add_argument("--data", nargs="+", default=["data=fashion_mnist", "data.limit=10000"])
    parser.add_argument("--space", default="convnet_deep")
    parser.add_argument("--budgets", type=float, nargs="+", default=BUDGETS, help="shares")
    parser.add_argument("--search", nargs="+", default=[
        "search.epochs=4", "search.alpha_warmup_epochs=1", "search.finalists=8", "search.finalist_epochs=8",
        "search.batch_size=64", "search.learning_rate=0.05", "search.guards.eigenvalue=null",
        "search.finalist_fill=0.75",
    ], help="settings of the search")  # fmt: skip
    parser.add_argument("--epochs", type=int, default=20, help="of one training of ResNet-18")
    parser.add_argument("--trainings", type=float, default=4.0, help="that a contestant may cost")
    parser.add_argument("--trials", type=int, default=4, help="of each tuning")
    parser.add_argument("--runs", type=Path, default=Path("runs/three_budgets"), help="run folders")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args(words)
    made: dict[str, Callable[[Contest], dict[str, Any]]] = {
        "ours": ours, "scaled": scaled, "random": random, "reference": reference,
    }  # fmt: skip
    rows, examples, budgets = [], 0, tuple(sorted(args.budgets, reverse=True))
    named = ("data", "space", "search", "epochs", "trainings", "trials")
    fixed = {"budgets": budgets, **{name: getattr(args, name) for name in named}}
    same_settings(args.runs, fixed)
    for number in args.seeds:
        seed = number + (_CHOOSING if args.choosing else _JUDGING)
        case = Contest(seed, args.runs.resolve(), tuple(args.data), args.space, args.epochs, args.trainings,
                       args.trials, tuple(args.search), budgets=budgets)  # fmt: skip
        row: dict[str, Any] = {"seed": seed}
        if args.only_time:
            timed_again(case, args.only)
        case.once()  # before the first contestant, to whose time it does not count
        for name in args.only:
            got = kept(case.folder / f"{name}.json", partial(made[name], case))
            row[name] = kept(case.folder / f"{name}-judged.json", partial(judged, case, got))
            points = ", ".join(
                f"{100 * p['metric']:.2f} % at {p['share']:.3f}" for p in row[name]["points"]
            )
            print(
                f"seed {seed} {name}: {points}; {row[name]['trainings']:.2f} trainings", flush=True
            )
        rows.append(row)
        examples = case.bundle().size("test")
    path = write_results(
        "three-budgets-choosing" if args.choosing else "three-budgets", rows,
        device=device_name(torch.device("cpu")), folder=args.out,
        command=command_line(without=("--runs", "--out")),
        notes={"recipe": RECIPE, "tuned": TRIED, **fixed, "test_examples": examples,
               "hypervolume_reference": {"share": WORST_SHARE, "metric": _LEAST},
               "ours": summary(rows, budgets) if "ours" in args.only else None},
    )  # fmt: skip
    print(path)


if __name__ == "__main__":
    main()
