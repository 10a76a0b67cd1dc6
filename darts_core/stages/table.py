"""The comparison table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from darts_core.report import ModelRow, markup_text
from darts_core.report.rows import Latency

__all__ = ["print_table"]


def print_table(rows: Sequence[ModelRow]) -> None:
    """Print each model's size, test accuracy and latency with its 5 and 95 % quantiles."""
    from rich.console import Console
    from rich.table import Table

    batches = sorted({batch for row in rows for batch in row.latency})
    device = next((row.device for row in rows if row.device), "")
    table = Table(title=markup_text(f"accuracy and latency on {device}"), caption_justify="left")
    for name in ("model", "runtime"):
        table.add_column(name)
    for name in ("params", "MACs", "test %", *(f"batch {batch}, ms" for batch in batches)):
        table.add_column(name, justify="right")
    for row in rows:
        times = [_time(row.latency.get(batch)) for batch in batches]
        table.add_row(
            markup_text(row.name),
            markup_text(row.runtime),
            _count(row.params),
            _count(row.macs),
            _accuracy(row),
            *times,
        )
    if any(row.flagged for row in rows):
        table.caption = "* measured while other work ran on the device; left out of the picture"
    Console().print(table)


def _count(value: int | None) -> str:
    if value is None:
        return "-"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return str(value)


def _accuracy(row: ModelRow) -> str:
    if row.accuracy_mean is None:
        return "-"
    spread = f" ± {100 * row.accuracy_std:.2f}" if row.accuracy_std is not None else ""
    return f"{100 * row.accuracy_mean:.2f}{spread}"


def _time(latency: Latency | None) -> str:
    if latency is None:
        return "-"
    star = "*" if latency.flagged else ""
    if latency.q05_ms is None or latency.q95_ms is None:
        return f"{latency.median_ms:.3g}{star}"
    return f"{latency.median_ms:.3g} ({latency.q05_ms:.3g}-{latency.q95_ms:.3g}){star}"
