"""Line charts and bars as SVG: axes in quiet grey, series labelled at their ends, hover texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from darts_core.metric import ACCURACY, Metric
from darts_core.report.escape import html_text
from darts_core.report.html import Markup
from darts_core.report.svg import (
    Scale,
    drawing,
    line,
    number,
    path,
    rect,
    tag,
    text,
    text_width,
    tick_texts,
)

__all__ = ["Bar", "Line", "axes", "bars", "line_chart", "spread", "strip", "thin"]


@dataclass(frozen=True)
class Line:
    """One series: its points in order, a colour name, and optionally dashes or a marked point."""

    label: str
    points: Sequence[tuple[float, float]]
    color: str
    dash: str | None = None
    steps: bool = False
    faint: bool = False
    dots: bool = False


def axes(
    x: Scale,
    y: Scale,
    *,
    x_label: str,
    y_label: str,
    percent_y: bool = False,
    whole_x: bool = False,
) -> str:
    """Grid lines, tick labels and titles of a plot whose area is given by the two scales."""
    parts = []
    marks = y.ticks(5)
    texts = tick_texts([mark * 100 if percent_y else mark for mark in marks])
    for mark, shown in zip(marks, texts, strict=True):
        height = y(mark)
        shown = f"{shown} %" if percent_y else shown
        parts.append(line(x.start, height, x.stop, height, class_="grid"))
        parts.append(text(x.start - 8, height + 4, shown, class_="tick end"))
    for mark in x.ticks(6):
        if whole_x and abs(mark - round(mark)) > 1e-9:
            continue
        parts.append(line(x(mark), y.start, x(mark), y.start + 4, class_="axis"))
        parts.append(text(x(mark), y.start + 18, number(mark), class_="tick mid"))
    parts.append(line(x.start, y.start, x.stop, y.start, class_="axis"))
    parts.append(text((x.start + x.stop) / 2, y.start + 36, x_label, class_="axis-title mid"))
    parts.append(text(x.start, y.stop - 12, y_label, class_="axis-title"))
    return "".join(parts)


def spread(wanted: Sequence[float], room: float, low: float, high: float) -> list[float]:
    """Heights near `wanted` (any order) that keep `room` apart within [low, high] where that fits."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [min(max(w, low), high) for w in wanted]
    for before, after in pairwise(order):
        placed[after] = max(placed[after], placed[before] + room)
    if order and placed[order[-1]] > high:
        placed[order[-1]] = high
        for after, before in zip(order[::-1], order[-2::-1], strict=False):
            placed[before] = min(placed[before], placed[after] - room)
    return placed


def _stepped(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The corner points of a staircase through `points`."""
    result: list[tuple[float, float]] = []
    for x, y in points:
        if result:
            result.append((x, result[-1][1]))
        result.append((x, y))
    return result


def thin(points: Sequence[tuple[float, float]], most: int = 400) -> list[tuple[float, float]]:
    """At most about `most` of the points, the last one included."""
    stride = max(1, -(-len(points) // most))
    kept = list(points[::stride])
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]


def _fitting(label: str, room: float) -> str:
    """A label, or as much of its end as `room` pixels hold."""
    limit = int(len(label) * min(1.0, room / max(text_width(label, 12), 1)))
    return label if limit >= len(label) else "…" + label[-max(limit - 2, 4) :]


def line_chart(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    title: str,
    width: float = 560,
    height: float = 290,
    percent: bool = False,
    whole_x: bool = True,
    y_range: tuple[float, float] | None = None,
    from_zero: bool = False,
    level: tuple[str, float] | None = None,
) -> Markup:
    """Several series over a shared x axis; each label stands at its line's end, moved apart.

    `from_zero` begins the y axis at 0; `level` is a named value drawn as a dashed line across.
    """
    kept = [item for item in lines if item.points]
    if not kept:
        return Markup()
    named = [item for item in kept if item.label and not item.faint]
    # a long name is cut before it takes the room of the lines; the hover text has all of it
    wide = max((text_width(item.label, 12) for item in named), default=0)
    room = min(wide, 0.4 * width)
    left, right, top, bottom = 56.0, width - room - 18, 30.0, height - 46
    xs = [x for item in kept for x, _ in item.points]
    ys = [y for item in kept for _, y in item.points] + ([level[1]] if level else [])
    if from_zero and y_range is None:
        y_range = (0.0, 1.08 * max(ys) or 1.0)
    x_scale = Scale.fit(xs, left, right, pad=0.0 if max(xs) > min(xs) else 0.5)
    y_scale = Scale(*y_range, bottom, top) if y_range else Scale.fit(ys, bottom, top, pad=0.08)
    low, high = min(y_scale.low, y_scale.high), max(y_scale.low, y_scale.high)

    def up(value: float) -> float:
        # what lies beyond a given range stands at its edge, not on the axis' numbers
        return y_scale(min(max(value, low), high))

    body = [axes(x_scale, y_scale, x_label=x_label, y_label=y_label, percent_y=percent,
                 whole_x=whole_x)]  # fmt: skip
    if level is not None:
        at = up(level[1])
        body.append(line(left, at, right, at, class_="base-line"))
        body.append(text(left + 6, at - 5, level[0], class_="tick halo"))
    for item in kept:
        data = thin(sorted(item.points))
        drawn = _stepped(data) if item.steps else data
        body.append(
            path(
                [(x_scale(a), up(b)) for a, b in drawn],
                class_=f"series s-{item.color}" + (" faint" if item.faint else ""),
                stroke_dasharray=item.dash,
            )
        )
        if item.dots or len(data) == 1:
            body += [
                tag("circle", cx=x_scale(a), cy=up(b), r=2.6, class_=f"fill-{item.color}")
                for a, b in data
            ]
    ends = [max(item.points) for item in named]
    heights = spread([y_scale(y) for _, y in ends], 15, top, bottom)
    for item, (x, y), at in zip(named, ends, heights, strict=True):
        shown = f"{number(y * 100)} %" if percent else number(y)
        body.append(tag("circle", cx=x_scale(x), cy=up(y), r=3.2, class_=f"fill-{item.color}"))
        body.append(
            text(
                x_scale(x) + 9,
                at + 4,
                _fitting(item.label, room),
                tip=f"{item.label}: {shown} at {number(x)}",
                class_=f"label t-{item.color}",
            )
        )
    return drawing(width, height, "".join(body), label=title)


@dataclass(frozen=True)
class Bar:
    """One bar: label, value, colour name, the text after it, and an optional older value to compare."""

    label: str
    value: float
    color: str
    shown: str
    before: float | None = None


def bars(items: Sequence[Bar], *, title: str, width: float = 560, row: float = 26) -> Markup:
    """Horizontal bars from zero; `before` is drawn as a pale bar behind (a width before pruning)."""
    if not items:
        return Markup()
    most = max([bar.value for bar in items] + [bar.before or 0.0 for bar in items]) or 1.0
    left = min(max(text_width(bar.label, 12) for bar in items), width * 0.42) + 16
    right = width - max(text_width(bar.shown, 12) for bar in items) - 14
    body = []
    for i, bar in enumerate(items):
        y = i * row + 6
        tip = f"{bar.label}: {bar.shown}"
        label = _fitting(bar.label, left - 16)
        body.append(
            text(left - 10, y + (row - 10) / 2 + 1, label, tip=bar.label, class_="bar-label end")
        )
        scale = (right - left) / most
        if bar.before is not None:
            body.append(
                rect(left, y, bar.before * scale, row - 10, rx=3, class_="bar-before", tip=tip)
            )
        length = max(bar.value * scale, 1.0)
        body.append(rect(left, y, length, row - 10, rx=3, class_=f"fill-{bar.color}", tip=tip))
        end = left + max(length, (bar.before or 0.0) * scale)
        body.append(text(end + 8, y + (row - 10) / 2 + 1, bar.shown, class_="bar-value"))
    return drawing(width, len(items) * row + 8, "".join(body), label=title)


def strip(
    points: Sequence[tuple[str, float]],
    *,
    title: str,
    metric: Metric = ACCURACY,
) -> Markup:
    """Values of a metric as dots on one line, with their mean and one standard deviation either side."""
    values = [value for _, value in points]
    if not values:
        return Markup()
    width = 560
    mean = sum(values) / len(values)
    x = Scale.fit(values, 24.0, width - 24, pad=0.3)
    body = []
    if len(values) > 1:
        std = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
        ends = [min(max(x(mean + side * std), x.start), x.stop) for side in (-1, 1)]
        body.append(rect(ends[0], 26, ends[1] - ends[0], 34, class_="better",
                         tip=f"± {metric.text(std)}"))  # fmt: skip
    body.append(line(x.start, 60, x.stop, 60, class_="axis"))
    for mark in x.ticks(6):
        shown = f"{number(mark * metric.scale, 4)}{' %' if metric.share else ''}"
        body.append(text(x(mark), 78, shown, class_="tick mid"))
    body.append(line(x(mean), 22, x(mean), 60, class_="base-line"))
    body.append(text(x(mean), 15, f"mean {metric.text(mean)}", class_="label mid"))
    for name, value in points:
        tip = tag("title", html_text(f"{name}: {metric.text(value)}"))
        circle = tag("circle", tip, cx=x(value), cy=43.0, r=5.5, class_="mark fill-searched")
        body.append(circle)
    return drawing(width, 86, "".join(body), label=title)
