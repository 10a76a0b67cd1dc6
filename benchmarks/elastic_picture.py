"""The picture of a front and its rivals, from a results file of `benchmarks.elastic`.

    python -m benchmarks.elastic_picture benchmarks/results/RESULTS.json docs/images/elastic-front.png

Horizontal: the time of a call over the base's, timed beside it; vertical: the metric on test, with the
standard error of a share over the test examples. One mark a network; several seeds are drawn together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.picture import finish, run, start
from darts_core.bench.results import read_results
from darts_core.report.palette import hex_color

__all__ = ["draw", "series"]

OURS = "one elastic training"
_LOOKS = {
    OURS: ("accent", "o"),
    "pruned, a run a point": ("pool", "s"),
    "Torch-Pruning, Taylor": ("other", "D"),
    "narrower, trained anew": ("third", "^"),
    "the given network": ("ink", "*"),
}
_ROWS = dict(zip(("shares", "prune", "taylor", "scaled"), list(_LOOKS)[:4], strict=True))


def series(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """What is drawn: name -> (share of the base's time, metric) of each network that was measured."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for key, name in _ROWS.items():
            for point in row.get(key, {}).get("points", ()):
                found.setdefault(name, []).append((point["share"], point["metric"]))
        if "whole" in row:
            found.setdefault("the given network", []).append((1.0, row["whole"]["base"]))
    return found


def draw(path: Path, to: Path) -> Path:
    """Draw the results file `path` into `to`."""
    results = read_results(path)
    figure, axes = start(7.2, 4.4)
    examples = next((r["shares"]["test_examples"] for r in results.rows if "shares" in r), 0)
    for name, points in series(results.rows).items():
        color, mark = _LOOKS[name]
        points = sorted(points)
        errors = [100 * math.sqrt(m * (1 - m) / examples) if examples else 0 for _, m in points]
        axes.errorbar(
            [share for share, _ in points], [100 * metric for _, metric in points], yerr=errors,
            fmt=mark, color=hex_color(color), label=name, capsize=2, elinewidth=0.8,
            markersize=11 if mark == "*" else 6, zorder=3 if name == OURS else 2,
            linestyle="-" if name == OURS and len(results.rows) == 1 else "none",
        )  # fmt: skip
    return finish(
        figure, to, {tick: f"{100 * tick:g} %" for tick in (0.2, 0.25, 0.35, 0.5, 0.75, 1.0)},
        time="measured time of a call, share of the given network's",
        metric="accuracy on test (%)",
        title=f"{results.device}, {len(results.rows)} seed(s)",
    )  # fmt: skip


if __name__ == "__main__":
    run(draw, __doc__)
