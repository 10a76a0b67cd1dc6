"""What a search is given and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from darts_core.architecture import Architecture
from darts_core.errors import ConfigError
from darts_core.settings import SearchConfig
from darts_core.strategies import Strategy

if TYPE_CHECKING:
    from darts_core.data import DataBundle
    from darts_core.supernet import Supernet

__all__ = [
    "Doubt",
    "Guard",
    "GuardContext",
    "GuardFinding",
    "SearchConfig",
    "SearchResult",
    "told",
]


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
        of_search: it speaks of the weights or the search, so that another cell does not lift it.
    """

    guard: str
    message: str
    weight: float = 1.0
    of_search: bool = False


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
    NODE: ClassVar[str] = "search.guards"

    def __init_subclass__(cls) -> None:
        """Its settings are typed by the guard's name."""
        cls.NODE = f"search.guards.{cls.name}"

    def after_epoch(self, context: GuardContext) -> GuardFinding | None:
        """A finding if something is wrong, else None; nothing by default of one that has `doubt`."""
        if type(self).doubt is Guard.doubt:
            raise ConfigError(
                f"The guard {self.name!r} defines neither after_epoch(context) nor doubt(context)."
            )
        return None

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


def told(guard: Guard, method: str, found: Any, kind: type[Any]) -> Any:
    """`found`, which the guard's `method` gave: a `kind` or nothing.

    Raises:
        ConfigError: it is something else.
    """
    if found is None or isinstance(found, kind):
        return found
    raise ConfigError(
        f"The guard {guard.name!r}: {method}(context) gives a {type(found).__name__}; it must give a "
        f"darts_core.search.{kind.__name__} or None."
    )


@dataclass
class SearchResult:
    """The outcome of a search.

    Attributes:
        architecture: what the strategy ends with or, if a guard doubts that or stopped the search, the
            last one that none doubts; the least doubted of all if there is none.
        epoch: the epoch (from 0) after which the search stood at it.
        doubts: what speaks against it; empty unless everything is doubted.
        weights: the final mixing weights [E, K] of that epoch, by cell kind.
        earlier: what the search stood at after other epochs and no guard doubts, the latest first.
        history: one row of metrics an epoch, as in `metrics.jsonl`.
        seconds: device-synchronised seconds spent in steps, evaluation and guards, over all resumes.
        steps: search steps taken.
        findings: what guards reported.
        val: the task's metric of the supernet on the val split after the last epoch; None if not evaluated.
        stopped: why the search ended early, or None.
    """

    architecture: Architecture
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    steps: int = 0
    findings: list[GuardFinding] = field(default_factory=list)
    val: float | None = None
    stopped: str | None = None
    epoch: int | None = None
    doubts: list[Doubt] = field(default_factory=list)
    weights: dict[str, Any] = field(default_factory=dict)
    earlier: list[Architecture] = field(default_factory=list)
