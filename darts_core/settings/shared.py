"""What a search and a training both declare: how the params descend, what is changed at random."""

from __future__ import annotations

from dataclasses import dataclass

from darts_core.errors import ConfigError
from darts_core.settings.field import Settings, setting

__all__ = ["PRECISIONS", "Descent", "RandomChanges"]

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class Descent(Settings):
    """How the params descend: along a cosine, with decay and a clipped gradient."""

    learning_rate: float = setting(
        0.025, "of the params, at its highest; cosine decay", above=0, high=100
    )
    min_learning_rate: float = setting(0.0, "at the end of the cosine", low=0, high=100)
    weight_decay: float = setting(3e-4, "of all params, as in the paper", low=0, high=10)
    grad_clip: float = setting(5.0, "largest norm of the gradient; 0: off", low=0, high=1e9)

    def check(self) -> None:
        """Refuse a cosine that rises."""
        if self.min_learning_rate > self.learning_rate:
            raise ConfigError(
                f"{self.key('min_learning_rate')}={self.min_learning_rate} must not exceed "
                f"{self.key('learning_rate')}={self.learning_rate}."
            )


@dataclass(frozen=True)
class RandomChanges(Settings):
    """What is changed at random in each image or series before a step."""

    crop_padding: int | None = setting(
        None, "pixels of zeros before a random crop; 0: off; null: 4 for colour images of 32x32",
        low=0, high=1024,
    )  # fmt: skip
    flip: bool | None = setting(
        None,
        "mirror half of the images; null: those of 32x32 in colour, unless numbers are predicted",
    )
    cutout: int = setting(0, "side of the erased square in pixels; 0: off", low=0, high=1024)
    time_shift: int = setting(
        0, "of series: largest random shift in positions; 0: off", low=0, high=1_000_000
    )
    scaling: float = setting(
        0.0, "of series: standard deviation of a random factor around 1; 0: off", low=0, high=10
    )
    jitter: float = setting(
        0.0, "of series: noise in standard deviations of the data; 0: off", low=0, high=10
    )
