"""Pictures of a hyperparameter study: best so far, parallel coordinates, importance, curves.

Trials are plain mappings `{number, state, params, value}` as a study's `result.json` holds them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darts_core.report.charts import Bar, Line, bars, line_chart, thin
from darts_core.report.escape import html_text, plain_text
from darts_core.report.front import YOURS, Key
from darts_core.report.html import Markup
from darts_core.report.legend import legend
from darts_core.report.limits import far_away, outside_text
from darts_core.report.rows import finite
from darts_core.report.svg import drawing, line, number, path, tag, text, text_width

__all__ = [
    "Trial",
    "best_so_far",
    "importance_bars",
    "parallel",
    "read_trials",
    "trial_curves",
]

# points of all curves of a picture together, and at least of each
_POINTS, _FEWEST_POINTS = 12_000, 8


@dataclass(frozen=True)
class Trial:
    """One trial as reports see it: state in lower case, `value` None unless it completed.

    `feasible` is false where it breaks a constraint; `is_baseline` marks the user's own configuration;
    `label` is its name in the result table where that is not its number.
    """

    number: int
    state: str
    params: Mapping[str, Any] = field(default_factory=dict)
    value: float | None = None
    values: tuple[float | None, ...] = ()
    feasible: bool = True
    is_baseline: bool = False
    label: str = ""

    @property
    def name(self) -> str:
        """What it is called: its label, else its number."""
        return f"trial {self.label or self.number}"

    @property
    def complete(self) -> bool:
        """Whether it ran to its end and has a value."""
        return self.state.startswith(("complete", "done", "finish")) and self.value is not None


def read_trials(items: Any) -> list[Trial]:
    """The trials in a result's list, sorted by number; entries that are not trials are left out."""
    trials = []
    for item in items if isinstance(items, list) else ():
        if not isinstance(item, Mapping) or finite(item.get("number")) is None:
            continue
        params = item.get("params")
        values = item.get("values")
        value = item.get("value", values[0] if isinstance(values, list) and values else None)
        state = str(item.get("state") or "").lower().rsplit(".", 1)[-1]
        trials.append(
            Trial(
                number=int(item["number"]),
                state=state,
                params=dict(params) if isinstance(params, Mapping) else {},
                value=finite(value),
                values=tuple(finite(v) for v in values) if isinstance(values, list) else (),
                feasible=item.get("feasible") is not False,
                is_baseline=item.get("is_baseline") is True,
            )
        )
    return sorted(trials, key=lambda trial: trial.number)


def best_so_far(trials: Sequence[Trial], *, maximize: bool, label: str, percent: bool) -> Markup:
    """Every trial's value as a dot and the best one up to each trial as a staircase.

    What breaks a constraint is a dot, and never the best.
    """
    done = [t for t in trials if t.complete and t.value is not None]
    if not done:
        return Markup()
    best: list[tuple[float, float]] = []
    for trial in (t for t in done if t.feasible):
        value = trial.value or 0.0
        if best:
            value = max(value, best[-1][1]) if maximize else min(value, best[-1][1])
        best.append((float(trial.number), value))
    dots = [(float(t.number), t.value or 0.0) for t in done]
    cut = [(float(t.number), t.value) for t in trials if not t.complete and t.value is not None]
    own = next((t.value for t in done if t.is_baseline), None)
    # what was cut short or diverged may lie far below: it is drawn at the edge, and flattens nothing
    shown = [y for _, y in best[-1:]] + ([own] if own is not None else [])
    far = far_away([y for _, y in dots], maximize=maximize, kept=shown)
    known = [*{y for _, y in dots}.difference(far)]
    room = max(max(known) - min(known), 0.02 * abs(max(known)), 1e-9)
    limits = (min(known) - 0.6 * room, max(known) + 0.15 * room)
    if not maximize:
        limits = (min(known) - 0.15 * room, max(known) + 0.6 * room)
    cut = [(x, min(max(y or 0.0, limits[0]), limits[1])) for x, y in cut]
    lines = [
        Line("best", best, "searched", steps=True),
        *(
            Line("", [dot], "none" if trial.feasible else "bad", dots=True, faint=True)
            for trial, dot in zip(done, dots, strict=True)
        ),
        *(Line("", [(x, y or 0.0)], "pool", dots=True, faint=True) for x, y in cut),
    ]
    drawn = line_chart(
        lines,
        x_label="trial, in the order in which they began",
        y_label=label,
        title="Best value so far",
        percent=percent,
        y_range=limits,
        level=(YOURS, own) if own is not None else None,
    )
    keys = [Key("circle", "none", "a whole trial")]
    keys += [Key("circle", "pool", "stopped early, its last value")] if cut else []
    keys += [Key("circle", "none", f"{outside_text(len(far))}, at the edge")] if far else []
    outside = any(not trial.feasible for trial in done)
    keys += [Key("circle", "bad", "outside the constraints")] if outside else []
    return drawn + legend([*keys, Key("line", "searched", "the best so far")])


def _column(values: Sequence[Any]) -> tuple[NDArray[np.float64], list[str], bool]:
    """Positions in 0..1 of one parameter's values, its tick texts from low to high, and is-it-log."""
    numbers = [finite(v) for v in values]
    known = [n for n in numbers if n is not None]
    if len(known) == len(values) and len(set(known)) > 1:
        log = min(known) > 0 and max(known) / min(known) > 20
        scaled = np.log(known) if log else np.asarray(known)
        low, high = float(scaled.min()), float(scaled.max())
        middle = math.exp((low + high) / 2) if log else (low + high) / 2
        texts = [number(min(known)), number(middle), number(max(known))]
        return (scaled - low) / (high - low), texts, log
    names = sorted({str(v) for v in values})
    place = {name: i / max(len(names) - 1, 1) if len(names) > 1 else 0.5
             for i, name in enumerate(names)}  # fmt: skip
    return np.array([place[str(v)] for v in values]), names, False


def _shared(trials: Sequence[Trial]) -> list[str]:
    """Parameters that every trial has and that differ between some, in their order."""
    if not trials:
        return []
    names = [name for name in trials[0].params if all(name in t.params for t in trials)]
    return [name for name in names if len({str(t.params[name]) for t in trials}) > 1]


def parallel(trials: Sequence[Trial], *, maximize: bool, label: str, percent: bool) -> Markup:
    """Parallel coordinates: one axis a parameter, the value last; the best trial stands out."""
    done = [t for t in trials if t.complete and t.value is not None]
    names = _shared(done)
    if len(done) < 2 or not names:
        return Markup()
    shown = names[:8]
    values = np.array([t.value for t in done], dtype=np.float64)
    span = float(values.max() - values.min()) or 1.0
    columns = [(name, *_column([t.params[name] for t in done])) for name in shown]
    ends = [number(v * 100) + " %" if percent else number(v) for v in (values.min(), values.max())]
    columns.append((label, (values - values.min()) / span, [ends[0], ends[1]], False))
    width, height, top, bottom = 1060.0, 300.0, 46.0, 276.0
    left, right = 76.0, width - 90
    xs = np.linspace(left, right, len(columns))
    goodness = (values - values.min()) / span
    goodness = goodness if maximize else 1 - goodness
    rank = np.argsort(goodness)
    leader = next((i for i in reversed(rank) if done[int(i)].feasible), None)
    body = []
    for index in rank:
        points = [(float(x), bottom - float(c[1][index]) * (bottom - top))
                  for x, c in zip(xs, columns, strict=True)]  # fmt: skip
        best = index == leader
        trial = done[int(index)]
        tip = f"{trial.name}: " + ", ".join(
            f"{name} {plain_text(trial.params[name], limit=40)}" for name in shown
        )
        stroke = path(
            points,
            class_="coord best" if best else "coord",
            stroke_opacity=None if best else round(0.12 + 0.5 * float(goodness[index]) ** 2, 2),
        )
        body.append(tag("g", tag("title", html_text(tip)) + stroke))
    for x, (name, _, texts, log) in zip(xs, columns, strict=True):
        at = float(x)
        body.append(line(at, top, at, bottom, class_="coord-axis"))
        room = (right - left) / max(len(columns) - 1, 1) - 14
        cut = name if text_width(name, 12) < room else name[: max(int(room / 9), 6)] + "…"
        body.append(text(at, 18, cut, tip=name, class_="label mid"))
        if log:
            body.append(text(at, 33, "log", class_="tick mid"))
        for i, shown_text in enumerate(texts[:9]):
            y = bottom - (bottom - top) * i / max(len(texts) - 1, 1)
            body.append(text(at + 6, y + 4, plain_text(shown_text, limit=14), class_="tick halo"))
    return drawing(width, height, "".join(body), label="Parallel coordinates of all trials")


def importance_bars(shares: Mapping[str, Any]) -> Markup:
    """Bars of importances, as the study gives them."""
    known = [(str(name), finite(share)) for name, share in shares.items()]
    items = [Bar(name, s, "searched", f"{s * 100:.0f} %") for name, s in known if s is not None]
    return bars(items[:12], title="Importance of each parameter")


def trial_curves(curves: Mapping[int, Sequence[tuple[float, float]]], best: int | None,
                 *, label: str, percent: bool, maximize: bool = True, own: int | None = None,
                 x_label: str = "epoch", name: str = "") -> Markup:  # fmt: skip
    """A value against epochs for every trial: the best one and the user's own (`own`) strong; those that
    were cut short end, and one of a single epoch is a dot.
    """
    # of many, each has fewer points, so that a page stays small; none is left out
    most = max(_FEWEST_POINTS, _POINTS // max(len(curves), 1))
    named = {own: (YOURS, "baseline"), best: (name or f"trial {best}", "searched")}
    lines = [
        Line("", thin(sorted(points), most), "none", faint=True)
        for index, points in curves.items()
        if index not in named and points
    ]
    for index, (name, color) in named.items():
        if index is not None and curves.get(index):
            lines.append(Line(name, list(curves[index]), color))
    values = [y for points in curves.values() for _, y in points]
    limits = None
    if len(values) > 20:
        # the first epochs would take the room of the differences that matter
        low, high = np.quantile(values, [0.12, 1.0] if maximize else [0.0, 0.88])
        room = 0.06 * (high - low)
        ends = (low, high + room) if maximize else (low - room, high)
        limits = (float(ends[0]), float(ends[1])) if high > low else None
    return line_chart(
        lines,
        x_label=x_label,
        y_label=label,
        title="Every trial's curve",
        percent=percent,
        y_range=limits,
    )
