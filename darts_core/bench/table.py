"""Model rows as a table: for the terminal (rich) and for Markdown files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from darts_core.errors import LatencyError
from darts_core.report.blocks import count_text
from darts_core.report.escape import plain_text
from darts_core.report.front import accuracy_text, baseline_row
from darts_core.report.pareto import accuracy_latency_front
from darts_core.report.results import batches, reference
from darts_core.report.rows import ModelRow
from darts_core.report.svg import number

__all__ = ["markdown_table", "models_table", "print_models"]


def _header(sizes: Sequence[int]) -> list[str]:
    columns = ["model", "runtime", "params", "MACs", "test accuracy", "n"]
    for size in sizes:
        columns += [f"ms, batch {size}", "5-95 %", "speed-up"]
    return columns


def _front(rows: Sequence[ModelRow], size: int) -> list[ModelRow]:
    """The front at one batch size; none where the rows cannot be compared."""
    try:
        return accuracy_latency_front(rows, size)
    except LatencyError:
        return []


def _times(rows: Sequence[ModelRow], row: ModelRow, size: int, *, on_front: bool) -> list[str]:
    """Median (with marks for front and foreign load), quantiles, speed-up against the baseline."""
    time = row.latency.get(size)
    if time is None:
        return ["-", "-", "-"]
    mark = " (loaded)" if time.flagged else " *" if on_front else ""
    ends = "-"
    if time.q05_ms is not None and time.q95_ms is not None:
        ends = f"{number(time.q05_ms)}-{number(time.q95_ms)}"
    base = reference(rows, row, size)
    speedup = "-"
    same_place = base is not None and base.latency[size].where == time.where
    if base is not None and same_place and not time.flagged:
        speedup = f"{number(base.latency[size].median_ms / time.median_ms)}x"
        if base.runtime != row.runtime:
            speedup += f" vs {base.runtime}"
    return [number(time.median_ms) + mark, ends, speedup]


def _cells(rows: Sequence[ModelRow]) -> list[list[str]]:
    sizes = batches(rows)
    fronts = {size: {id(row) for row in _front(rows, size)} for size in sizes}
    lines = []
    for row in rows:
        runtime = row.runtime if row.precision in ("fp32", "") else f"{row.runtime} {row.precision}"
        accuracy = accuracy_text(row).replace("–", "-")
        cells = [
            row.name,
            runtime,
            count_text(row.params),
            count_text(row.macs),
            accuracy,
            str(row.n),
        ]
        for size in sizes:
            cells += _times(rows, row, size, on_front=id(row) in fronts[size])
        lines.append([plain_text(cell.replace("–", "-"), limit=60) for cell in cells])
    return lines


def models_table(rows: Sequence[ModelRow], *, title: str = "") -> Any:
    """A `rich.table.Table` of the rows; `*` marks the Pareto front at that batch size.

    Speed-up is against the baseline in the same runtime, or its fastest where it was not measured
    there; it is left out across devices and for times taken under foreign load.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(plain_text(title)) if title else None, header_style="bold")
    for index, name in enumerate(_header(batches(rows))):
        table.add_column(name, justify="left" if index < 2 else "right", no_wrap=index == 0)
    base = {row.name for size in batches(rows) if (row := baseline_row(rows, size)) is not None}
    for row, cells in zip(rows, _cells(rows), strict=True):
        # Text objects are not parsed for markup, so a hostile name prints as itself
        table.add_row(*(Text(cell) for cell in cells), style="dim" if row.name in base else None)
    return table


def print_models(rows: Sequence[ModelRow], *, title: str = "") -> None:
    """Print `models_table` on the terminal."""
    from rich.console import Console

    Console().print(models_table(rows, title=title))


def markdown_table(rows: Sequence[ModelRow]) -> str:
    """The same table in Markdown."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    header = _header(batches(rows))
    rule = ["---", "---", *["---:"] * (len(header) - 2)]
    return "\n".join(line(cells) for cells in (header, rule, *_cells(rows))) + "\n"
