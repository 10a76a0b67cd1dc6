"""Every row against the baseline: which baseline row counts, and the table of the page."""

from __future__ import annotations

from collections.abc import Sequence

from darts_core.errors import DartsError
from darts_core.report.blocks import count_text
from darts_core.report.escape import html_text
from darts_core.report.models_front import (
    accuracy_latency_front,
    accuracy_text,
    baseline_row,
    latency_text,
)
from darts_core.report.palette import kind_color
from darts_core.report.rows import ModelRow
from darts_core.report.svg import number

__all__ = ["batches", "reference", "results_table"]


def batches(rows: Sequence[ModelRow]) -> list[int]:
    """All batch sizes measured, smallest first."""
    return sorted({batch for row in rows for batch in row.latency})


def reference(rows: Sequence[ModelRow], row: ModelRow, batch: int) -> ModelRow | None:
    """The baseline row to compare `row` with: in the same runtime and precision, else its fastest.

    None where the baseline's time in the same runtime was taken under foreign load: a slower runtime
    of the baseline is no rival then.
    """
    fastest = baseline_row(rows, batch)
    if fastest is None:
        return None
    same = [
        other
        for other in rows
        if other.name == fastest.name
        and other.runtime == row.runtime
        and other.precision == row.precision
        and batch in other.latency
    ]
    if not same:
        return fastest
    return None if same[0].latency[batch].flagged else same[0]


def _speedup_cell(rows: Sequence[ModelRow], row: ModelRow, batch: int) -> str:
    base = reference(rows, row, batch)
    if base is None or batch not in row.latency or row.latency[batch].flagged:
        return '<td class="num">–</td>'
    if row is base:
        return '<td class="num dim">1</td>'
    speedup = base.latency[batch].median_ms / row.latency[batch].median_ms
    against = (
        "" if base.runtime == row.runtime else f"<br><small>vs {html_text(base.runtime)}</small>"
    )
    return f'<td class="num">{number(speedup)}×{against}</td>'


def _latency_cell(row: ModelRow, batch: int) -> str:
    if batch not in row.latency:
        return '<td class="num">–</td>'
    time = row.latency[batch]
    main, _, spread = latency_text(row, batch).partition(" (")
    small = f"<br><small>{html_text('(' + spread)}</small>" if spread else ""
    flag = ' <span class="tag warn">loaded</span>' if time.flagged else ""
    tip = f"n={time.n}" + ("" if time.peak_mib is None else f", peak {number(time.peak_mib)} MiB")
    return f'<td class="num" title="{html_text(tip)}">{html_text(main)}{flag}{small}</td>'


def results_table(rows: Sequence[ModelRow]) -> str:
    """One line a row: what it is, its size, accuracy, time at each batch, speed-up over the baseline."""
    sizes = batches(rows)
    on_front: set[int] = set()
    for batch in sizes:
        try:
            on_front |= {id(row) for row in accuracy_latency_front(rows, batch)}
        except DartsError:
            continue  # several devices: the section says so in a sentence
    head = "<th>model</th><th>runtime</th><th class=num>params</th><th class=num>MACs</th>"
    head += "<th class=num>test accuracy</th>"
    for batch in sizes:
        head += f"<th class=num>batch {batch}</th><th class=num>speed-up</th>"
    body = []
    for row in rows:
        marks = ("is-base" if row.baseline else "") + (" is-front" if id(row) in on_front else "")
        seeds = f"<br><small>{row.n} seed{'s' if row.n != 1 else ''}</small>" if row.n else ""
        precision = "" if row.precision == "fp32" else f" <small>{html_text(row.precision)}</small>"
        kind = f'<i class="dot d-{kind_color(row.kind)}"></i>&nbsp; '
        cells = [
            f'<td class="name">{kind}<b>{html_text(row.name)}</b></td>',
            f"<td>{html_text(row.runtime)}{precision}</td>",
            f'<td class="num">{count_text(row.params)}</td>',
            f'<td class="num">{count_text(row.macs)}</td>',
            f'<td class="num">{html_text(accuracy_text(row))}{seeds}</td>',
        ]
        for batch in sizes:
            cells += [_latency_cell(row, batch), _speedup_cell(rows, row, batch)]
        body.append(f'<tr class="{marks.strip()}">{"".join(cells)}</tr>')
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )
