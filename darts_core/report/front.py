"""The accuracy-against-latency picture: one line a model, one mark a runtime, the front as stairs."""

from __future__ import annotations

from collections.abc import Sequence

from darts_core.report.charts import axes
from darts_core.report.escape import html_text
from darts_core.report.palette import kind_color
from darts_core.report.pareto import accuracy_latency_front, comparable_rows, loaded_rows
from darts_core.report.rows import ModelRow
from darts_core.report.svg import Scale, drawing, line, number, path, rect, tag, text, text_width

__all__ = ["MARKS", "accuracy_text", "baseline_row", "front_svg", "latency_text", "mark"]

# runtime -> shape of its mark, by the first fragment that occurs in its name
MARKS = (
    ("eager", "circle"),
    ("compile", "square"),
    ("graph", "diamond"),
    ("onnx", "triangle"),
    ("aoti", "hexagon"),
    ("pt2", "pentagon"),
    ("fused", "star"),
    ("int8", "cross"),
)


def accuracy_text(row: ModelRow) -> str:
    """`97.3 ± 0.2 %` (mean and std over seeds), or a dash."""
    if row.accuracy_mean is None:
        return "–"
    std = f" ± {row.accuracy_std * 100:.2f}" if row.accuracy_std is not None else ""
    return f"{row.accuracy_mean * 100:.2f}{std} %"


def latency_text(row: ModelRow, batch: int) -> str:
    """`1.84 ms (1.80–1.95)`: median with 5 and 95 % quantiles, or a dash."""
    if batch not in row.latency:
        return "–"
    time = row.latency[batch]
    ends = ""
    if time.q05_ms is not None and time.q95_ms is not None:
        ends = f" ({number(time.q05_ms)}–{number(time.q95_ms)})"
    return f"{number(time.median_ms)} ms{ends}"


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


def mark(shape: str, x: float, y: float, size: float, **attributes: object) -> str:
    """A plotting mark centred at (x, y)."""
    if shape == "circle":
        return tag("circle", cx=x, cy=y, r=size, **attributes)
    shapes: dict[str, list[tuple[float, float]]] = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "diamond": [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
        "triangle": [(0, -1.2), (1.15, 0.9), (-1.15, 0.9)],
        "hexagon": [(-0.6, -1), (0.6, -1), (1.15, 0), (0.6, 1), (-0.6, 1), (-1.15, 0)],
        "pentagon": [(0, -1.15), (1.1, -0.35), (0.68, 0.95), (-0.68, 0.95), (-1.1, -0.35)],
        "star": [(0, -1.5), (0.38, -0.45), (1.45, -0.45), (0.6, 0.2), (0.9, 1.25), (0, 0.62),
                 (-0.9, 1.25), (-0.6, 0.2), (-1.45, -0.45), (-0.38, -0.45)],
        "cross": [(-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4),
                  (0.4, 1.2), (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4)],
    }  # fmt: skip
    corners = shapes.get(shape, shapes["square"])
    points = " ".join(f"{x + dx * size:.1f},{y + dy * size:.1f}" for dx, dy in corners)
    return tag("polygon", points=points, **attributes)


def runtime_shape(runtime: str) -> str:
    """The mark of a runtime."""
    name = runtime.lower()
    return next((shape for fragment, shape in MARKS if fragment in name), "square")


def _tip(row: ModelRow, batch: int) -> str:
    return f"{row.label}: {accuracy_text(row)}, {latency_text(row, batch)} at batch {batch}"


def _errors(row: ModelRow, batch: int, x: Scale, y: Scale) -> str:
    """Bars for the spread of the time and of the accuracy."""
    time, mean, std = row.latency[batch], row.accuracy_mean or 0.0, row.accuracy_std
    at_x, at_y = x(time.median_ms), y(mean)
    kind = f"error s-{kind_color(row.kind)}"
    parts = []
    if time.q05_ms and time.q95_ms:
        ends = [min(max(x(value), x.start), x.stop) for value in (time.q05_ms, time.q95_ms)]
        parts.append(line(ends[0], at_y, ends[1], at_y, class_=kind))
    if std:
        parts.append(line(at_x, y(mean - std), at_x, y(mean + std), class_=kind))
    return "".join(parts)


def _scales(
    rows: Sequence[ModelRow], batch: int, area: tuple[float, float, float, float]
) -> tuple[Scale, Scale]:
    """Scales that hold all medians and one std around all means; time is logarithmic over a wide range."""
    left, right, top, bottom = area
    times = [row.latency[batch].median_ms for row in rows]
    ends = []
    for row in rows:
        mean, std = row.accuracy_mean or 0.0, row.accuracy_std or 0.0
        ends += [mean - std, mean + std]
    wide = max(times) / min(times) > 4
    return (
        Scale.fit(times, left, right, log=wide, pad=0.1),
        Scale.fit(ends, bottom, top, pad=0.1),
    )


def _stairs(front: Sequence[ModelRow], batch: int, x: Scale, y: Scale) -> str:
    """The edge of what is reachable: from the first point up and to the right."""
    corners: list[tuple[float, float]] = []
    for row in front:
        point = (x(row.latency[batch].median_ms), y(row.accuracy_mean or 0.0))
        corners.append((point[0], corners[-1][1] if corners else y.start))
        corners.append(point)
    corners.append((x.stop, corners[-1][1]))
    return path(corners, class_="front")


def series_of(rows: Sequence[ModelRow], batch: int) -> list[list[ModelRow]]:
    """The rows of each model (INT8 apart from the rest of its model), fastest first."""
    groups: dict[tuple[str, str], list[ModelRow]] = {}
    for row in rows:
        groups.setdefault((row.name, row.kind), []).append(row)
    return [sorted(g, key=lambda r: r.latency[batch].median_ms) for g in groups.values()]


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Common area of two boxes (left, top, right, bottom)."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def place_labels(
    points: Sequence[tuple[float, float]],
    marks: Sequence[tuple[float, float]],
    widths: Sequence[float],
    area: tuple[float, float, float, float],
) -> list[tuple[float, float]]:
    """Left ends of the base lines of labels near `points`, where each covers least.

    Args:
        points: what the labels belong to, in pixels, y downwards.
        marks: all marks that should stay visible.
        widths: of the labels.
        area: left, right, top and bottom of the plot.
    """
    left, right, top, bottom = area
    taken = [(a - 8, b - 8, a + 8, b + 8) for a, b in marks]
    result = []
    for (at, height), wide in zip(points, widths, strict=True):
        best, least = (at, height), float("inf")
        for dx, dy in ((-wide / 2, -11), (10, -8), (-wide - 10, -8), (-wide / 2, 21), (10, 18),
                       (-wide - 10, 18), (-wide / 2, -26), (-wide / 2, 36)):  # fmt: skip
            box = (at + dx, height + dy - 11, at + dx + wide, height + dy + 3)
            outside = max(0.0, left - box[0]) + max(0.0, box[2] - right)
            outside += max(0.0, top - box[1]) + max(0.0, box[3] - bottom)
            cost = sum(_overlap(box, other) for other in taken) + 20 * outside
            if cost < least:
                best, least = (box[0], height + dy), cost
        taken.append((best[0], best[1] - 11, best[0] + wide, best[1] + 3))
        result.append(best)
    return result


def label_text(row: ModelRow) -> str:
    """The name that stands beside a model's marks."""
    return row.name if row.kind != "int8" else f"{row.name} INT8"


def _labels(rows: Sequence[ModelRow], batch: int, x: Scale, y: Scale) -> str:
    """Each model's name once, near its fastest mark."""

    def pixel(row: ModelRow) -> tuple[float, float]:
        return x(row.latency[batch].median_ms), y(row.accuracy_mean or 0.0)

    first = [own[0] for own in series_of(rows, batch)]
    widths = [text_width(label_text(row), 12) for row in first]
    area = (x.start, x.stop, y.stop + 18, y.start)
    places = place_labels([pixel(r) for r in first], [pixel(r) for r in rows], widths, area)
    return "".join(
        text(*place, label_text(row), class_=f"label halo t-{kind_color(row.kind)}")
        for row, place in zip(first, places, strict=True)
    )


def front_svg(
    rows: Sequence[ModelRow], batch: int, *, width: float = 600, height: float = 400
) -> str:
    """Test accuracy against median latency at `batch`, or "" when no row has both.

    Times taken under foreign load are hollow marks outside the front. One colour a pipeline step,
    one shape a runtime; rows of the same model are joined. The dashed cross is the baseline in its
    fastest runtime, the tinted corner is better than it in both.

    Raises:
        LatencyError: the rows come from several devices or data sets.
    """
    kept, loaded = comparable_rows(rows, batch), loaded_rows(rows, batch)
    if not kept and not loaded:
        return ""
    area = (62.0, width - 18, 30.0, height - 50)
    x, y = _scales([*kept, *loaded], batch, area)
    body = []
    base = baseline_row(kept, batch)
    if base is not None:
        at = (x(base.latency[batch].median_ms), y(base.accuracy_mean or 0.0))
        body.append(rect(x.start, y.stop, at[0] - x.start, at[1] - y.stop, class_="better"))
        if at[0] - x.start > text_width("faster and more accurate"):
            body.append(
                text(x.start + 8, y.stop + 15, "faster and more accurate", class_="better-text")
            )
    body.append(axes(x, y, x_label=f"latency at batch {batch}, ms per batch (median)",
                     y_label="test accuracy", percent_y=True))  # fmt: skip
    if base is not None:
        body.append(line(at[0], y.stop, at[0], y.start, class_="base-line"))
        body.append(line(x.start, at[1], x.stop, at[1], class_="base-line"))
    if kept:
        body.append(_stairs(accuracy_latency_front(kept, batch), batch, x, y))
    for own in series_of(kept, batch):
        points = [(x(r.latency[batch].median_ms), y(r.accuracy_mean or 0.0)) for r in own]
        body.append(path(points, class_=f"thread s-{kind_color(own[0].kind)}"))
    for row in [*loaded, *kept]:
        hollow = row.latency[batch].flagged
        if not hollow:
            body.append(_errors(row, batch, x, y))
        point = (x(row.latency[batch].median_ms), y(row.accuracy_mean or 0.0))
        color = kind_color(row.kind)
        kind = f"hollow s-{color}" if hollow else f"mark fill-{color}"
        shape = mark(runtime_shape(row.runtime), *point, 5.2, class_=kind)
        body.append(tag("g", f"{tag('title', html_text(_tip(row, batch)))}{shape}"))
    body.append(_labels([*kept, *loaded], batch, x, y))
    return drawing(
        width, height, "".join(body), label=f"Test accuracy against latency, batch {batch}"
    )


def runtime_legend(rows: Sequence[ModelRow]) -> str:
    """A key of the marks used, as HTML."""
    items = []
    for runtime in dict.fromkeys(row.runtime for row in rows):
        shape = mark(runtime_shape(runtime), 8, 8, 5, class_="fill-soft")
        svg = tag("svg", shape, viewBox="0 0 16 16", width=16, height=16, aria_hidden="true")
        items.append(f'<span class="key">{svg}{html_text(runtime)}</span>')
    return f'<p class="legend">{"".join(items)}</p>'
