"""The short trainings of finalists: their network and recipe, and how a cluster does several at once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from darts_core.architecture import Architecture
from darts_core.data import DataBundle
from darts_core.search.halving import SPLITS, Halving, Training
from darts_core.settings import TrainConfig
from darts_core.stages.inputs import find_device
from darts_core.stages.interrupt import check_stop, deferred_stop, handle_signals
from darts_core.stages.schema import SearchStage
from darts_core.stages.search_setup import space_of
from darts_core.stages.targets import import_plugins
from darts_core.stages.trial import trial_bundle
from darts_core.study.calls import run_calls
from darts_core.study.engines import elsewhere
from darts_core.study.ray_cluster import RayCluster
from darts_core.study.remote import Files, changed_files, store_files
from darts_core.supernet import build
from darts_core.supernet.build import height_of

__all__ = ["Sizes", "finalist_recipe", "trained_elsewhere"]


@dataclass(frozen=True)
class Sizes:
    """How the plain networks of a search are built."""

    config: SearchStage
    bundle: DataBundle

    def make(self, architecture: Architecture, *, least_layers: int = 1) -> nn.Module:
        """The network of an architecture, at the search's sizes."""
        node = self.config.search
        return build(
            architecture,
            channels=node.channels,
            layers=max(node.layers, least_layers),
            num_classes=self.bundle.num_outputs,
            in_channels=self.bundle.in_channels,
            image_size=height_of(self.bundle.input_shape),
        )

    def text(self, architecture: Architecture) -> str:
        """The layers of the network."""
        with torch.random.fork_rng(devices=[]):
            return repr(self.make(architecture))


def finalist_recipe(config: SearchStage, bundle: DataBundle) -> TrainConfig:
    """A short training under the settings that moved the supernet's params, in fp32 and without a policy."""
    node = config.search
    return TrainConfig(
        epochs=node.finalist_epochs,
        batch_size=min(node.batch_size, len(bundle.split(SPLITS))),
        learning_rate=node.learning_rate,
        momentum=node.momentum,
        weight_decay=node.weight_decay,
        grad_clip=node.grad_clip,
        drop_path=0.0,
        crop_padding=node.crop_padding,
        flip=node.flip,
        cutout=node.cutout,
        time_shift=node.time_shift,
        scaling=node.scaling,
        jitter=node.jitter,
    )


@dataclass(frozen=True)
class _There:
    """What a node is sent: trainings, and the files of their folders where it does not see these.

    Called with the number of one; the data are read there, by the search's own settings.
    """

    config: SearchStage
    trainings: tuple[Training, ...]
    files: tuple[Files, ...] | None

    def __call__(self, number: int) -> Files:
        """Train one; the files that changed, where they have to be sent back."""
        training = self.trainings[number]
        if self.files is None:
            self._train(training)
            return {}
        with tempfile.TemporaryDirectory(prefix="darts-finalist-") as name:
            folder = Path(name)
            store_files(folder, self.files[number])
            seen: dict[str, tuple[int, int]] = {}
            changed_files(folder, seen)
            self._train(replace(training, folder=folder))
            return changed_files(folder, seen)

    def _train(self, training: Training) -> None:
        import_plugins(self.config.plugins)
        bundle = trial_bundle(self.config, find_device(self.config.device))
        space_of(self.config, bundle)  # that of a network of model= is registered by this
        with handle_signals(), deferred_stop():
            Halving(
                Sizes(self.config, bundle).make,
                bundle,
                finalist_recipe(self.config, bundle),
                seeds=1,
                seed=training.seed,
                folder=training.folder,
                on_epoch=check_stop,
            ).up_to(training)


def trained_elsewhere(config: SearchStage, folder: Path) -> Callable[[list[Training]], None]:
    """What does the trainings of a rung on `search.ray` or `search.slurm`; nothing where neither is set.

    Raises:
        TuneError: both are set, or a value is out of range.
    """
    place = elsewhere(config.search.ray, config.search.slurm)
    if place is None:
        return lambda _: None

    def ahead(trainings: list[Training]) -> None:
        if not trainings:
            return
        ships = isinstance(place, RayCluster)
        for training in trainings:
            training.folder.mkdir(parents=True, exist_ok=True)
        files = tuple(changed_files(t.folder, {}) for t in trainings) if ships else None
        call = _There(config, tuple(trainings), files)
        found = run_calls(place, call, len(trainings), folder, look=check_stop)
        for training, changed in zip(trainings, found, strict=True):
            store_files(training.folder, changed)

    return ahead
