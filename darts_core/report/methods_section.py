"""What a multirun's page and folder tell of its methods: the table with its test, and the way there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from darts_core.report.blocks import Section, card, percent
from darts_core.report.charts import Line, line_chart
from darts_core.report.html import Markup, render
from darts_core.report.methods import MethodTable, method_table
from darts_core.report.palette import series_colors
from darts_core.report.read import StageRun, VersionRun, series
from darts_core.report.svg import number
from darts_core.report.tables import neutral
from darts_core.report.tables import render as text_table
from darts_core.runlog import write_text

__all__ = ["Element", "main_metric", "methods_section", "result", "table_of", "write_methods"]

# (method, seed, what it has left)
Element = tuple[str, str, VersionRun | None]
_IN_METRIC = ("mean", "std", "difference", "standard error")


def main_metric(runs: Sequence[VersionRun | None]) -> str | None:
    """The metric that most runs end with: on the test split where there is one, else on val."""
    counts: dict[str, int] = {}
    for run in runs:
        for stage in run.stages.values() if run is not None else ():
            for key in stage.result:
                if key.startswith(("test_", "val_")) and not key.endswith("_loss"):
                    counts[key] = counts.get(key, 0) + (stage.number(key) is not None)
    known = [key for key, count in counts.items() if count]
    return max(known, key=lambda key: (key.startswith("test_"), counts[key]), default=None)


def result(run: VersionRun | None, metric: str) -> float | None:
    """What the last stage that knows the metric ended with."""
    stages = list(run.stages.values()) if run is not None else []
    known = [value for stage in stages if (value := stage.number(metric)) is not None]
    return known[-1] if known else None


def table_of(elements: Sequence[Element]) -> MethodTable | None:
    """Methods by seeds in the metric that the elements end with; None where nothing can be compared."""
    metric = main_metric([run for _, _, run in elements])
    if metric is None or len(elements) < 2:
        return None
    return method_table(metric, [(name, seed, result(run, metric)) for name, seed, run in elements])


def write_methods(table: MethodTable, folder: Path) -> None:
    """The table as `methods.csv` and `methods.md` in `folder`."""
    columns, rows = table.columns(), table.rows()
    write_text(folder / "methods.csv", text_table(columns, rows, "csv") + "\n")
    shown = [[_shown(row[column], "") for column in columns] for row in rows]
    lines = [_line(columns), _line(["---"] * len(columns)), *(_line(cells) for cells in shown)]
    lines += ["", f"{table.metric}. {_note(table)}"]
    write_text(folder / "methods.md", "\n".join(lines) + "\n")


def methods_section(table: MethodTable, elements: Sequence[Element]) -> Section:
    """The table, and the metric on val over time."""
    columns = table.columns()
    rows = [
        [_cell(column, row[column], table.metric) for column in columns] for row in table.rows()
    ]
    body = card(render("records", columns=columns, rows=rows))
    body += _over_time(table, elements)
    return Section("methods", "Methods and seeds", body, _note(table))


def _note(table: MethodTable) -> str:
    if len(table.methods) < 2:
        return "std is the sample standard deviation over the seeds."
    return (
        f"Differences are from {table.methods[0].name or 'the first'}, seed by seed; p is that of a paired "
        "t-test, two-sided, corrected for the number of methods (Holm). std is the sample standard "
        "deviation over the seeds."
    )


def _cell(column: str, value: str | int | float | None, metric: str) -> str:
    of_metric = column in _IN_METRIC or column.startswith("seed ")
    return _shown(value, metric if of_metric else "")


def _shown(value: str | int | float | None, metric: str) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return percent(value) if metric.endswith("accuracy") else number(value, 4)
    return neutral(value, 500)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(neutral(cell, 500).replace("|", "\\|") for cell in cells) + " |"


def _over_time(table: MethodTable, elements: Sequence[Element]) -> Markup:
    """One line an element, coloured by its method, which the first of its lines names."""
    key = "val_" + table.metric.partition("_")[2]
    colors: Mapping[str, str] = dict(
        zip((m.name for m in table.methods), series_colors(len(table.methods)), strict=True)
    )
    lines, named = [], set()
    for method, _, run in elements:
        points = _points(run, key)
        if points:
            label = "" if method in named else method or "as configured"
            lines.append(Line(label, points, colors[method]))
            named.add(method)
    title = f"{key.replace('_', ' ')} over time"
    share = key.endswith("accuracy")
    chart = line_chart(
        lines, x_label="device seconds", y_label=title, title=title,
        percent=share, whole_x=False, width=1060,
    )  # fmt: skip
    return card(chart, title=title) if chart else chart


def _points(run: VersionRun | None, key: str) -> list[tuple[float, float]]:
    """The metric over the seconds of the last of search and train that logged it."""
    stages: list[StageRun] = [
        run.stages[name] for name in ("train", "search") if run is not None and name in run.stages
    ]
    found = (series(stage.metrics, key, x="seconds") for stage in stages)
    return next((points for points in found if points), [])
