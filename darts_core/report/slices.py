"""Slices of a study: the value of every trial against one setting at a time."""

from __future__ import annotations

from collections.abc import Sequence

from darts_core.report.charts import axes
from darts_core.report.escape import html_text, plain_text
from darts_core.report.html import Markup
from darts_core.report.legend import mark
from darts_core.report.rows import finite
from darts_core.report.svg import Scale, drawing, number, tag, text
from darts_core.report.trials import Trial

__all__ = ["slices"]

_MOST, _MOST_NAMES = 8, 12
_LOG_RANGE = 20.0
_LETTER = 7.6  # pixels of a letter of a tick's text, on the safe side


def slices(trials: Sequence[Trial], *, label: str) -> list[tuple[str, Markup]]:
    """(title, drawing) of each setting that differs between trials, at most eight."""
    done = [trial for trial in trials if trial.complete]
    names = list(dict.fromkeys(name for trial in done for name in trial.params))
    varied = [n for n in names if len({str(t.params.get(n)) for t in done}) > 1]
    drawn = [(f"Slice: {name}", _slice(done, name, label)) for name in varied[:_MOST]]
    return [(title, picture) for title, picture in drawn if picture]


def _slice(trials: Sequence[Trial], name: str, label: str) -> Markup:
    have = [trial for trial in trials if name in trial.params]
    values = [trial.value for trial in have if trial.value is not None]
    numbers = [finite(trial.params[name]) for trial in have]
    known = [n for n in numbers if n is not None]
    width, height = 560.0, 250.0
    y = Scale.fit(values, height - 46, 30.0, pad=0.08)
    numeric = len(known) == len(have)
    if numeric:
        log = min(known) > 0 and max(known) / min(known) > _LOG_RANGE
        x = Scale.fit(known, 56.0, width - 18, log=log)
        places = [x(value) for value in known]
        body = axes(x, y, x_label=name + (" (log)" if log else ""), y_label=label)
    else:
        every = list(dict.fromkeys(str(trial.params[name]) for trial in have))
        kinds = every[:_MOST_NAMES]
        left_out = f" (the first {len(kinds)} of {len(every)} values)" * (len(every) > len(kinds))
        x = Scale(-0.5, len(kinds) - 0.5, 56.0, width - 18)
        index = {kind: float(i) for i, kind in enumerate(kinds)}
        have = [trial for trial in have if str(trial.params[name]) in index]
        places = [x(index[str(trial.params[name])]) for trial in have]
        # an axis without numbers of its own: the names stand at its marks
        # no mark of this scale is a whole number: the names stand there instead
        none = Scale(0.1, 0.2, x.start, x.stop)
        body = axes(none, y, x_label=name + left_out, y_label=label, whole_x=True)
        # as many characters as stand beside each other; the whole name is the hover text
        fitting = max(3, min(14, int((x.stop - x.start) / len(kinds) / _LETTER) - 1))
        for kind, at in index.items():
            shown = plain_text(kind, limit=fitting)
            body += text(x(at), y.start + 18, shown, tip=kind, class_="tick mid")
    for trial, at in zip(have, places, strict=True):
        own = trial.is_baseline
        tip = f"{'your configuration' if own else trial.name}: {number(trial.value or 0.0, 4)}"
        look = "mark fill-baseline" if own else "mark fill-searched"
        shape = mark("star" if own else "circle", at, y(trial.value or 0.0), 4.6, class_=look)
        body += tag("g", tag("title", html_text(tip)) + shape)
    return drawing(width, height, body, label=f"{label} against {name}")
