"""A front for pages: SVG in the colours of the palette, its key as HTML."""

from __future__ import annotations

from collections.abc import Iterable

from darts_core.report.charts import axes
from darts_core.report.escape import html_text
from darts_core.report.front import Front, Point, place_labels
from darts_core.report.html import Markup
from darts_core.report.legend import legend, mark
from darts_core.report.svg import Scale, drawing, line, path, rect, tag, text, text_width

__all__ = ["front_svg", "key_html"]

_HEIGHT = 400


def front_svg(front: Front | None, *, width: float = 600) -> Markup:
    """The front as one SVG element, or "" without points.

    Hollow marks are shown and not compared; points of a series are joined; bars are spreads. The dashed
    cross is the baseline, the tinted corner is better than it in both.
    """
    if front is None or not front.points:
        return Markup()
    x, y = front.scales((62.0, width - 18, 30.0, _HEIGHT - 50))
    body = [_corner(front, x, y), axes(x, y, x_label=front.x.label, y_label=front.y.label)]
    if front.baseline is not None:
        at = (x(front.baseline[0]), y(front.baseline[1]))
        body.append(line(at[0], y.stop, at[0], y.start, class_="base-line"))
        body.append(line(x.start, at[1], x.stop, at[1], class_="base-line"))
    body.append(_edge(front, x, y))
    for own in front.threads():
        body.append(path([(x(p.x), y(p.y)) for p in own], class_=f"thread s-{own[0].color}"))
    body += [_mark(point, x, y) for point in front.points]
    body.append(_labels(front, x, y))
    return drawing(width, _HEIGHT, "".join(body), label=front.title)


def _corner(front: Front, x: Scale, y: Scale) -> str:
    """The tinted corner that is better than the baseline in both, and its name where it fits."""
    if front.baseline is None:
        return ""
    at = (x(front.baseline[0]), y(front.baseline[1]))
    left, right = (x.start, at[0]) if front.x.better == "min" else (at[0], x.stop)
    top, bottom = (y.stop, at[1]) if front.y.better == "max" else (at[1], y.start)
    body = rect(left, top, right - left, bottom - top, class_="better")
    if front.better and right - left > text_width(front.better):
        body += text(left + 8, top + 15, front.better, class_="better-text")
    return body


def _edge(front: Front, x: Scale, y: Scale) -> str:
    """The edge of what is reachable: from the worst y to the first point, and on beyond the last."""
    corners = [(x(a), y(b)) for a, b in front.stairs()]
    if not corners:
        return ""
    worst = y.start if front.y.better == "max" else y.stop
    end = x.stop if front.x.better == "min" else x.start
    return path(
        [(corners[0][0], worst), *corners, (end, corners[-1][1])],
        class_="front",
    )


def _mark(point: Point, x: Scale, y: Scale) -> str:
    """A point with the bars of its spread and its hover text."""
    at = (x(point.x), y(point.y))
    kind = f"error s-{point.color}"
    bars = ""
    if point.x_range:
        ends = [min(max(x(value), x.start), x.stop) for value in point.x_range]
        bars += line(ends[0], at[1], ends[1], at[1], class_=kind)
    if point.y_range:
        bars += line(at[0], y(point.y_range[0]), at[0], y(point.y_range[1]), class_=kind)
    look = f"hollow s-{point.color}" if point.hollow else f"mark fill-{point.color}"
    size = 7.5 if point.shape == "star" else 5.2  # of which less is filled
    shape = mark(point.shape, *at, size, class_=look)
    return bars + tag("g", f"{tag('title', html_text(point.tip or point.label))}{shape}")


def _labels(front: Front, x: Scale, y: Scale) -> str:
    named = front.named()
    widths = [text_width(point.label, 12) for point in named]
    places = place_labels(
        [(x(p.x), y(p.y)) for p in named],
        [(x(p.x), y(p.y)) for p in front.points],
        widths,
        (x.start, x.stop, y.stop + 18, y.start),
    )
    return "".join(
        text(*place, point.label, class_=f"label halo t-{point.color}")
        for point, place in zip(named, places, strict=True)
    )


def key_html(fronts: Iterable[Front | None]) -> Markup:
    """The legend of some fronts as HTML: every mark once."""
    return legend(dict.fromkeys(key for front in fronts if front is not None for key in front.keys))
