"""The section of an elastic training: the measured front of its sub-networks, and its points in a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from darts_core.report.blocks import Section, card, count_text, details, pair, plain_table, records
from darts_core.report.charts import Line, line_chart
from darts_core.report.front import Axis, Front, Key, Point
from darts_core.report.html import Markup
from darts_core.report.read import VersionRun, series
from darts_core.report.rows import finite
from darts_core.report.svg import number
from darts_core.report.svg_front import front_svg

__all__ = ["family_front", "family_rows", "shrink_section"]


def _points(content: Any) -> list[Mapping[str, Any]]:
    """The points of a front.json that have both numbers."""
    found = content.get("points") if isinstance(content, Mapping) else None
    return [
        point
        for point in (found if isinstance(found, list) else [])
        if isinstance(point, Mapping)
        and finite(point.get("latency_ms")) is not None
        and finite(point.get("metric")) is not None
    ]


def _factor(content: Mapping[str, Any]) -> tuple[float, str]:
    """(what a metric is multiplied by, its unit)."""
    return (100.0, ", %") if content.get("share") else (1.0, "")


def family_front(content: Mapping[str, Any]) -> Front | None:
    """The picture of a front.json: the points, their spreads, the given network as the baseline."""
    points = _points(content)
    if not points:
        return None
    factor, unit = _factor(content)
    metric = str(content.get("metric") or "metric")
    better = "min" if content.get("direction") == "minimize" else "max"
    base = content.get("base") if isinstance(content.get("base"), Mapping) else {}
    place = (finite(base.get("latency_ms")), finite(base.get("metric")))  # type: ignore[union-attr]
    drawn = tuple(
        Point(
            float(point["latency_ms"]), factor * float(point["metric"]), color="pruned",
            tip=f"{number(point['latency_ms'])} ms, {number(factor * point['metric'])}{unit}",
            series="points", x_range=_range(point.get("latency_range_ms"), 1.0),
            y_range=_range(point.get("metric_range"), factor), hollow=bool(point.get("flagged")),
            counts=not point.get("flagged"),
        )
        for point in points
    )  # fmt: skip
    return Front(
        "the given network and its sub-networks",
        Axis(f"latency, ms ({content.get('runtime')}, batch {content.get('batch')})", "min"),
        Axis(f"test {metric}{unit}", better),
        drawn,
        baseline=(place[0], factor * place[1]) if None not in place else None,  # type: ignore[operator, arg-type]
        keys=(Key("circle", "pruned", "sub-network"), Key("cross", "baseline", "given network")),
    )


def _range(ends: Any, factor: float) -> tuple[float, float] | None:
    if not isinstance(ends, (list, tuple)) or len(ends) != 2:
        return None
    low, high = finite(ends[0]), finite(ends[1])
    return None if low is None or high is None else (factor * low, factor * high)


def family_rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table of a front.json: one row a point, the given network first."""
    factor, unit = _factor(content)
    metric = f"test {content.get('metric') or 'metric'}{unit}"
    base = content.get("base")
    rows = []
    for name, point in [
        *([("given", base)] if isinstance(base, Mapping) else []),
        *((str(place), point) for place, point in enumerate(_points(content), start=1)),
    ]:
        latency, value = finite(point.get("latency_ms")), finite(point.get("metric"))
        if latency is None or value is None:
            continue
        spread = _range(point.get("metric_range"), factor)
        half = f" ± {number((spread[1] - spread[0]) / 2, 2)}" if spread else ""
        rows.append(
            {
                "point": name,
                "ms": number(latency),
                "predicted ms": number(finite(point.get("predicted_ms")) or math.nan)
                if "predicted_ms" in point
                else "",
                metric: f"{number(factor * value, 4)}{half}",
                "parameters": count_text(finite(point.get("params")) or 0),
                "multiply-adds": count_text(finite(point.get("macs")) or 0),
                "found by": str(point.get("found_by") or ""),
            }
        )
    return rows


def shrink_section(run: VersionRun) -> Section | None:
    """The measured front, its table, who found the points and what it cost."""
    stage = run.stages.get("shrink")
    if stage is None:
        return None
    content = stage.file("front.json")
    body = Markup()
    front = family_front(content) if isinstance(content, Mapping) else None
    if isinstance(content, Mapping) and front is not None:
        body += card(front_svg(front), title="Measured front")
        body += card(records(family_rows(content)), title="Points")
        found = content.get("found_by")
        if isinstance(found, Mapping):
            body += details("Who found the points", card(plain_table(found)))
    rows, metric = stage.metrics, stage.metric
    accuracy = line_chart(
        [Line("whole network", series(rows, f"val_{metric.name}"), "conv"),
         Line("half-way", series(rows, f"middle_val_{metric.name}"), "sep"),
         Line("smallest", series(rows, f"smallest_val_{metric.name}"), "pool")],
        x_label="epoch", y_label=metric.words, title="On val in the elastic training",
        percent=metric.share,
    )  # fmt: skip
    loss = line_chart(
        [Line("training", series(rows, "loss"), "sep")],
        x_label="epoch", y_label="loss", title="Loss of the elastic training",
    )  # fmt: skip
    body += pair(card(accuracy, title="Elastic training"), card(loss, title="Loss"))
    judged = stage.number("judged")
    note = f"{number(judged)} sub-networks were judged on a part of val." if judged else ""
    return Section("shrink", "Shrinking", body, note)
