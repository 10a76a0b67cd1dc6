"""The search of a user's script as its page and its pictures see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darts_core.report.job_details import version_details
from darts_core.report.trials import Trial
from darts_core.runlog import read_jsonl
from darts_core.store.version import Version
from darts_core.study.importance import row_importance
from darts_core.study.metric_names import ACCURACY
from darts_core.study.result_table import result_table, row_names
from darts_core.study.results import Row, objectives, read_rows, row_values, search_rows

__all__ = ["Curves", "Search", "read_search"]

Points = Sequence[tuple[float, float]]
Curves = Callable[[Sequence[Row], str], Mapping[str, Points]]


@dataclass(frozen=True)
class Search:
    """A version with what it found so far.

    Attributes:
        details: see `version_details`.
        rows: one a trial, confirming runs included.
        goals: the objectives; empty before the search was prepared.
        columns: of the result table.
        table: its rows, the best first.
        shares: importance of each setting.
        curves: the first objective at each iteration, by trial id.
        resources: use of processor and memory over time.
    """

    details: Mapping[str, Any]
    rows: Sequence[Row]
    goals: Sequence[Mapping[str, Any]] = ()
    columns: Sequence[str] = ()
    table: Sequence[Mapping[str, Any]] = ()
    shares: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Points] = field(default_factory=dict)
    resources: Sequence[Mapping[str, Any]] = ()

    @property
    def found(self) -> Mapping[str, Any]:
        """Best trial, baseline, gain, verdict and cost; empty before the search was prepared."""
        return self.details["summary"] or {}

    @property
    def ordered(self) -> list[tuple[str, Row]]:
        """The search's trials with their names, in the order of their ends: steps number theirs anew."""
        names = {
            row["trial_id"]: name for row, name in zip(self.rows, row_names(self.rows), strict=True)
        }
        rows = sorted(search_rows(self.rows), key=lambda r: float(r.get("ended") or r["number"]))
        return [(names[row["trial_id"]], row) for row in rows]

    @property
    def maximize(self) -> bool:
        """Whether the first objective is better when it is larger."""
        return bool(self.goals) and self.goals[0]["mode"] == "max"

    @property
    def percent(self) -> bool:
        """Whether the first objective is an accuracy in 0..1."""
        metric = self.goals[0]["metric"] if self.goals else ""
        values = [v[0] for row in self.rows if (v := row_values(row, self.goals[:1])) is not None]
        named = metric in ACCURACY or metric.endswith(("_acc", "_accuracy"))
        return named and bool(values) and all(0 <= value <= 1 for value in values)

    def trials(self) -> list[Trial]:
        """The search's trials for the pictures of studies, numbered in the order of their ends."""
        made = []
        for index, (name, row) in enumerate(self.ordered):
            values = row_values(row, self.goals)
            first = row_values(row, self.goals[:1])
            made.append(
                Trial(
                    number=index,
                    state=row["state"],
                    params=row["config"],
                    value=first[0] if first else None,
                    values=tuple(values) if values else (),
                    is_baseline=bool(row.get("is_baseline")),
                    label=name,
                )
            )
        return made

    def place(self, row: Row | None) -> int | None:
        """The number in `trials` of a row."""
        ids = [kept["trial_id"] for _, kept in self.ordered]
        return ids.index(row["trial_id"]) if row is not None and row["trial_id"] in ids else None


def read_search(
    version: Version, curves: Curves | None = None, *, sort: str | None = None
) -> Search:
    """Everything a page shows of a version that searched a script.

    Args:
        version: the version.
        curves: reads a metric at each iteration of the trials.
        sort: the column that orders the result table.

    Raises:
        JobError: there is no such column.
    """
    details = version_details(version)
    rows = read_rows(version.path)
    goals = objectives(version.path) if details["summary"] is not None else []
    columns, table = result_table(rows, goals, sort)
    return Search(
        details,
        rows,
        goals,
        columns,
        table,
        row_importance(rows, goals) if goals else {},
        curves(rows, goals[0]["metric"]) if curves is not None and goals else {},
        read_jsonl(Path(version.path) / "autosearch" / "resources.jsonl"),
    )
