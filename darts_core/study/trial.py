"""What an objective sees of its trial: parameters, a folder, and `report`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from darts_core.errors import TuneError
from darts_core.reading import is_number
from darts_core.runlog import RunFolder

__all__ = ["Pruned", "TrialHandle", "current_trial", "inside"]


class Pruned(Exception):
    """Raised by `report` when the trial should end; let it pass through the objective."""


class TrialHandle:
    """One trial as its objective sees it.

    Args:
        number: counts from 0 in the study.
        params: the setting to try.
        folder: kept across restarts; put the checkpoint here.
        seed: differs from trial to trial; an objective that compares settings under one start and
            one order of the data uses its own instead.
        resumed: whether an earlier sitting of this trial was interrupted.
        wanted: the metrics that the study's objectives and constraints name.
        decide: called with (epoch, metrics); returns the reason to end the trial, or None.
    """

    def __init__(
        self,
        number: int,
        params: Mapping[str, Any],
        folder: Path,
        *,
        seed: int,
        resumed: bool,
        decide: Callable[[int, dict[str, Any]], str | None],
        wanted: Iterable[str] = (),
    ) -> None:
        self.number, self.params, self.folder = number, dict(params), folder
        self.seed, self.resumed, self.wanted = seed, resumed, tuple(wanted)
        self._decide = decide
        self._log = RunFolder(folder, tensorboard=False)
        self._last = max((row["epoch"] for row in self._log.metrics()), default=-1)

    def report(self, epoch: int, **metrics: Any) -> None:
        """Record the metrics of an epoch (counted from 0) and end the trial if it is not worth more.

        A resumed trial may report an epoch again: the row is replaced. Numbers may be numpy's or torch's.

        Raises:
            Pruned: the pruner, or the budget, ends the trial here.
            TuneError: an objective or constraint is NaN, or the epoch is no whole number from 0; let it pass,
                it fails the trial by name.
        """
        epoch, metrics = unboxed(epoch), {name: unboxed(value) for name, value in metrics.items()}
        if not is_number(epoch) or epoch < 0 or epoch % 1:
            raise TuneError(f"A trial reported epoch {epoch}; epochs count from 0.")
        epoch = int(epoch)
        metrics.pop("epoch", None)
        if epoch <= self._last:
            self._log.rewind(epoch)
        self._log.log_metrics(epoch, **metrics)
        self._last = epoch
        numbers = {k: float(v) for k, v in metrics.items() if is_number(v)}
        for name in self.wanted:
            if math.isnan(numbers.get(name, 0.0)):
                raise TuneError(f"The objective {name!r} is nan after epoch {epoch}.")
        reason = self._decide(epoch, numbers)
        if reason is not None:
            raise Pruned(reason)


def unboxed(value: Any) -> Any:
    """A number of numpy or torch as Python's own; anything else as it is."""
    item = getattr(value, "item", None)
    try:
        return item() if callable(item) else value
    except (TypeError, ValueError, RuntimeError):  # it holds several
        return value


_CURRENT: ContextVar[TrialHandle | None] = ContextVar("darts_core_trial", default=None)


def current_trial() -> TrialHandle | None:
    """The trial whose objective runs in this context, or None outside of a study.

    For tasks that a sweeper calls with a configuration only: they report to it when it is there.
    """
    return _CURRENT.get()


@contextlib.contextmanager
def inside(handle: TrialHandle) -> Iterator[None]:
    """Make `handle` the current trial for the block."""
    token = _CURRENT.set(handle)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def outcome_values(
    outcome: Any, objectives: Mapping[str, str]
) -> tuple[list[float], dict[str, float]]:
    """The objective values and all metrics in what an objective returned.

    Args:
        outcome: a number (one objective only) or a mapping of metric names to numbers, numpy's and torch's
            too.
        objectives: metric name -> direction, in order.

    Raises:
        TuneError: an objective is missing, NaN, infinite or no number; names it.
    """
    outcome = unboxed(outcome)
    if is_number(outcome) and len(objectives) == 1:
        outcome = {next(iter(objectives)): outcome}
    if not isinstance(outcome, Mapping):
        raise TuneError(
            f"The trial returned {type(outcome).__name__}; return a number or a dictionary with "
            f"{', '.join(objectives)}."
        )
    outcome = {str(name): unboxed(value) for name, value in outcome.items()}
    metrics = {name: float(value) for name, value in outcome.items() if is_number(value)}
    values = []
    for name in objectives:
        if name not in outcome:
            known = ", ".join(map(str, outcome)) or "none"
            raise TuneError(
                f"The objective {name!r} is missing from the trial's metrics ({known})."
            )
        if name not in metrics or not math.isfinite(metrics[name]):
            raise TuneError(f"The objective {name!r} is {outcome[name]!r}, not a finite number.")
        values.append(metrics[name])
    return values, metrics
