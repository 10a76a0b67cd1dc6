"""Pictures of a job's search: best so far, the front, curves, importance, a comparison of versions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from darts_core.report.front import YOURS
from darts_core.report.limits import far_away, outside_text
from darts_core.report.metric_units import metric_label
from darts_core.report.palette import hex_color
from darts_core.report.png_figure import new_figure, only_data, plain_label, plain_title, save_png
from darts_core.report.png_front import save_front
from darts_core.report.trials_front import (
    SEED_MARKS,
    Gains,
    fresh_seeds,
    search_front,
)
from darts_core.study.results import Goals, Row, row_values, search_rows

__all__ = [
    "draw_all",
    "draw_best_so_far",
    "draw_comparison",
    "draw_front",
    "draw_importance",
    "draw_iterations",
]


def _figure(x: str, y: str, title: str = "") -> tuple[Any, Any]:
    figure = new_figure(5.8, 3.9)
    axes = figure.subplots()
    only_data(axes)
    axes.set_xlabel(plain_label(x), fontsize=8)
    axes.set_ylabel(plain_label(y), fontsize=8)
    axes.tick_params(labelsize=7.5)
    axes.set_title(plain_title(title), fontsize=8, loc="left")
    return figure, axes


def _save(figure: Any, path: Path) -> Path:
    figure.tight_layout()
    return save_png(figure, path)


def draw_best_so_far(
    rows: Sequence[Row], goals: Goals, path: Path, *, title: str = "", gains: Gains = ()
) -> Path | None:
    """Every trial's first objective, the best complete trial so far, and the baseline as a line.

    With `gains`, the fresh seeds stand at the right edge with their spread.
    """
    # a multi-search numbers the trials of each step anew
    ordered = sorted(search_rows(rows), key=lambda row: float(row.get("ended") or row["number"]))
    usable = [(row, v[0]) for row in ordered if (v := row_values(row, goals[:1])) is not None]
    if not usable:
        return None
    metric, better = goals[0]["metric"], max if goals[0]["mode"] == "max" else min
    label = metric_label(metric, goals[0]["mode"])
    figure, axes = _figure("trial, in the order of their ends", label, title)
    _whole_numbers(axes)
    # the last value of a trial that was stopped early says little about a whole training
    for state, label, face in (
        ("done", "trial", hex_color("searched")),
        ("stopped", "stopped early", "none"),
    ):
        some = [(x, value) for x, (row, value) in enumerate(usable) if row["state"] == state]
        if some:
            axes.plot(*zip(*some, strict=True), "o", alpha=0.6, label=label, color=hex_color("searched"),
                      markerfacecolor=face)  # fmt: skip
    best: list[tuple[int, float]] = []
    for x, (row, value) in enumerate(usable):
        if row["state"] == "done":
            best.append((x, better([*(v for _, v in best[-1:]), value])))
    if best:
        best.append((len(usable) - 1, best[-1][1]))
        axes.step(
            *zip(*best, strict=True), where="post", label="best so far", color=hex_color("good")
        )
    shown = [y for _, y in best[-1:]]
    for row, value in usable:
        if row.get("is_baseline"):
            axes.axhline(value, linestyle="--", color=hex_color("baseline"), label=YOURS)
            shown.append(value)
    for shift, (side, (mean, std)) in enumerate(fresh_seeds(gains, metric).items()):
        shown += [mean - std, mean + std]
        name, color = SEED_MARKS[side]
        axes.errorbar(len(usable) + 0.3 * shift, mean, yerr=std, color=hex_color(color), fmt="s",
                      capsize=3, label=f"{name}, fresh seeds")  # fmt: skip
    _leave_out_far(axes, [value for _, value in usable], shown, maximize=better is max)
    axes.legend(fontsize=7, frameon=False)
    return _save(figure, path)


def _leave_out_far(
    axes: Any, values: Sequence[float], shown: Sequence[float], *, maximize: bool
) -> None:
    """End the vertical axis with the rest where some values lie far away, and say how many do."""
    far = far_away(values, maximize=maximize, kept=shown)
    if not far:
        return
    rest = [*{*values}.difference(far), *shown]
    room = 0.06 * (max(rest) - min(rest)) or 0.06 * abs(max(rest))
    # with a line's room for the words
    axes.set_ylim(
        min(rest) - (3 if maximize else 1) * room, max(rest) + (1 if maximize else 3) * room
    )
    axes.text(0.01, 0.02 if maximize else 0.98, outside_text(len(far)), transform=axes.transAxes,
              va="bottom" if maximize else "top", fontsize=7)  # fmt: skip


def _whole_numbers(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def draw_front(
    rows: Sequence[Row], goals: Goals, path: Path, *, title: str = "", gains: Gains = ()
) -> Path | None:
    """The first two objectives against each other with the front and the baseline; None for one."""
    front = search_front(rows, goals, title=title, gains=gains)
    return None if front is None else save_front([front], path)


def draw_iterations(
    series: Mapping[str, Sequence[tuple[float, float]]],
    goal: Mapping[str, Any],
    path: Path,
    *,
    stopped: Collection[str] = (),
    best: str = "",
    own: str = "",
) -> Path | None:
    """The first objective against the iteration of every trial; None without one.

    Args:
        series: points by trial.
        goal: the objective.
        path: the file.
        stopped: the trials that were stopped early; their lines end in a cross.
        best: the trial to take.
        own: the user's configuration.
    """
    if not any(series.values()):
        return None
    figure, axes = _figure("iteration", metric_label(goal["metric"], goal["mode"]))
    _whole_numbers(axes)
    labelled = {own: (YOURS, "baseline"), best: ("the pick", "pruned")}
    seen: set[str] = set()
    for name, points in sorted(series.items(), key=lambda item: item[0] in labelled):
        label, color = labelled.get(name, ("trial", "searched"))
        strong = name in labelled
        # a single point is no line
        axes.plot(*zip(*points, strict=True), color=hex_color(color), linewidth=2.0 if strong else 0.9,
                  alpha=1.0 if strong else 0.45, marker="o" if len(points) == 1 else None, ms=4,
                  label=label if label not in seen else None)  # fmt: skip
        seen.add(label)
        if name in stopped:
            axes.plot(*points[-1], "x", color=hex_color("bad"), ms=5,
                      label="stopped early" if "cross" not in seen else None)  # fmt: skip
            seen.add("cross")
    axes.legend(fontsize=7, frameon=False)
    return _save(figure, path)


def draw_importance(shares: Mapping[str, float], metric: str, path: Path) -> Path | None:
    """The share of each setting in the spread of the first objective, as bars; None without shares."""
    if not shares:
        return None
    figure, axes = _figure(f"share in the spread of {metric}", "")
    names = list(shares)[::-1]
    axes.barh(range(len(names)), [shares[name] for name in names], color=hex_color("searched"))
    axes.set_yticks(range(len(names)), [plain_label(name) for name in names])
    return _save(figure, path)


def draw_comparison(
    columns: Mapping[str, Sequence[float]],
    baselines: Mapping[str, float],
    metric: str,
    path: Path,
    *,
    title: str = "",
) -> Path | None:
    """For each version its trials' values as dots and the user's own configuration as a star."""
    if not any(columns.values()):
        return None
    figure, axes = _figure("", metric_label(metric), title)
    names = list(columns)
    for position, name in enumerate(names):
        values = columns[name]
        axes.plot([position] * len(values), values, "o", alpha=0.5, color=hex_color("searched"),
                  label=None if position else "trial")  # fmt: skip
        if name in baselines:
            axes.plot(position, baselines[name], "*", ms=14, color=hex_color("baseline"),
                      label=None if baselines.keys() & names[:position] else YOURS)  # fmt: skip
    axes.legend(fontsize=7, frameon=False, markerscale=0.6)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_xticks(range(len(names)), [plain_label(name) for name in names])
    return _save(figure, path)


def draw_all(
    rows: Sequence[Row],
    goals: Goals,
    shares: Mapping[str, float],
    found: Mapping[str, Any] | None,
    folder: Path,
    curves: Mapping[str, Sequence[tuple[int, float]]],
) -> list[Path]:
    """Draw best-so-far, front, the trials' curves and the settings' importance; returns the files made.

    Each picture of results states the gain against the user's configuration. `curves` holds the first
    objective at each iteration by trial.
    """
    if not goals:
        return []
    title, gains = (found or {}).get("verdict", ""), (found or {}).get("gain", ())
    metric = goals[0]["metric"]
    sides = ("best", "baseline")
    ids = {side: ((found or {}).get(side) or {}).get("trial_id", "") for side in sides}
    stopped = {row["trial_id"] for row in rows if row.get("state") == "stopped"}
    made = [
        draw_best_so_far(rows, goals, folder / "best_so_far.png", title=title, gains=gains),
        draw_front(rows, goals, folder / "front.png", title=title, gains=gains),
        draw_iterations(
            curves,
            goals[0],
            folder / "trials.png",
            stopped=stopped,
            best=ids["best"],
            own=ids["baseline"],
        ),
        draw_importance(shares, metric, folder / "importance.png"),
    ]
    return [path for path in made if path is not None]
