"""What a multirun's page and folder tell of its methods: the table with its test, and the way there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from darts_core.metric import Metric
from darts_core.report.blocks import Section, card
from darts_core.report.charts import Line, line_chart
from darts_core.report.html import Markup, render
from darts_core.report.methods import MethodTable, method_table
from darts_core.report.palette import series_colors
from darts_core.report.read import StageRun, VersionRun, series
from darts_core.report.rows import finite
from darts_core.report.svg import number
from darts_core.report.tables import neutral
from darts_core.report.tables import render as text_table
from darts_core.runlog import write_text

__all__ = [
    "OF_A_SEARCH",
    "Element",
    "judged",
    "knowing",
    "methods_section",
    "result",
    "table_of",
    "write_methods",
]

# (method, seed, what it has left)
Element = tuple[str, str, VersionRun | None]
_IN_METRIC = ("mean", "std")
_DIFFERENCES = ("difference", "standard error")
OF_A_SEARCH = (
    "Values of a search are those of its supernet, or of the network that it trained last, not of what it "
    "found: train that to compare methods."
)


def judged(runs: Sequence[VersionRun | None]) -> tuple[Metric, str] | None:
    """The metric that the runs end with and its key: on the test split where one has it, else on val."""
    known = [run for run in runs if run is not None]
    for split in ("test", "val"):
        for run in known:
            key = f"{split}_{run.metric.name}"
            if result(run, key) is not None:
                return run.metric, key
    return None


def result(run: VersionRun | None, metric: str) -> float | None:
    """What the last stage that knows the metric ended with."""
    stage = knowing(run, metric)
    return None if stage is None else stage.number(metric)


def knowing(run: VersionRun | None, metric: str) -> StageRun | None:
    """The last stage that knows the metric, but for an export of a network that is not the one to ship."""
    stages = list(run.stages.values()) if run is not None else []
    if run is not None and run.export_left_behind is not None:
        stages = [stage for stage in stages if stage.name != "export"]
    return next((stage for stage in reversed(stages) if stage.number(metric) is not None), None)


def table_of(elements: Sequence[Element]) -> MethodTable | None:
    """Methods by seeds in the metric that the elements end with; None where nothing can be compared."""
    found = judged([run for _, _, run in elements])
    if found is None or len(elements) < 2:
        return None
    metric, key = found
    table = method_table(
        key, [(name, seed, result(run, key)) for name, seed, run in elements], metric=metric
    )
    stages = [stage for _, _, run in elements if (stage := knowing(run, key)) is not None]
    return replace(table, searched=any(stage.name == "search" for stage in stages))


def write_methods(table: MethodTable, folder: Path) -> None:
    """The table as `methods.csv` and `methods.md` in `folder`."""
    columns, rows = table.columns(), table.rows()
    write_text(folder / "methods.csv", text_table(columns, rows, "csv") + "\n")
    shown = [[_shown(row[column]) for column in columns] for row in rows]
    lines = [_line(columns), _line(["---"] * len(columns)), *(_line(cells) for cells in shown)]
    lines += ["", f"{table.key}. {_note(table)}"]
    write_text(folder / "methods.md", "\n".join(lines) + "\n")


def methods_section(table: MethodTable, elements: Sequence[Element]) -> Section:
    """The table, and the metric on val over time."""
    columns = table.columns()
    rows = [[_cell(column, row[column], table) for column in columns] for row in table.rows()]
    body = card(render("records", columns=columns, rows=rows))
    body += _over_time(table, elements)
    return Section("methods", "Methods and seeds", body, _note(table))


def _note(table: MethodTable) -> str:
    better = "" if table.metric.direction == "maximize" else "Lower is better. "
    if table.searched:
        better += f"{OF_A_SEARCH} "
    if len(table.methods) < 2:
        return f"{better}std is the sample standard deviation over the seeds."
    return (
        f"{better}Differences are from {table.methods[0].name or 'the first'}, seed by seed; p is that of "
        "a paired t-test, two-sided, corrected for the number of methods (Holm). std is the sample "
        "standard deviation over the seeds."
    )


def _cell(column: str, value: str | int | float | None, table: MethodTable) -> str:
    # a difference of two shares is in points: "1 %" of it could be taken for a part of one of them
    if column in _DIFFERENCES and isinstance(value, float) and table.metric.share:
        sign = "+" if column == "difference" else ""
        return f"{100 * value:{sign}.2f} points"
    of_metric = column in (*_IN_METRIC, *_DIFFERENCES) or column.startswith("seed ")
    if of_metric and isinstance(value, float):
        return table.metric.text(value)
    return _shown(value)


def _shown(value: str | int | float | None) -> str:
    if value is None:
        return "–"
    return number(value, 4) if isinstance(value, float) else neutral(value, 500)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(neutral(cell, 500).replace("|", "\\|") for cell in cells) + " |"


def _over_time(table: MethodTable, elements: Sequence[Element]) -> Markup:
    """One line an element, coloured by its method, which the first of its lines names."""
    key = f"val_{table.metric.name}"
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
    title = f"val {table.metric.words} over time"
    chart = line_chart(
        lines, x_label="device seconds", y_label=title, title=title,
        percent=table.metric.share, whole_x=False, width=1060,
    )  # fmt: skip
    return card(chart, title=title) if chart else chart


def _points(run: VersionRun | None, key: str) -> list[tuple[float, float]]:
    """The metric over the seconds of the last of search and train that logged it."""
    stages: list[StageRun] = [
        run.stages[name] for name in ("train", "search") if run is not None and name in run.stages
    ]
    found = (_over_seconds(stage, key) for stage in stages)
    return next((points for points in found if points), [])


def _over_seconds(stage: StageRun, key: str) -> list[tuple[float, float]]:
    """The metric over all seconds so far: a search logs those, a training those of each epoch."""
    if stage.name != "train":
        return series(stage.metrics, key, x="seconds")
    spent, points = 0.0, []
    for row in stage.metrics:
        seconds, value = finite(row.get("seconds")), finite(row.get(key))
        spent += seconds or 0.0
        if seconds is not None and value is not None:
            points.append((spent, value))
    return points
