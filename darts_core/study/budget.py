"""How much a study may use, what it has used, and what it is forecast to use."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from numbers import Real
from typing import Any

from darts_core.errors import TuneError
from darts_core.reading import is_number

__all__ = ["Budget", "Spent"]

_WHOLE = ("trials", "epochs", "epochs_per_trial")


@dataclass(frozen=True)
class Spent:
    """What a study has used so far: trials started, epochs reported, device-seconds of all trials."""

    trials: int = 0
    epochs: int = 0
    device_seconds: float = 0.0


@dataclass(frozen=True)
class Budget:
    """Limits of a study; the first one reached ends it. None is no limit, one must be given.

    Args:
        trials: how many trials.
        epochs: of training, over all trials.
        device_seconds: of training and evaluation, over all trials and workers.
        trainings: the same in multiples of one training, which takes `training_seconds`.
        training_seconds: device-seconds of training the final network once for its full epochs.
        epochs_per_trial: of a trial that is not pruned, for the forecast.
        earlier_seconds: device-seconds that earlier steps of the same search have used already.
        wall_seconds: by the clock, counted from `begun` (a value of `time.monotonic`).
        begun: see there; a study that is continued begins anew.
        stretch: how many times as long as such a training the longest trial is, for the forecast.

    Raises:
        TuneError: none is given, or one is no number above 0.
    """

    trials: int | None = None
    epochs: int | None = None
    device_seconds: float | None = None
    trainings: float | None = None
    training_seconds: float | None = None
    epochs_per_trial: int | None = None
    earlier_seconds: float = 0.0
    wall_seconds: float | None = None
    begun: float = field(default_factory=time.monotonic, compare=False)
    stretch: float = 1.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name in ("earlier_seconds", "begun") or value is None:
                continue
            if not isinstance(value, Real) or isinstance(value, bool):
                raise TuneError(f"The budget tune.{name}={value!r} must be a number.")
            number = float(value)
            if not (math.isfinite(number) and number > 0):
                raise TuneError(f"The budget tune.{name}={value} must be above 0.")
            if name in _WHOLE and number % 1:
                raise TuneError(f"The budget tune.{name}={value} must be a whole number.")
            # Python's own, as files hold no others, and samplers count by the whole ones
            if name in _WHOLE:
                object.__setattr__(self, name, int(number))
            elif not is_number(value):
                object.__setattr__(self, name, number)
        limits = (self.trials, self.epochs, self.device_seconds, self.trainings, self.wall_seconds)
        if all(value is None for value in limits):
            raise TuneError(
                "The study has no budget; give trials, epochs, device_seconds or trainings."
            )
        if self.trainings is not None and self.training_seconds is None:
            raise TuneError(
                f"The budget tune.trainings={self.trainings} needs tune.training_seconds, the "
                "device-seconds of one training (result.json of a train run has them)."
            )

    def __getstate__(self) -> dict[str, Any]:
        """With `begun` as a time of day: each host's monotonic clock has a beginning of its own."""
        return {**self.__dict__, "begun": time.time() - (time.monotonic() - self.begun)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, begun=time.monotonic() - (time.time() - state["begun"]))

    @property
    def seconds_limit(self) -> float | None:
        """The smaller of the two limits on device-seconds."""
        limits = [self.device_seconds] if self.device_seconds is not None else []
        if self.trainings is not None and self.training_seconds is not None:
            limits.append(self.trainings * self.training_seconds)
        return min(limits, default=None)

    @property
    def bounds_running_trials(self) -> bool:
        """Whether a running trial can reach a limit (epochs, seconds or time)."""
        limits = (self.epochs, self.seconds_limit, self.wall_seconds)
        return any(limit is not None for limit in limits)

    @property
    def epochs_alone(self) -> bool:
        """Whether nothing but reported epochs ends the study."""
        others = (self.trials, self.seconds_limit, self.wall_seconds)
        return self.epochs is not None and all(limit is None for limit in others)

    def exhausted(self, spent: Spent, *, running: bool = False) -> str | None:
        """The limit that `spent` has reached, in words, or None.

        Args:
            spent: so far.
            running: ask for a trial under way; the number of trials is then no reason to end it.
        """
        if not running and self.trials is not None and spent.trials >= self.trials:
            return f"the budget of {self.trials} trials is spent"
        if self.epochs is not None and spent.epochs >= self.epochs:
            return f"the budget of {self.epochs} epochs is spent"
        limit, used = self.seconds_limit, spent.device_seconds + self.earlier_seconds
        if limit is not None and used >= limit:
            if self.device_seconds is None:
                return f"the budget of {self.trainings:g} trainings is spent"
            return f"the budget of {limit:.1f} device-seconds is spent"
        if self.wall_seconds is not None and time.monotonic() - self.begun >= self.wall_seconds:
            return f"the budget of {self.wall_seconds / 60:g} minutes is spent"
        return None

    def forecast(self, workers: int) -> dict[str, Any]:
        """What the study will use at most, as far as the limits tell.

        Keys: trials, epochs, device_seconds, trainings, wall_seconds (None where unknown).
        """
        epochs, seconds = self.epochs, self.seconds_limit
        if self.trials is not None and self.epochs_per_trial is not None:
            full = self.trials * self.epochs_per_trial
            epochs = full if epochs is None else min(epochs, full)
        if self.trials is not None and self.training_seconds is not None:
            full_seconds = self.trials * self.training_seconds * self.stretch
            seconds = full_seconds if seconds is None else min(seconds, full_seconds)
        trainings = None
        if seconds is not None and self.training_seconds:
            trainings = seconds / self.training_seconds
        return {
            "trials": self.trials,
            "epochs": epochs,
            "device_seconds": seconds,
            "trainings": trainings,
            "wall_seconds": None if seconds is None else seconds / workers,
        }

    def worker_minutes(self, workers: int) -> int | None:
        """A time limit for each of `workers` in a cluster's queue; None where the length is unknown."""
        seconds = self.forecast(workers)["wall_seconds"]
        # half as much again, and ten minutes for start-up
        return None if seconds is None else int(seconds * 1.5 / 60) + 10
