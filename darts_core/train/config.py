"""The settings of one training, checked when they are made. Loads no torch: schemas import it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from darts_core.errors import ConfigError, unknown_name

__all__ = ["OPTIMIZERS", "PRECISIONS", "TrainConfig"]

OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "nadam")
PRECISIONS = ("fp32", "bf16")


@dataclass
class TrainConfig:
    """How a fixed network is trained. The defaults are the CIFAR recipe of the DARTS paper without
    its further enhancement by cutout.

    Args:
        epochs: passes over the training splits.
        batch_size: images a step; the last, smaller batch of an epoch is left out.
        learning_rate: at the end of the warm-up (its highest value).
        min_learning_rate: at the end of the cosine.
        momentum: of SGD and RMSprop; the first beta of the Adam family is 0.9.
        weight_decay: on every parameter, as in the paper.
        optimizer: one of `OPTIMIZERS`.
        label_smoothing: share of the target spread over all classes, 0 to below 1.
        grad_clip: largest gradient norm; 0 switches clipping off.
        drop_path: probability at the last epoch; it rises linearly from 0.
        auxiliary_weight: weight of the auxiliary head's loss where the network has one.
        cutout: side of the erased square in pixels; 0 is off.
        crop_padding: pixels of zero padding before a random crop; 0 is off, None is the paper's 4 for
            colour images of 32x32 pixels and off for others.
        flip: mirror half of the images; None is the paper's true for these, false for others.
        ema: decay of the exponential moving average of the parameters; 0 is off. With it, the
            average is what is evaluated and kept.
        warmup_epochs: epochs of linear rise before the cosine; may be a fraction.
        precision: one of `PRECISIONS`; bf16 is autocast and needs a device that has it.
        compile: run the training step through torch.compile on a CUDA device.
        policy: name or file of an augmentation policy; None is none.
    """

    epochs: int = 600
    batch_size: int = 96
    learning_rate: float = 0.025
    min_learning_rate: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 3e-4
    optimizer: str = "sgd"
    label_smoothing: float = 0.0
    grad_clip: float = 5.0
    drop_path: float = 0.2
    auxiliary_weight: float = 0.4
    cutout: int = 0
    crop_padding: int | None = None
    flip: bool | None = None
    ema: float = 0.0
    warmup_epochs: float = 0.0
    precision: str = "fp32"
    compile: bool = False
    policy: str | None = None

    def __post_init__(self) -> None:
        at_least_one = {"epochs", "batch_size"}
        below_one = {"momentum", "label_smoothing", "drop_path", "ema"}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (str, bool)) or value is None:
                continue
            if not math.isfinite(value) or value < (1 if field.name in at_least_one else 0):
                low = 1 if field.name in at_least_one else 0
                raise ConfigError(f"train.{field.name}={value} must be finite and at least {low}.")
            if field.name in below_one and value >= 1:
                raise ConfigError(f"train.{field.name}={value} must lie in [0, 1).")
        if self.learning_rate == 0:
            raise ConfigError("train.learning_rate=0 trains nothing; give a number above 0.")
        if self.min_learning_rate > self.learning_rate:
            raise ConfigError(
                f"train.min_learning_rate={self.min_learning_rate} must not exceed "
                f"train.learning_rate={self.learning_rate}."
            )
        if self.optimizer not in OPTIMIZERS:
            raise ConfigError(unknown_name("train.optimizer", self.optimizer, OPTIMIZERS))
        if self.precision not in PRECISIONS:
            raise ConfigError(unknown_name("train.precision", self.precision, PRECISIONS))
