"""Accuracy against latency of measured models: which rows compare, their front, its picture as data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from darts_core.errors import LatencyError
from darts_core.metric import ACCURACY
from darts_core.report.escape import plain_text
from darts_core.report.front import Axis, Front, Key, Point
from darts_core.report.palette import kind_color
from darts_core.report.rows import ModelRow
from darts_core.report.svg import number
from darts_core.study.pareto import front_beyond_error

__all__ = [
    "accuracy_latency_front",
    "accuracy_text",
    "baseline_row",
    "comparable_rows",
    "latency_text",
    "loaded_rows",
    "models_front",
]

# runtime -> shape of its mark, by the first fragment that occurs in its name
_MARKS = (
    ("int8", "cross"),
    ("eager", "circle"),
    ("compile", "square"),
    ("graph", "diamond"),
    ("onnx", "triangle"),
    ("aoti", "hexagon"),
    ("pt2", "pentagon"),
    ("fused", "star"),
)


def accuracy_text(row: ModelRow) -> str:
    """`97.3 ± 0.2 %` (mean and std over seeds) or what else the metric is, or a dash."""
    return row.metric.with_spread(row.accuracy_mean, row.accuracy_std)


def latency_text(row: ModelRow, batch: int) -> str:
    """`1.84 ms (1.80–1.95)`: median with 5 and 95 % quantiles, or a dash."""
    if batch not in row.latency:
        return "–"
    time = row.latency[batch]
    ends = ""
    if time.q05_ms is not None and time.q95_ms is not None:
        ends = f" ({number(time.q05_ms)}–{number(time.q95_ms)})"
    return f"{number(time.median_ms)} ms{ends}"


def comparable_rows(rows: Iterable[ModelRow], batch: int) -> list[ModelRow]:
    """The rows with an unflagged time at `batch` and an accuracy, all of one device, data set and metric.

    Raises:
        LatencyError: the rows come from several devices, data sets or metrics.
    """
    kept = [
        row
        for row in rows
        if row.accuracy_mean is not None and batch in row.latency and not row.latency[batch].flagged
    ]
    devices = {row.latency[batch].where or row.device for row in kept}
    for what, found in (
        ("device", devices),
        ("data set", {row.data for row in kept}),
        ("metric", {row.metric.name for row in kept}),
    ):
        if len(found) > 1:
            names = ", ".join(repr(plain_text(name)) for name in sorted(found))
            raise LatencyError(
                f"Rows of more than one {what} ({names}) cannot share one front; draw one front "
                f"for each {what}, or measure all of them again on one."
            )
    return kept


def loaded_rows(rows: Iterable[ModelRow], batch: int) -> list[ModelRow]:
    """The rows with a time at `batch` that was taken under foreign load, and an accuracy.

    They may be shown (as what they are) beside a front of the same place, never in it: rows of other
    devices or data sets than the comparable ones are left out.
    """
    rows = list(rows)
    found = [
        row
        for row in rows
        if row.accuracy_mean is not None and batch in row.latency and row.latency[batch].flagged
    ]
    near = (comparable_rows(rows, batch) or found)[:1]
    return [
        row
        for row in found
        if (row.latency[batch].where, row.data) == (near[0].latency[batch].where, near[0].data)
    ]


def accuracy_latency_front(rows: Iterable[ModelRow], batch: int) -> list[ModelRow]:
    """The rows that no other beats in both test accuracy and median latency, fastest first.

    A row that is slower than one of them belongs to it only if it is better by more than the standard error.
    Flagged times and rows without an accuracy do not take part.

    Raises:
        LatencyError: the rows come from several devices or several data sets.
    """
    kept = comparable_rows(rows, batch)
    if not kept:
        return []
    costs = [[row.latency[batch].median_ms, -row.rating] for row in kept]
    mask = front_beyond_error(costs, [row.standard_error for row in kept])
    front = [row for row, on in zip(kept, mask, strict=True) if on]
    return sorted(front, key=lambda row: row.latency[batch].median_ms)


def baseline_row(rows: Sequence[ModelRow], batch: int) -> ModelRow | None:
    """The first baseline in its fastest runtime at `batch`: what a result has to beat.

    Flagged times do not count; None when no baseline was measured.
    """
    kept = [
        row
        for row in rows
        if row.baseline and batch in row.latency and not row.latency[batch].flagged
    ]
    own = [row for row in kept if row.name == kept[0].name]
    return min(own, key=lambda row: row.latency[batch].median_ms, default=None)


def models_front(rows: Sequence[ModelRow], batch: int) -> Front | None:
    """The metric on test against median latency at `batch`; None when no row has both.

    Times taken under foreign load are hollow marks outside the front. One colour a pipeline step, one
    shape a runtime; rows of the same model are joined and named once, at the fastest.

    Raises:
        LatencyError: the rows come from several devices or data sets.
    """
    kept, loaded = comparable_rows(rows, batch), loaded_rows(rows, batch)
    if not kept and not loaded:
        return None
    named: set[tuple[str, str]] = set()
    labels = {}
    for row in sorted([*kept, *loaded], key=lambda r: r.latency[batch].median_ms):
        # INT8 stands apart from the rest of its model
        if (row.name, row.kind) not in named:
            labels[id(row)] = row.name if row.kind != "int8" else f"{row.name} INT8"
        named.add((row.name, row.kind))
    base, metric = baseline_row(kept, batch), [*kept, *loaded][0].metric
    return Front(
        title=f"Test {metric.words} against latency, batch {batch}",
        x=Axis(f"latency at batch {batch}, ms per batch (median)", "min"),
        y=Axis(f"test {metric.axis}", "max" if metric.direction == "maximize" else "min"),
        points=tuple(_point(row, batch, labels.get(id(row), "")) for row in [*loaded, *kept]),
        baseline=None
        if base is None
        else (base.latency[batch].median_ms, metric.scale * (base.accuracy_mean or 0.0)),
        better="faster and more accurate" if metric == ACCURACY else "faster and better",
        keys=tuple(
            Key(_shape(runtime), "soft", runtime)
            for runtime in dict.fromkeys(row.runtime for row in rows)
        ),
    )


def _shape(runtime: str) -> str:
    """The mark of a runtime."""
    name = runtime.lower()
    return next((shape for fragment, shape in _MARKS if fragment in name), "square")


def _point(row: ModelRow, batch: int, label: str) -> Point:
    scale = row.metric.scale
    time, mean = row.latency[batch], scale * (row.accuracy_mean or 0.0)
    spread = bool(time.q05_ms and time.q95_ms) and not time.flagged
    return Point(
        x=time.median_ms,
        y=mean,
        label=label,
        tip=f"{row.label}: {accuracy_text(row)}, {latency_text(row, batch)} at batch {batch}",
        color=kind_color(row.kind),
        shape=_shape(row.runtime),
        series="" if time.flagged else f"{row.name}\n{row.kind}",
        counts=not time.flagged,
        hollow=time.flagged,
        x_range=(time.q05_ms or 0.0, time.q95_ms or 0.0) if spread else None,
        y_range=_spread(row) if not time.flagged else None,
        y_error=scale * row.standard_error,
    )


def _spread(row: ModelRow) -> tuple[float, float] | None:
    """Ends of the error bar: the standard deviation over seeds, of one seed the standard error."""
    scale, wide = row.metric.scale, row.accuracy_std or row.standard_error
    mean = row.accuracy_mean or 0.0
    return (scale * (mean - wide), scale * (mean + wide)) if wide else None
