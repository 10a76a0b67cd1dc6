"""Pictures of a search: best so far, the front, a comparison of versions. PNG, drawn without a display."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darts_core.report.tables import neutral
from darts_core.runlog import write_bytes
from darts_core.study.results import Goals, Row, front, row_values, search_rows

Gains = Sequence[Mapping[str, Any]]
_SIDES: dict[str, Any] = {
    "baseline": {"color": "gray", "label": "yours, fresh seeds"},
    "best": {"color": "tab:red", "label": "the pick, fresh seeds"},
}

__all__ = [
    "draw_best_so_far",
    "draw_comparison",
    "draw_front",
    "draw_importance",
    "draw_iterations",
]


def _plain_text(text: str) -> str:
    # matplotlib reads $...$ as mathematics and fails on bad mathematics
    return neutral(text, 60).replace("$", r"\$")


def _figure(x: str, y: str, title: str = "") -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(_plain_text(x))
    axes.set_ylabel(_plain_text(y))
    axes.grid(visible=True, alpha=0.3)
    lines = textwrap.wrap(neutral(title, 300).replace("$", r"\$"), 90)
    axes.set_title("\n".join(lines), fontsize=8)
    return figure, axes


def _whole_numbers(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _save(figure: Any, path: Path) -> Path:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    write_bytes(path, stream.getvalue())
    return path


def _confirmed(gains: Gains, metric: str) -> dict[str, tuple[float, float]]:
    """Mean and spread over the fresh seeds, of the pick and of the user's configuration."""
    for item in gains:
        if item["metric"] == metric and item["fresh_seeds"]:
            return {
                side: (item[side]["mean"], item[side]["std"] or 0.0)
                for side in ("baseline", "best")
            }
    return {}


def draw_best_so_far(
    rows: Sequence[Row], goals: Goals, path: Path, *, title: str = "", gains: Gains = ()
) -> Path | None:
    """Every trial's first objective, the best complete trial so far, and the baseline as a line.

    With `gains`, the fresh seeds stand at the right edge with their spread.
    """
    # a multi-search numbers the trials of each step anew
    ordered = sorted(search_rows(rows), key=lambda row: float(row.get("ended") or row["number"]))
    shown = [(row, row_values(row, goals[:1])) for row in ordered]
    points = [(position, row, values[0]) for position, (row, values) in enumerate(
        (row, values) for row, values in shown if values is not None)]  # fmt: skip
    if not points:
        return None
    figure, axes = _figure("trial, in order", goals[0]["metric"], title)
    _whole_numbers(axes)
    # the last value of a trial that was stopped early says little about a whole training
    for state, look in (("done", {}), ("stopped", {"markerfacecolor": "none"})):
        some = [(x, value) for x, row, value in points if row["state"] == state]
        if some:
            label = "trial" if state == "done" else "stopped early"
            axes.plot(
                *zip(*some, strict=True), "o", alpha=0.5, label=label, color="tab:blue", **look
            )
    better = max if goals[0]["mode"] == "max" else min
    best: list[tuple[int, float]] = []
    for x, row, value in points:
        if row["state"] == "done":
            best.append((x, better([*(v for _, v in best[-1:]), value])))
    if best:
        best.append((points[-1][0], best[-1][1]))
        axes.step(*zip(*best, strict=True), where="post", label="best so far", color="tab:orange")
    for _, row, value in points:
        if row.get("is_baseline"):
            axes.axhline(value, linestyle="--", color="gray", label="your configuration")
    for shift, (side, (mean, spread)) in enumerate(_confirmed(gains, goals[0]["metric"]).items()):
        axes.errorbar(
            points[-1][0] + 1 + 0.3 * shift, mean, yerr=spread, **_SIDES[side], fmt="s", capsize=3
        )
    axes.legend()
    return _save(figure, path)


def draw_front(
    rows: Sequence[Row], goals: Goals, path: Path, *, title: str = "", gains: Gains = ()
) -> Path | None:
    """The first two objectives against each other with the front and the baseline; None for one.

    With `gains`, the means over the fresh seeds stand there with their spread.
    """
    if len(goals) < 2:
        return None
    usable = [row for row in search_rows(rows) if row_values(row, goals) is not None]
    if not usable:
        return None
    x, y = goals[1]["metric"], goals[0]["metric"]
    figure, axes = _figure(x, y, title)
    axes.plot([r["values"][x] for r in usable], [r["values"][y] for r in usable], "o", alpha=0.4)
    best = sorted(front(usable, goals[:2]), key=lambda r: r["values"][x])
    axes.plot([r["values"][x] for r in best], [r["values"][y] for r in best], "o-", label="front")
    for row in usable:
        if row.get("is_baseline"):
            axes.plot(row["values"][x], row["values"][y], "*", ms=14, label="your configuration")
    across, up = _confirmed(gains, x), _confirmed(gains, y)
    for side in across.keys() & up.keys():
        (at, wide), (mean, spread) = across[side], up[side]
        axes.errorbar(at, mean, xerr=wide, yerr=spread, **_SIDES[side], fmt="s", capsize=3)
    axes.legend()
    return _save(figure, path)


def draw_iterations(
    series: Mapping[str, Sequence[tuple[int, float]]], metric: str, path: Path
) -> Path | None:
    """One line a trial: the metric at each iteration."""
    if not any(series.values()):
        return None
    figure, axes = _figure("iteration", metric)
    _whole_numbers(axes)
    for name, points in series.items():
        axes.plot([p[0] for p in points], [p[1] for p in points], "-", label=_plain_text(name))
    if len(series) <= 12:
        axes.legend()
    return _save(figure, path)


def draw_importance(shares: Mapping[str, float], metric: str, path: Path) -> Path | None:
    """The share of each setting in the spread of the first objective, as bars; None without shares."""
    if not shares:
        return None
    figure, axes = _figure(f"share in the spread of {metric}", "")
    names = list(shares)[::-1]
    axes.barh(range(len(names)), [shares[name] for name in names])
    axes.set_yticks(range(len(names)), [_plain_text(name) for name in names])
    return _save(figure, path)


def draw_comparison(
    columns: Mapping[str, Sequence[float]],
    baselines: Mapping[str, float],
    metric: str,
    path: Path,
    *,
    title: str = "",
) -> Path | None:
    """For each version its trials' values as dots and its baseline as a star."""
    if not any(columns.values()):
        return None
    figure, axes = _figure("version", metric, title)
    names = list(columns)
    for position, name in enumerate(names):
        values = columns[name]
        axes.plot([position] * len(values), values, "o", alpha=0.5, color="tab:blue")
        if name in baselines:
            axes.plot(position, baselines[name], "*", ms=14, color="tab:orange")
    axes.set_xticks(range(len(names)), [_plain_text(name) for name in names])
    return _save(figure, path)
