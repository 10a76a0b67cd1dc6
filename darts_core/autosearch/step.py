"""What every step of a plan is made of, whatever searches in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from darts_core.autosearch.spec import SearchSpec
from darts_core.autosearch.trials import Row, Workshop

__all__ = ["Step"]


class Step:
    """One step of a plan.

    Args:
        spec: what to search.
        workshop: where trials run.
        fixed: settings found by earlier steps, given to every trial.
        step: the step's name in rows.
        first: the configuration to run before all proposals (trial 0), if any.
        is_baseline: whether `first` is the user's own configuration, the baseline of the whole job.
        known: rows of an earlier step that belong to this space too (its starting point).
    """

    def __init__(
        self,
        spec: SearchSpec,
        workshop: Workshop,
        *,
        fixed: dict[str, Any] | None = None,
        step: str | None = None,
        first: dict[str, Any] | None = None,
        is_baseline: bool = False,
        known: Sequence[Row] = (),
    ) -> None:
        self.spec = spec
        self.workshop = workshop
        self.fixed = dict(fixed or {})
        self.step = step or spec.name
        self.first = first
        self.is_baseline = is_baseline
        self.known = list(known)
        self.goals = spec.goals
