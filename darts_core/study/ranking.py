"""How trials rank at a rung: by what they had reported there, the best first.

One objective without constraints: its value. Otherwise, in this order: how far the constraints are
violated (as ranks, so that units do not matter; all that are met are equal), the non-dominated rank of the
objectives, and within a rank the hypervolume contribution: each next trial is the one that adds most to
the volume of those before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from darts_core.study.hypervolume import by_contribution
from darts_core.study.pareto import pareto_ranks, signs
from darts_core.study.records import Constraint, meets

__all__ = ["Ranking", "reported_at"]

# the user attribute of what a trial had reported when it reached a rung: "reported:9"
_REPORTED = "reported:"
# the reference point lies this share of a front's extent behind its worst values, so that its ends count
_MARGIN = 0.1
Table = NDArray[np.float64]


def reported_at(step: int) -> str:
    """The user attribute that holds the metrics of a trial at a rung, `step` epochs done."""
    return f"{_REPORTED}{step}"


@dataclass(frozen=True)
class Ranking:
    """Judges trials by what they have reported.

    Args:
        goals: metric -> "maximize" or "minimize"; the first one is the trial's curve.
        constraints: of the study.
    """

    goals: Mapping[str, str]
    constraints: tuple[Constraint, ...] = ()

    @classmethod
    def of(cls, study: Any) -> Ranking:
        """By the first objective of a study alone."""
        maximized = study.directions[0] == StudyDirection.MAXIMIZE
        return cls({"": "maximize" if maximized else "minimize"})

    @property
    def first(self) -> str:
        """The metric that a report must hold to be judged."""
        return next(iter(self.goals))

    @property
    def plain(self) -> bool:
        """Whether one number, a trial's intermediate value, is all that counts."""
        return len(self.goals) == 1 and not self.constraints

    def noted(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Of a report, what is judged at a rung."""
        names = {*self.goals, *(name for name, _, _ in self.constraints)}
        return {name: metrics[name] for name in sorted(names) if name in metrics}

    def allows(self, trial: FrozenTrial) -> bool:
        """Whether the constraints are met, all of them, by what the trial had reported at its last step."""
        row = self._row(trial, trial.last_step or 0) if self.constraints else {}
        known = all(name in row for name, _, _ in self.constraints)
        return known and all(gap <= 0 for gap in meets(row, self.constraints))

    def order(self, trials: Sequence[FrozenTrial], steps: Sequence[int]) -> list[int]:
        """Indices of the trials, the best first; the lower number first among equals.

        Args:
            trials: in any order.
            steps: for each, the step at which it is looked at.
        """
        by_number = sorted(range(len(trials)), key=lambda i: trials[i].number)
        violations, costs = self.tables(
            [trials[i] for i in by_number], [steps[i] for i in by_number]
        )
        if self.plain:
            places = np.argsort(costs[:, 0], kind="stable").tolist()
        else:
            places = _places(pareto_ranks(violations), costs)
        return [by_number[place] for place in places]

    def tables(self, trials: Sequence[FrozenTrial], steps: Sequence[int]) -> tuple[Table, Table]:
        """Violations [trials, constraints] and costs [trials, objectives], of what all have reported.

        A metric that one of the trials had not reported there is left out for all of them.
        """
        if self.plain:
            found = [t.intermediate_values[s] for t, s in zip(trials, steps, strict=True)]
            values = np.array(found, dtype=np.float64)[:, None]
            return np.zeros((len(found), 0)), values * signs(list(self.goals.values()))
        rows = [self._row(t, s) for t, s in zip(trials, steps, strict=True)]
        shared = set.intersection(*map(set, rows)) if rows else set()
        goals = [name for name in self.goals if name in shared]
        costs = np.array([[row[name] for name in goals] for row in rows], dtype=np.float64)
        bounds = [bound for bound in self.constraints if bound[0] in shared]
        broken = np.array([meets(row, bounds) for row in rows], dtype=np.float64)
        costs = costs.reshape(len(rows), len(goals)) * signs([self.goals[n] for n in goals])
        return np.maximum(broken.reshape(len(rows), len(bounds)), 0.0), costs

    def _row(self, trial: FrozenTrial, step: int) -> Mapping[str, float]:
        # a trial of before several objectives were judged has its curve alone
        return trial.user_attrs.get(reported_at(step)) or {
            self.first: trial.intermediate_values[step]
        }


def _places(classes: NDArray[np.int64], costs: Table) -> list[int]:
    """Indices by class, then rank, then contribution."""
    order: list[int] = []
    for group in np.unique(classes):
        members = np.flatnonzero(classes == group)
        ranks = pareto_ranks(costs[members])
        for rank in np.unique(ranks):
            front = members[ranks == rank]
            order += [int(front[i]) for i in _along(costs[front])]
    return order


def _along(front: Table) -> list[int]:
    """A front's members by contribution, each objective measured against the front's own extent.

    So no unit counts more than another, and no trial that went astray decides what is a small difference.
    """
    if not np.isfinite(front).all():
        return list(range(len(front)))
    low, extent = front.min(axis=0), np.ptp(front, axis=0)
    scaled = (front - low) / np.where(extent > 0, extent, 1.0)
    return by_contribution(scaled, np.full(front.shape[1], 1.0 + _MARGIN))
