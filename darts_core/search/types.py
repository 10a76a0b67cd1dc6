"""What a search is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from darts_core.architecture import Architecture
from darts_core.errors import ConfigError
from darts_core.strategies import SearchSettings, Strategy
from darts_core.strategies.rates import alpha_learning_rate

if TYPE_CHECKING:
    from darts_core.data import DataBundle
    from darts_core.supernet import Supernet

__all__ = [
    "Doubt",
    "Group",
    "Guard",
    "GuardContext",
    "GuardFinding",
    "SearchConfig",
    "SearchResult",
]


@dataclass(frozen=True)
class SearchConfig(SearchSettings):
    """How long and on what a search runs; see `SearchSettings` for the optimizers.

    Attributes:
        epochs: passes over the params split.
        batch_size: images a step (the alpha batch has as many again).
        alpha_warmup_epochs: epochs at the start in which alpha rests.
        max_minutes: stop after the epoch in which this much time is used up; None: no limit.
        checkpoint_every: steps between checkpoints within an epoch; 0: at epoch ends only.
        evaluate: measure the supernet's accuracy on the val split after each epoch.
        capture: run the step as one CUDA graph where the device and the strategy allow it.
        check_every: steps between looks at the loss on a GPU (each look waits for the device).
    """

    epochs: int = 50
    batch_size: int = 64
    alpha_warmup_epochs: int = 0
    max_minutes: float | None = None
    checkpoint_every: int = 0
    evaluate: bool = True
    capture: bool = True
    check_every: int = 100

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("check_every", 1)):
            value = getattr(self, name)
            if value < least:
                raise ConfigError(f"search.{name}={value} is not allowed; use {least} or more.")
        for name in ("learning_rate", "alpha_learning_rate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"search.{name}={value} must be above 0.")
        if self.precision not in ("fp32", "bf16"):
            raise ConfigError(f"search.precision={self.precision!r}; choose 'fp32' or 'bf16'.")

    def settled(self, steps: int) -> SearchConfig:
        """These settings with the learning rate of alpha that epochs of `steps` steps call for."""
        if self.alpha_learning_rate is not None:
            return self
        moving = max(self.epochs - self.alpha_warmup_epochs, 0) * steps
        return replace(self, alpha_learning_rate=alpha_learning_rate(moving))


@dataclass(frozen=True)
class GuardFinding:
    """What a guard saw after an epoch.

    Attributes:
        guard: the guard's name.
        epoch: the epoch after which it fired.
        message: a sentence for the log and the report.
        stop: whether the search should end, and the architecture of this epoch is doubted; a finding
            without it only advises.
        value: the measured quantity, if there is one.
        since: with `stop`, the first epoch that is doubted too; None: this one.
    """

    guard: str
    epoch: int
    message: str
    stop: bool = False
    value: float | None = None
    since: int | None = None


@dataclass(frozen=True)
class Doubt:
    """Why an architecture must not be returned while there is one without doubts.

    Attributes:
        guard: the guard's name.
        message: a sentence.
        weight: how much it counts when every architecture is doubted and the least doubted is taken.
    """

    guard: str
    message: str
    weight: float = 1.0


@dataclass
class GuardContext:
    """What a guard may look at after an epoch."""

    supernet: Supernet
    strategy: Strategy
    bundle: DataBundle
    config: SearchConfig
    epoch: int
    seed: int
    architecture: Architecture


class Guard:
    """Watches a search for collapse; called after each epoch."""

    name = "guard"

    def after_epoch(self, context: GuardContext) -> GuardFinding | None:
        """A finding if something is wrong, else None."""
        raise NotImplementedError("A guard must define after_epoch(context).")

    def doubt(self, context: GuardContext) -> Doubt | None:
        """What speaks against returning the context's architecture; nothing by default.

        Asked after every epoch, whatever `after_epoch` said, and about what the search ends with.
        """
        return None

    def measurements(self) -> dict[str, float]:
        """Numbers of the last call for the metrics; none by default."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed search needs; nothing by default."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`."""


@dataclass(frozen=True)
class Group:
    """What the processes of a data-parallel search have to settle among themselves.

    Attributes:
        primary: whether this process writes the checkpoint.
        agree: makes a decision to stop common: true if it is in any process.
        share: makes a measured number common: that of the first process.
        processes: how many there are.
    """

    primary: bool
    agree: Callable[[bool], bool]
    share: Callable[[float], float]
    processes: int


@dataclass
class SearchResult:
    """The outcome of a search.

    Attributes:
        architecture: what the strategy ends with or, if a guard doubts that or stopped the search, the
            last one that none doubts; the least doubted of all if there is none.
        epoch: the epoch (from 0) after which the search stood at it.
        doubts: what speaks against it; empty unless everything is doubted.
        weights: the final mixing weights [E, K] of that epoch, by cell kind.
        history: one row of metrics an epoch, as in `metrics.jsonl`.
        seconds: device-synchronised seconds spent in steps, evaluation and guards, over all resumes.
        steps: search steps taken.
        findings: what guards reported.
        val_accuracy: of the supernet on the val split after the last epoch; None if not evaluated.
        stopped: why the search ended early, or None.
    """

    architecture: Architecture
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    steps: int = 0
    findings: list[GuardFinding] = field(default_factory=list)
    val_accuracy: float | None = None
    stopped: str | None = None
    epoch: int | None = None
    doubts: list[Doubt] = field(default_factory=list)
    weights: dict[str, Any] = field(default_factory=dict)
