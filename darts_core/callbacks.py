"""Callbacks: who is called after each epoch of a search or a training, and may end it.

A callback is chosen by `callbacks=early_stopping`, several by `callbacks=[early_stopping,snapshots]`.
Unlike a logger it is part of what is computed: its settings belong to the version's, and an error of it
ends the stage.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from darts_core.checkpoint import save_checkpoint
from darts_core.errors import ConfigError, DartsError, is_memory_shortage
from darts_core.metric import Metric
from darts_core.settings import Bounds, bounded

__all__ = ["Callback", "Callbacks", "EarlyStopping", "EpochEnd", "Snapshots"]

log = logging.getLogger("darts_core")
_SNAPSHOT = re.compile(r"epoch-(\d{4,})\.pt")
_MEND = "mend it and run the same command again, which goes on, or leave it out"
_TOO_LATE = (
    "the result is kept; the same command goes on after this stage and does not call it again"
)


@dataclass(frozen=True)
class EpochEnd:
    """What a callback is told when an epoch has ended and is safe on disk.

    Attributes:
        stage: search, train or tune (one of its trials).
        folder: of the stage or the trial.
        model: the network as it would be kept now, on its device: with `train.ema` the average, of a search
            the supernet. Leave it as it is.
        metric: what the task is judged by; `val_<name>` in the rows.
        epochs: that are to be, if nobody ends it.
        history: one row an epoch as in `metrics.jsonl`, the newest last; whole after a resume, too.
    """

    stage: str
    folder: Path
    model: Any
    metric: Metric
    epochs: int
    history: Sequence[Mapping[str, Any]]

    @property
    def epoch(self) -> int:
        """The epoch that has ended, from 0."""
        return len(self.history) - 1

    def values(self) -> list[float]:
        """The metric on val of each epoch in which it was measured."""
        found = [row.get(f"val_{self.metric.name}") for row in self.history]
        return [float(value) for value in found if value is not None]


class Callback:
    """One callback; each method does nothing unless it is overridden.

    A resumed run calls `start` again, and `after_epoch` once more for the epoch that it resumes after: a
    callback keeps nothing that does not follow from the history.
    """

    NODE: ClassVar[str] = "callbacks"

    def start(self, stage: str, folder: Path) -> None:
        """A stage (or a trial) begins, or goes on, in `folder`."""

    def after_epoch(self, now: EpochEnd) -> str | None:
        """Why the stage shall end here with what it has, as a sentence; None: it goes on."""
        return None

    def finish(self, stage: str, folder: Path, result: Mapping[str, Any]) -> None:
        """The stage has finished with `result`."""


class EarlyStopping(Callback):
    """Ends what has not improved on val for so many epochs. Where val is not measured it says so, once.

    The last epoch's params are kept, as always. A training's learning rate has then not come to its end,
    so that what ends early is often worse than a shorter training: this is for runs that have failed.

    Args:
        patience: epochs without an improvement.
        least: by which the metric must improve to count, in its own unit.

    Raises:
        ConfigError: a number is out of range.
    """

    NODE = "callbacks.early_stopping"

    @bounded(patience=Bounds(low=1, high=1_000_000), least=Bounds(low=0, high=1e9))
    def __init__(self, patience: int = 10, least: float = 0.0) -> None:
        self.patience, self.least = patience, least

    def after_epoch(self, now: EpochEnd) -> str | None:
        """A reason once `patience` epochs brought nothing."""
        values = now.values()
        if not values and now.epoch == 0:
            log.warning(
                "early_stopping: val %s is not measured here, so nothing will be ended early%s",
                now.metric.words,
                "; search.evaluate=true measures it" if now.stage == "search" else "",
            )
        best, since = float("-inf"), 0
        for value in values:
            rating = now.metric.rating(value)
            better = rating > best + self.least
            best, since = (rating, 0) if better else (best, since + 1)
        if since < self.patience:
            return None
        return (
            f"val {now.metric.words} has not improved for {since} epoch{'s'[: since > 1]} (best "
            f"{now.metric.text(now.metric.rating(best))})"
        )


class Snapshots(Callback):
    """Writes `snapshots/epoch-0010.pt`, the network's state dict, for `weights=` and for comparisons.

    Args:
        every: epochs between two.
        keep: so many of the newest stay.

    Raises:
        ConfigError: a number is out of range.
    """

    NODE = "callbacks.snapshots"

    @bounded(every=Bounds(low=1, high=1_000_000), keep=Bounds(low=1, high=1_000_000))
    def __init__(self, every: int = 10, keep: int = 5) -> None:
        self.every, self.keep = every, keep

    def after_epoch(self, now: EpochEnd) -> str | None:
        """Write the file where one is due, and drop the oldest of ours beyond `keep`."""
        done = now.epoch + 1
        if done % self.every == 0:
            place = now.folder / "snapshots"
            state = {name: value.detach().cpu() for name, value in now.model.state_dict().items()}
            save_checkpoint(place / f"epoch-{done:04d}.pt", {"state_dict": state})
            ours = {p: m for p in place.iterdir() if (m := _SNAPSHOT.fullmatch(p.name))}
            for old in sorted(ours, key=lambda path: int(ours[path][1]))[: -self.keep]:
                old.unlink()
        return None


class Callbacks:
    """The callbacks of one stage or trial.

    Args:
        by_name: each under the name of its node.
        stage: search, train or tune.
        folder: of the stage or the trial.
    """

    def __init__(self, by_name: Mapping[str, Callback], stage: str, folder: Path) -> None:
        self._by_name, self._stage, self._folder = by_name, stage, folder

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def start(self) -> None:
        """See `Callback.start`."""
        for name, callback in self._by_name.items():
            with _named(name, "at the start"):
                callback.start(self._stage, self._folder)

    def after_epoch(
        self, model: Any, metric: Metric, epochs: int, history: Sequence[Mapping[str, Any]]
    ) -> str | None:
        """Why somebody wants the stage to end; each is called, and the first reason counts."""
        now = EpochEnd(self._stage, self._folder, model, metric, epochs, tuple(history))
        reason = None
        for name, callback in self._by_name.items():
            with _named(name, f"after epoch {now.epoch + 1}"):
                told = callback.after_epoch(now)
            reason = reason or (f"{name}: {told}" if told else None)
        return reason

    def finish(self, result: Mapping[str, Any]) -> None:
        """See `Callback.finish`."""
        # a trial is recorded after this, the result of another stage is there already
        remedy = _MEND if self._stage == "tune" else _TOO_LATE
        for name, callback in self._by_name.items():
            with _named(name, "at the end", remedy):
                callback.finish(self._stage, self._folder, result)


@contextmanager
def _named(name: str, when: str, remedy: str = _MEND) -> Iterator[None]:
    """A block that calls a callback: an error that is its own ends the stage in a sentence with its name."""
    try:
        yield
    except (DartsError, OSError):
        raise
    except Exception as error:  # of foreign code, of any kind
        if is_memory_shortage(error):
            raise
        raise ConfigError(
            f"callbacks.{name} fails {when}: {type(error).__name__}: {str(error)[:300]} (DARTS_DEBUG=1 shows "
            f"where); {remedy}."
        ) from error
