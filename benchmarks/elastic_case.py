"""The experiment of `benchmarks.elastic`: its sizes, the base, the front, and shares of the base's time."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from darts_core import cli
from darts_core.latency.clock import ModelClock
from darts_core.runlog import read_json, write_json
from darts_core.settings import TrainConfig
from darts_core.train import load_model

RECIPE = ("train.learning_rate=0.1", "train.weight_decay=0.0005")


def train_config(recipe: Sequence[str], **more: Any) -> TrainConfig:
    """The words of a recipe (`train.learning_rate=0.1` ...) as the training takes them."""
    given = dict(word.removeprefix("train.").split("=", 1) for word in recipe)
    values = {name: yaml.safe_load(value) for name, value in given.items()}
    return TrainConfig(batch_size=64, drop_path=0.0, **values, **more)


def bundle_of(words: Sequence[str]) -> Any:
    """The data that words of the command line (`data=NAME`, `data.limit=10000` ...) name.

    Divided as the commands divide it: by `data.seed`, not by the seed of a training, so that a network never
    meets images here that were held out from another training of the same comparison.
    """
    from darts_core.data import load_data

    given = dict(word.removeprefix("data.").split("=", 1) for word in words)
    name = given.pop("data")
    return load_data(name, **{k: yaml.safe_load(v) for k, v in given.items()})


# what this process has seen to be finished: the command itself would say so each time
_FINISHED: set[tuple[Path, tuple[str, ...]]] = set()


@dataclass(frozen=True)
class Case:
    """Sizes of the experiment.

    Attributes:
        seed: of all draws.
        out: where its runs lie.
        data: words of the command line.
        architecture: of the base.
        width: of its first stage.
        epochs: of the base.
        elastic_epochs: of the elastic training.
        front: shares of the base's time that the front's points are asked for.
        looks: of each search.
        budgets: shares of the base's measured time at which rivals are compared.
        fine_tuning: epochs of each point.
        timing_seconds: longest time for one timing.
        recipe: words of every training from scratch.
        elastic_recipe: words of the elastic training beside its epochs.
    """

    seed: int
    out: Path
    data: tuple[str, ...]
    architecture: str = "resnet20"
    width: int = 16
    epochs: int = 20
    elastic_epochs: int = 10
    front: tuple[float, ...] = (1.0, 0.85, 0.75, 0.67, 0.6, 0.55, 0.5, 0.42, 0.35, 0.3, 0.25, 0.18)
    looks: int = 100
    budgets: tuple[float, ...] = (0.75, 0.5, 0.35, 0.25)
    fine_tuning: int = 1
    timing_seconds: float = 1.0
    recipe: tuple[str, ...] = RECIPE
    elastic_recipe: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Of this seed."""
        return self.out / f"seed{self.seed}"

    def run(self, command: str, job: str, *words: str) -> Path:
        """A stage's folder once it is finished."""
        at = self.folder / job / "V001" / command
        if (at, words) in _FINISHED:
            return at
        common = (*self.data, f"seed={self.seed}", f"out={self.folder}", f"job={job}", "device=cpu",
                  "version=V001", "train.batch_size=64", "train.drop_path=0")  # fmt: skip
        status = cli.main([command, *words, *common])
        if status:
            raise SystemExit(status)
        _FINISHED.add((at, words))
        return at

    def trained(self, job: str, width: int, epochs: int) -> Path:
        """A network of a width, trained from scratch."""
        return self.run(
            "train", job, f"architecture={self.architecture}", f"train.channels={width}",
            f"train.epochs={epochs}", *self.recipe,
        )  # fmt: skip

    def base(self) -> Path:
        """The network, trained to its end."""
        return self.trained("base", self.width, self.epochs)

    def shrink(self) -> Path:
        """The front."""
        budgets = ",".join(f"{100 * share:g}%" for share in self.front)
        return self.run(
            "shrink", "shrink", f"model={self.base()}", f"shrink.epochs={self.elastic_epochs}",
            f"shrink.budgets=[{budgets}]", f"shrink.options.looks={self.looks}",
            f"shrink.fine_tuning={self.fine_tuning}", "shrink.export=false",
            f"shrink.options.seconds={self.timing_seconds:g}", *self.elastic_recipe,
        )  # fmt: skip

    def bundle(self) -> Any:
        """The data."""
        return bundle_of(self.data)

    def seconds(self) -> dict[str, float]:
        """On the device: of the base's training, and of all that the front cost beside it."""
        base, front = self.base(), self.shrink()
        found = read_json(front / "result.json")
        points = [read_json(path) for path in sorted(front.glob("points/*/point.json"))]
        after = found["training_seconds"] + sum(found["choosing_seconds"].values())
        after += sum(point["fine_tuning_seconds"] for point in points)
        return {"base": read_json(base / "result.json")["device_seconds"], "front": after}

    def share(self, model: nn.Module, rounds: int = 15) -> float:
        """The time of a network over the base's."""
        base, meta = load_model(self.base() / "model.pt")
        return shares_in_turn([model], base, meta["image_shape"], rounds)[0]

    def share_of(self, at: Path) -> float:
        """That of a saved network."""
        return self.share(load_model(at / "model.pt")[0])


def shares_in_turn(
    models: Sequence[nn.Module], base: nn.Module, input_shape: Sequence[int], rounds: int
) -> list[float]:
    """The times of `models` over that of `base` in ONNX Runtime at batch 32: medians of `rounds` ratios.

    A round samples all of them. One timing after the other differs by a tenth where the pace drifts, which
    decides which width fits a budget.
    """
    clock = ModelClock(input_shape, torch.device("cpu"))
    return [statistics.median(own) for own in clock.ratios(models, base, rounds)]


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `path` holds, made first where it is missing."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, make())
    return dict(read_json(path))
