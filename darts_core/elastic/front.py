"""The front as a file: what each point is, how fast it was measured, and picking one.

`front.json` holds `points`, the slowest first: `choices`, `latency_ms` (measured), `metric`, `folder` ...
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from darts_core.errors import ConfigError
from darts_core.metric import worth
from darts_core.reading import read_mapping

__all__ = ["pick", "read_front"]


def read_front(front: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """A front's content from `front.json`, its folder, or itself.

    Raises:
        ConfigError: it holds no points.
    """
    if isinstance(front, Mapping):
        content = dict(front)
    else:
        path = Path(front)
        content = read_mapping(path / "front.json" if path.is_dir() else path, ConfigError)
    points = content.get("points")
    fine = isinstance(points, list) and points
    if not fine or not all(_is_point(point) for point in points):  # type: ignore[union-attr]
        raise ConfigError("This is no front: front.json needs points with latency_ms and metric.")
    return content


def _is_point(point: Any) -> bool:
    if not isinstance(point, Mapping) or not isinstance(point.get("latency_ms"), (int, float)):
        return False
    # null is what a file holds of NaN, such as the correlation of outputs that are all alike
    return isinstance(point.get("metric", ""), (int, float, NoneType))


def _judged(point: Mapping[str, Any]) -> float:
    """What a point is chosen by; NaN where that is no number."""
    value = point["val_metric"] if "val_metric" in point else point["metric"]
    return float(value) if isinstance(value, (int, float)) else math.nan


def pick(
    front: str | Path | Mapping[str, Any],
    *,
    latency_ms: float | None = None,
    accuracy: float | None = None,
) -> dict[str, Any]:
    """The point that serves a wish; its `folder`, counted from that of the front, holds the network.

    Points are judged by what they have on val (`val_metric`), so that their test metric stays one that chose
    nothing; by `metric` where the file holds no other. One whose metric is NaN is worse than any other.

    Args:
        front: `front.json`, its folder, or its content.
        latency_ms: the best point at most so slow.
        accuracy: the fastest point at least so good, in the metric of the front (a metric that is
            minimised: at most so large). With `latency_ms` as well both must hold.

    Raises:
        ConfigError: nothing is wished for, or no point serves; states the nearest.
    """
    content = read_front(front)
    points: list[dict[str, Any]] = [dict(point) for point in content["points"]]
    sign = -1.0 if content.get("direction") == "minimize" else 1.0

    def rating(point: Mapping[str, Any]) -> float:
        return worth(sign * _judged(point))

    if latency_ms is None and accuracy is None:
        raise ConfigError("pick needs latency_ms=, accuracy= or both.")
    fast = [p for p in points if latency_ms is None or p["latency_ms"] <= latency_ms]
    able = [p for p in fast if accuracy is None or rating(p) >= sign * accuracy]
    if able and accuracy is None:
        return max(able, key=lambda p: (rating(p), -p["latency_ms"]))
    if able:
        return min(able, key=lambda p: (p["latency_ms"], -rating(p)))
    if not fast:
        nearest = min(p["latency_ms"] for p in points)
        raise ConfigError(
            f"No point of this front takes at most {latency_ms:g} ms; the fastest takes {nearest:.4g} ms."
        )
    best = max(fast, key=rating)
    where = " on val" if "val_metric" in best else ""
    raise ConfigError(
        f"No point of this front reaches {accuracy:g}{where}"
        + (f" within {latency_ms:g} ms" if latency_ms is not None else "")
        + f"; the best has {_judged(best):.4g} at {best['latency_ms']:.4g} ms."
    )
