"""Who worked when: one lane a worker, one bar a trial, the gaps between them are idle time."""

from __future__ import annotations

from collections.abc import Sequence

from darts_core.report.escape import html_text
from darts_core.report.front import Key
from darts_core.report.html import Markup
from darts_core.report.legend import legend
from darts_core.report.rows import finite
from darts_core.report.svg import Scale, drawing, line, number, rect, tag, text
from darts_core.study.result_table import row_names
from darts_core.study.results import Row

__all__ = ["timeline"]

_COLORS = {"done": "searched", "stopped": "pool", "failed": "bad", "running": "good"}
_WORDS = {"done": "searched", "stopped early": "pool", "failed": "bad"}
_LANE, _MOST_LANES = 26.0, 32


Lane = tuple[str, int]
Span = tuple[Lane, float, float, str, Row]


def _spans(rows: Sequence[Row]) -> list[Span]:
    """(worker, begin, end, name, row) of every trial whose times are known."""
    found = []
    for row, name in zip(rows, row_names(rows), strict=True):
        ended, spent = finite(row.get("ended")), finite(row.get("time_total_s"))
        if ended is not None and spent is not None and spent >= 0:
            lane = (str(row.get("device") or "cpu"), int(finite(row.get("worker_index")) or 0))
            found.append((lane, ended - spent, ended, name, row))
    return found


def _closed_up(
    spans: Sequence[Span], pauses: Sequence[tuple[float, float]]
) -> tuple[list[Span], bool]:
    """The trials as if there had been no pause, and whether there was one.

    Pauses are known to a second or so: a trial that reaches into one ends, or begins, it.
    """
    left_out: list[tuple[float, float]] = []
    for stood, went_on in pauses:
        begin = max((last for _, first, last, *_ in spans if first <= stood), default=went_on)
        end = min((first for _, first, last, *_ in spans if last >= went_on), default=stood)
        begin, end = max(begin, stood), min(end, went_on)
        if begin < end and not any(first < end and last > begin for _, first, last, *_ in spans):
            left_out.append((begin, end))

    def passed(moment: float) -> float:
        return moment - sum(min(moment, end) - begin for begin, end in left_out if begin < moment)

    moved = [(lane, passed(a), passed(b), name, row) for lane, a, b, name, row in spans]
    return moved, bool(left_out)


def timeline(rows: Sequence[Row], pauses: Sequence[tuple[float, float]] = ()) -> Markup:
    """Bars over time, one lane a worker; at its right the share of the time in which it was idle.

    Args:
        rows: of the trials.
        pauses: (begin, end) of each time in which the search stood still, in seconds as in the rows: it is
            left out.
    """
    spans, paused = _closed_up(_spans(rows), pauses)
    if not spans:
        return Markup()
    every = sorted({lane for lane, *_ in spans})
    lanes = every[:_MOST_LANES]
    begin, end = min(s[1] for s in spans), max(s[2] for s in spans)
    width = 560.0
    height = 30 + _LANE * len(lanes) + 40
    x = Scale(0.0, max(end - begin, 1e-9), 76.0, width - 82)
    bottom = 20 + _LANE * len(lanes)
    body = [line(x.start, bottom, x.stop, bottom, class_="axis")]
    for at in x.ticks(5):
        body.append(text(x(at), bottom + 16, number(at), class_="tick mid"))
    said = "seconds since the start" + (", pauses left out" if paused else "")
    if len(lanes) < len(every):
        said += f" (the first {len(lanes)} of {len(every)} workers)"
    body.append(text((x.start + x.stop) / 2, bottom + 34, said, class_="axis-title mid"))
    for index, lane in enumerate(lanes):
        own = [item for item in spans if item[0] == lane]
        top = 16 + _LANE * index
        body.append(text(x.start - 8, top + 13, f"{lane[0]} #{lane[1]}", class_="tick end"))
        for _, first, last, name, row in own:
            tip = f"trial {name}: {row.get('state')}, {number(last - first)} s"
            bar = rect(
                x(first - begin), top, max(x(last - begin) - x(first - begin) - 0.6, 0.8), _LANE - 10,
                rx=2, class_=f"fill-{_COLORS.get(str(row.get('state')), 'none')}",
            )  # fmt: skip
            body.append(tag("g", tag("title", html_text(tip)) + bar))
        busy = sum(item[2] - item[1] for item in own)
        idle = max(0.0, 1.0 - busy / max(end - begin, 1e-9))
        body.append(text(x.stop + 8, top + 13, f"{idle:.0%} idle", class_="tick"))
    keys = [Key("square", color, word) for word, color in _WORDS.items()]
    return drawing(width, height, "".join(body), label="Trials of each worker over time") + legend(
        keys
    )
