"""The section of an elastic training: the measured front of its sub-networks, and its points in a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from darts_core.errors import ConfigError
from darts_core.metric import Metric
from darts_core.report.blocks import Section, card, count_text, details, pair, plain_table, records
from darts_core.report.charts import Line, line_chart
from darts_core.report.front import Axis, Front, Key, Point
from darts_core.report.html import Markup
from darts_core.report.read import VersionRun, series
from darts_core.report.rows import finite
from darts_core.report.svg import number
from darts_core.report.svg_front import front_svg, key_html
from darts_core.report.verdict import change

__all__ = ["family_front", "family_headline", "family_rows", "picked_of", "shrink_section"]

_WIDTH = 1000.0  # of the picture, which stands alone in its line
_FLAG = " !"  # of a time that was taken beside other work


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


def _metric(content: Mapping[str, Any]) -> Metric:
    """What the points are judged by; a file's name that is none is shown as `metric`."""
    direction = "minimize" if content.get("direction") == "minimize" else "maximize"
    share = content.get("share") is True
    try:
        return Metric(str(content.get("metric") or "metric"), direction, share)
    except ConfigError:
        return Metric("metric", direction, share)


def _given(content: Mapping[str, Any]) -> Mapping[str, Any]:
    base = content.get("base")
    return base if isinstance(base, Mapping) else {}


def family_front(content: Mapping[str, Any], picked: str = "") -> Front | None:
    """The picture of a front.json: the points, their spreads, the given network as the baseline.

    Args:
        content: of the file.
        picked: the folder of the point that is picked, drawn as a star.
    """
    points = _points(content)
    if not points:
        return None
    metric, base = _metric(content), _given(content)
    names = [_name(p, n) for n, p in enumerate(points, start=1)]
    is_pick = [p.get("folder") == picked for p in points]
    drawn = [
        _point(p, metric, f"point {name}", label=name, shape="star" if pick else "circle")
        for p, name, pick in zip(points, names, is_pick, strict=True)
    ]
    given = None
    if None not in (finite(base.get("latency_ms")), finite(base.get("metric"))):
        given = _point(base, metric, "given network", color="baseline", shape="cross")
    keys = [Key("circle", "pruned", "sub-network"), Key("cross", "baseline", "given network")]
    if any(is_pick):
        keys.insert(1, Key("star", "pruned", "picked"))
    if any(row.get("flagged") for row in (base, *points)):
        keys.append(Key("circle", "pruned", "timed beside other work", hollow=True))
    return Front(
        "the given network and its sub-networks",
        Axis(f"latency, ms ({content.get('runtime')}, batch {content.get('batch')})", "min"),
        Axis(f"test {metric.axis}", "min" if metric.direction == "minimize" else "max"),
        (*([given] if given else []), *drawn),
        baseline=(given.x, given.y) if given else None,
        keys=tuple(keys),
    )


def _point(
    row: Mapping[str, Any],
    metric: Metric,
    name: str,
    *,
    label: str = "",
    color: str = "pruned",
    shape: str = "circle",
) -> Point:
    """A row of a front.json as a mark with its spreads; the given network is no point of the front."""
    ours, at = color == "pruned", float(row["latency_ms"])
    value = metric.scale * float(row["metric"])
    return Point(
        at, value, label=label, color=color, shape=shape, series="points" if ours else "",
        tip=f"{name}: {number(at)} ms, {metric.text(float(row['metric']))}",
        x_range=_range(row.get("latency_range_ms"), 1.0),
        y_range=_range(row.get("metric_range"), metric.scale),
        hollow=bool(row.get("flagged")), counts=ours and not row.get("flagged"),
        y_error=_error(row, metric),
    )  # fmt: skip


def _range(ends: Any, factor: float) -> tuple[float, float] | None:
    if not isinstance(ends, (list, tuple)) or len(ends) != 2:
        return None
    low, high = finite(ends[0]), finite(ends[1])
    return None if low is None or high is None else (factor * low, factor * high)


def family_rows(content: Mapping[str, Any], picked: str = "") -> list[dict[str, Any]]:
    """The table of a front.json: one row a point, the given network first.

    Args:
        content: of the file.
        picked: the folder of the point that is picked, and told to be.
    """
    metric, base = _metric(content), _given(content)
    whole = finite(base.get("latency_ms"))
    rows = []
    for name, point in [
        ("given", base),
        *((_name(point, place), point) for place, point in enumerate(_points(content), start=1)),
    ]:
        latency, value = finite(point.get("latency_ms")), finite(point.get("metric"))
        if latency is None or value is None:
            continue
        error = _error(point, metric)
        half = f" ± {_digits(metric, error)}" if error else ""
        rows.append(
            {
                "point": f"{name}, picked" if picked and point.get("folder") == picked else name,
                "ms": number(latency) + (_FLAG if point.get("flagged") else ""),
                "of its time": f"{latency / whole:.2f}×" if whole else "",
                "predicted ms": number(finite(point.get("predicted_ms")) or math.nan)
                if "predicted_ms" in point
                else "",
                f"test {metric.axis}": f"{_digits(metric, metric.scale * value)}{half}",
                "parameters": count_text(finite(point.get("params")) or 0),
                "multiply-adds": count_text(finite(point.get("macs")) or 0),
                "found by": str(point.get("found_by") or ""),
            }
        )
    return rows


def _digits(metric: Metric, value: float) -> str:
    """A value on the metric's axis: as many decimals in each row of a share, so that they stand in line."""
    return f"{value:.2f}" if metric.share else number(value, 4)


def _name(point: Mapping[str, Any], place: int) -> str:
    """The point's folder, which is what one wants of it."""
    return str(point.get("folder") or place).removeprefix("points/")


def _error(point: Mapping[str, Any], metric: Metric) -> float:
    """The standard error of a share, in points; 0 where none is known."""
    ends = _range(point.get("metric_range"), metric.scale)
    return (ends[1] - ends[0]) / 2 if ends else 0.0


def picked_of(
    content: Any, picked: str
) -> tuple[Metric, Mapping[str, Any], Mapping[str, Any]] | None:
    """The metric, the point of a folder and the given network, both with their numbers; else None.

    Args:
        content: of a front.json.
        picked: the point's folder.
    """
    if not isinstance(content, Mapping):
        return None
    base = _given(content)
    point = next((one for one in _points(content) if one.get("folder") == picked), None)
    whole, before = finite(base.get("latency_ms")), finite(base.get("metric"))
    return None if point is None or not whole or before is None else (_metric(content), point, base)


def family_headline(content: Any, picked: str) -> tuple[str, str] | None:
    """What the point of a folder is against the given network, and of what front: two sentences.

    None where the file does not hold what it takes.

    Args:
        content: of a front.json.
        picked: the point's folder.
    """
    found = picked_of(content, picked)
    if found is None:
        return None
    (metric, point, base), points = found, _points(content)
    gain = metric.gain(point["metric"], base["metric"])
    error = math.hypot(_error(point, metric), _error(base, metric))
    spread = f" (standard error {error:.2f})" if error else ""
    times = sorted(float(one["latency_ms"]) for one in points)
    title = (
        f"{metric.text(point['metric'], 1)} test {metric.words} at "
        f"{number(point['latency_ms'] / base['latency_ms'], 2)}× of the given network's time"
    )
    under = (
        f"The given network has {metric.text(base['metric'], 1)} at {number(base['latency_ms'])} ms "
        f"({content.get('runtime')}, batch {content.get('batch')}): {change(metric, gain)}{spread}."
    )
    if len(times) > 1:
        under += (
            f" The front has {len(times)} points, {number(times[0])} to {number(times[-1])} ms."
        )
    disturbed = sum(bool(one.get("flagged")) for one in (base, *points))
    if disturbed:
        under += (
            f" {disturbed} of {len(points) + 1} times were taken while other work ran on the device and are "
            "less sure."
        )
    return title, under


def shrink_section(run: VersionRun) -> Section | None:
    """The measured front, its table, who found the points and what it cost."""
    stage = run.stages.get("shrink")
    if stage is None:
        return None
    content, picked = stage.file("front.json"), str(stage.result.get("picked") or "")
    body = Markup()
    front = family_front(content, picked) if isinstance(content, Mapping) else None
    if isinstance(content, Mapping) and front is not None:
        body += card(front_svg(front, width=_WIDTH) + key_html([front]), title="Measured front")
        body += card(records(family_rows(content, picked)), title="Points")
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
    if isinstance(content, Mapping) and any(
        p.get("flagged") for p in (_given(content), *_points(content))
    ):
        note += f" Times with{_FLAG} were taken while other work ran on the device."
    return Section("shrink", "Shrinking", body, note)
