"""The settings of a training: the recipe that `fit` reads, and the network's size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from darts_core.errors import ConfigError
from darts_core.settings.field import Settings, setting
from darts_core.settings.search import PRECISIONS

__all__ = ["OPTIMIZERS", "Train", "TrainConfig"]

OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "nadam")


@dataclass(frozen=True)
class TrainConfig(Settings):
    """How a fixed network is trained. The defaults are the CIFAR recipe of the DARTS paper without its
    further enhancement by cutout.
    """

    NODE: ClassVar[str] = "train"

    epochs: int = setting(600, "passes over the training splits", low=1, high=1_000_000)
    batch_size: int = setting(
        96, "images a step; the last, smaller batch of an epoch is left out", low=1, high=1_000_000
    )
    learning_rate: float = setting(
        0.025, "at the end of the warm-up (its highest value)", above=0, high=100
    )
    min_learning_rate: float = setting(0.0, "at the end of the cosine", low=0, high=100)
    momentum: float = setting(
        0.9, "of SGD and RMSprop; the first beta of the Adam family is 0.9", low=0, below=1
    )
    weight_decay: float = setting(3e-4, "on every parameter, as in the paper", low=0, high=10)
    optimizer: str = setting("sgd", ", ".join(OPTIMIZERS), choices=OPTIMIZERS)
    label_smoothing: float = setting(
        0.0, "share of the target spread over all classes", low=0, below=1
    )
    grad_clip: float = setting(5.0, "largest norm of the gradient; 0: off", low=0, high=1e9)
    drop_path: float = setting(
        0.2, "probability reached at the last epoch; it rises from 0", low=0, below=1
    )
    auxiliary_weight: float = setting(
        0.4, "of the auxiliary head's loss where the network has one", low=0, high=1000
    )
    cutout: int = setting(0, "side of the erased square in pixels; 0: off", low=0, high=1024)
    crop_padding: int | None = setting(
        None, "pixels of zeros before a random crop; 0: off; null: 4 for colour images of 32x32",
        low=0, high=1024,
    )  # fmt: skip
    flip: bool | None = setting(
        None, "mirror half of the images; null: true for colour images of 32x32"
    )
    time_shift: int = setting(
        0, "of series: largest random shift in positions; 0: off", low=0, high=1_000_000
    )
    scaling: float = setting(
        0.0, "of series: standard deviation of a random factor around 1; 0: off", low=0, high=10
    )
    jitter: float = setting(
        0.0, "of series: noise in standard deviations of the data; 0: off", low=0, high=10
    )
    ema: float = setting(
        0.0, "decay of the averaged params, which are kept then; 0: off", low=0, below=1
    )
    warmup_epochs: float = setting(
        0.0, "epochs of linear rise before the cosine; may be a fraction", low=0, high=1_000_000
    )
    precision: str = setting("fp32", "fp32, bf16 (autocast)", choices=PRECISIONS)
    compile: bool = setting(False, "the step through torch.compile on a CUDA device")
    policy: str | None = setting(None, "an augmentation policy by name or file")

    def check(self) -> None:
        """Refuse a cosine that rises."""
        if self.min_learning_rate > self.learning_rate:
            raise ConfigError(
                f"train.min_learning_rate={self.min_learning_rate} must not exceed "
                f"train.learning_rate={self.learning_rate}."
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
