"""The picture of a front and its rivals, from a file of `benchmarks.elastic` or `benchmarks.three_budgets`.

    python -m benchmarks.front_picture benchmarks/results/RESULTS.json docs/images/elastic-front.png

Horizontal: the time of a call over the given network's, timed beside it; vertical: the metric on test, with
the standard error of a share over the test examples. One mark a network; several seeds are drawn together,
and so are several runs of one comparison: name their files one after another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.picture import finish, run, start
from darts_core.bench.results import Results, read_results
from darts_core.report.palette import hex_color

__all__ = ["draw", "series"]

# what a row holds -> its name, its color, its mark; the first one is ours
_ELASTIC = {
    "shares": ("one elastic training", "accent", "o"),
    "prune": ("pruned, a run a point", "pool", "s"),
    "taylor": ("Torch-Pruning, Taylor", "other", "D"),
    "scaled": ("narrower, trained anew", "third", "^"),
    "whole": ("the given network", "ink", "*"),
}
_SEARCHED = {
    "ours": ("searched", "accent", "o"),
    "random": ("random search, the same space", "pool", "s"),
    "scaled": ("ResNet-18, narrower", "third", "^"),
    "reference": ("ResNet-18", "ink", "*"),
}
_TICKS = (0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 0.75, 1.0)


def _looks(theme: str) -> dict[str, tuple[str, str, str]]:
    return _SEARCHED if theme.startswith("three-budgets") else _ELASTIC


def series(
    rows: Sequence[Mapping[str, Any]], theme: str = "elastic"
) -> dict[str, list[tuple[float, float]]]:
    """What is drawn: name -> (share of the given network's time, metric) of each network."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for key, (name, *_) in _looks(theme).items():
            for point in row.get(key, {}).get("points", ()):
                found.setdefault(name, []).append((point["share"], point["metric"]))
        if "whole" in row:
            name = _ELASTIC["whole"][0]
            found.setdefault(name, []).append((1.0, row["whole"]["base"]))
    return found


def _test_examples(results: Results) -> int:
    known = (row["shares"]["test_examples"] for row in results.rows if "shares" in row)
    return int(results.notes.get("test_examples") or next(known, 0))


def draw(*paths: Path, to: Path) -> Path:
    """Draw the results files `paths`, of one comparison, into `to`."""
    files = [read_results(path) for path in paths]
    results, rows = files[0], [row for one in files for row in one.rows]
    figure, axes = start(7.2, 4.4)
    looks, examples = list(_looks(results.theme).values()), _test_examples(results)
    found = series(rows, results.theme)
    for name, color, mark in looks:
        points, ours = sorted(found.get(name, ())), name == looks[0][0]
        if not points:
            continue
        errors = [100 * math.sqrt(m * (1 - m) / examples) if examples else 0 for _, m in points]
        axes.errorbar(
            [share for share, _ in points], [100 * metric for _, metric in points], yerr=errors,
            fmt=mark, color=hex_color(color), label=name, capsize=2, elinewidth=0.8,
            markersize=11 if mark == "*" else 6, zorder=3 if ours else 2,
            linestyle="-" if ours and len(rows) == 1 else "none",
        )  # fmt: skip
    return finish(
        figure, to, {tick: f"{100 * tick:g} %" for tick in _TICKS if tick >= _least(found)},
        time="measured time of a call, share of the given network's",
        metric="accuracy on test (%)",
        title=f"{results.device}, {len(rows)} {'seed(s)' if len(files) == 1 else 'runs'}",
    )  # fmt: skip


def _least(found: Mapping[str, Sequence[tuple[float, float]]]) -> float:
    """From where on the axis is labelled: just below the fastest network."""
    return 0.85 * min((share for points in found.values() for share, _ in points), default=0.2)


if __name__ == "__main__":
    run(draw, __doc__, most=9)
