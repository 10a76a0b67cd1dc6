"""The settings of one training, under the name that this package has for them. Loads no torch."""

from darts_core.settings.train import OPTIMIZERS, TrainConfig

__all__ = ["OPTIMIZERS", "TrainConfig"]
