"""The settings of a training: the recipe that `fit` reads, and the network's size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from darts_core.errors import ConfigError
from darts_core.settings.field import setting
from darts_core.settings.shared import PRECISIONS, Descent, RandomChanges

__all__ = ["OPTIMIZERS", "Train", "TrainConfig", "as_before"]

OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "nadam")


@dataclass(frozen=True)
class TrainConfig(RandomChanges, Descent):
    """How a fixed network is trained. The defaults are the CIFAR recipe of the DARTS paper without its
    further enhancement by cutout.
    """

    NODE: ClassVar[str] = "train"

    epochs: int = setting(600, "passes over the training splits", low=1, high=1_000_000)
    batch_size: int = setting(
        96, "images a step; the last, smaller batch of an epoch is left out", low=1, high=1_000_000
    )
    momentum: float = setting(
        0.9, "of SGD and RMSprop; the first beta of the Adam family is 0.9", low=0, below=1
    )
    optimizer: str = setting("sgd", ", ".join(OPTIMIZERS), choices=OPTIMIZERS)
    label_smoothing: float = setting(
        0.0, "share of the target spread over all classes", low=0, below=1
    )
    drop_path: float = setting(
        0.2, "probability reached at the last epoch; it rises from 0", low=0, below=1
    )
    auxiliary_weight: float = setting(
        0.4, "of the auxiliary head's loss where the network has one", low=0, high=1000
    )
    ema: float = setting(
        0.0, "decay of the averaged params, which are kept then; 0: off", low=0, below=1
    )
    warmup_epochs: float = setting(
        0.0, "epochs of linear rise before the cosine; may be a fraction", low=0, high=1_000_000
    )
    precision: str = setting("fp32", "fp32, bf16 (autocast)", choices=PRECISIONS)
    compile: bool = setting(False, "the step through torch.compile on a CUDA device")
    channels_last: bool = setting(
        False,
        "images and weights with their channels last in memory: often quicker, other rounding",
    )
    sync_batchnorm: bool = setting(
        False, "under torchrun: batch norms see the whole batch, not each process's part"
    )
    policy: str | None = setting(None, "an augmentation policy by name or file")

    def check(self) -> None:
        """Refuse norms over several processes in a compiled step: their messages are not compiled."""
        super().check()
        if self.sync_batchnorm and self.compile:
            raise ConfigError(
                f"{self.key('sync_batchnorm')}=true does not go with {self.key('compile')}=true; leave one "
                "of them out."
            )


@dataclass(frozen=True)
class Train(TrainConfig):
    """The node `train`: the recipe and the size of the network."""

    channels: int = setting(36, "of the first cell", low=1, high=4096)
    layers: int = setting(
        20, "cells (darts) or cells per stage (nasbench201); spaces of choices choose their depth",
        low=1, high=1000,
    )  # fmt: skip
    auxiliary: bool = setting(False, "a second head at two thirds of the depth, while training")


def as_before(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's plain values; what folders from before it lack only where it is not as usual."""
    return {k: v for k, v in recipe.items() if k != "channels_last" or v}
