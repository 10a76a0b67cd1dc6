"""Every row against the baseline: which baseline row counts, and the table of the page."""

from __future__ import annotations

from collections.abc import Sequence

from darts_core.errors import DartsError
from darts_core.report.blocks import count_text, duration
from darts_core.report.html import Markup, render
from darts_core.report.models_front import (
    accuracy_latency_front,
    accuracy_text,
    baseline_row,
    latency_text,
)
from darts_core.report.palette import kind_color
from darts_core.report.rows import ModelRow, finite
from darts_core.report.svg import number

__all__ = ["batches", "reference", "results_table"]


def batches(rows: Sequence[ModelRow]) -> list[int]:
    """All batch sizes measured, smallest first."""
    return sorted({batch for row in rows for batch in row.latency})


def reference(rows: Sequence[ModelRow], row: ModelRow, batch: int) -> ModelRow | None:
    """The baseline row to compare `row` with: in the same runtime and precision, else its fastest.

    One of other data, or timed in another place, is none. None where the baseline's time in the same runtime
    was taken under foreign load: a slower runtime of the baseline is no rival then.
    """
    here = _where(row, batch)
    rows = [other for other in rows if other.data == row.data and _where(other, batch) == here]
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


def _where(row: ModelRow, batch: int) -> str | None:
    """The place where a row was timed at `batch`; None where it was not."""
    return (row.latency[batch].where or row.device) if batch in row.latency else None


def _speedup(rows: Sequence[ModelRow], row: ModelRow, batch: int) -> tuple[str, str]:
    """How much faster than the baseline, and the baseline's runtime where it is another one."""
    base = reference(rows, row, batch)
    if base is None or batch not in row.latency or row.latency[batch].flagged:
        return "–", ""
    if row is base:
        return "1", ""
    speedup = base.latency[batch].median_ms / row.latency[batch].median_ms
    return f"{number(speedup)}×", "" if base.runtime == row.runtime else base.runtime


def _time(rows: Sequence[ModelRow], row: ModelRow, batch: int) -> dict[str, object]:
    """The two cells of a batch size."""
    speedup, against = _speedup(rows, row, batch)
    cell: dict[str, object] = {"speedup": speedup, "against": against, "tip": "", "loaded": False}
    median, _, spread = latency_text(row, batch).partition(" (")
    cell |= {"median": median, "spread": f"({spread}" if spread else ""}
    if batch in row.latency:
        time = row.latency[batch]
        peak = "" if time.peak_mib is None else f", peak {number(time.peak_mib)} MiB"
        cell |= {"tip": f"n={time.n}{peak}", "loaded": time.flagged}
    return cell


def results_table(rows: Sequence[ModelRow]) -> Markup:
    """One line a row: what it is, its size, accuracy, time at each batch, speed-up over the baseline."""
    sizes = batches(rows)
    on_front: set[int] = set()
    for batch in sizes:
        try:
            on_front |= {id(row) for row in accuracy_latency_front(rows, batch)}
        except DartsError:
            continue  # several devices: the section says so in a sentence
    lines = []
    for row in rows:
        marks = ["is-base"] * row.baseline + ["is-front"] * (id(row) in on_front)
        lines.append(
            {
                "marks": " ".join(marks),
                "color": kind_color(row.kind),
                "name": row.name,
                "runtime": row.runtime,
                "precision": "" if row.precision == "fp32" else row.precision,
                "params": count_text(row.params),
                "macs": count_text(row.macs),
                "accuracy": accuracy_text(row),
                "seeds": f"{row.n} seed{'s' if row.n != 1 else ''}" if row.n else "",
                "spent": _spent(row),
                "times": [_time(rows, row, batch) for batch in sizes],
            }
        )
    metric = rows[0].metric.words if rows else "accuracy"
    costed = any(line["spent"] for line in lines)
    return render("models", rows=lines, batches=sizes, costed=costed, metric=metric)


def _spent(row: ModelRow) -> str:
    """Device time of the row's model, search and tuning counted."""
    seconds = finite(row.extra.get("device_seconds"))
    return "" if seconds is None else duration(seconds)
