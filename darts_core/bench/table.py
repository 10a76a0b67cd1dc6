"""Model rows as a table: for the terminal (rich) and for Markdown files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from darts_core.errors import LatencyError
from darts_core.metric import ACCURACY, Metric
from darts_core.report.blocks import count_text
from darts_core.report.escape import plain_text
from darts_core.report.models_front import accuracy_latency_front, accuracy_text, baseline_row
from darts_core.report.models_table import batches, reference
from darts_core.report.rows import ModelRow
from darts_core.report.svg import number

__all__ = ["markdown_table", "models_table", "print_models"]


_WIDE = 130
_LEGEND = "`*` on the Pareto front beyond its standard error, `!` measured under foreign load."


def _header(rows: Sequence[ModelRow], *, wide: bool) -> list[str]:
    metric, sizes = _metric(rows), batches(rows)
    test = "test %" if metric == ACCURACY else f"test {metric.axis}"
    names = ["model", "runtime", *["device"] * (len(_by_device(rows)) > 1), "params"]
    if not wide:
        return [*names, test, *(name for size in sizes for name in (f"ms @{size}", "x"))]
    ends = [name for size in sizes for name in (f"ms, batch {size}", "5-95 %", "speed-up")]
    return [*names, "MACs", test, "n", *ends]


def _by_device(rows: Sequence[ModelRow]) -> list[list[ModelRow]]:
    """The rows that compare with each other; of several such groups each row says where it was timed."""
    devices = dict.fromkeys(row.device for row in rows)
    return [[row for row in rows if row.device == device] for device in devices]


def _metric(rows: Sequence[ModelRow]) -> Metric:
    return rows[0].metric if rows else ACCURACY


def _front(rows: Sequence[ModelRow], size: int) -> list[ModelRow]:
    """The front at one batch size; none where the rows cannot be compared."""
    try:
        return accuracy_latency_front(rows, size)
    except LatencyError:
        return []


def _times(
    rows: Sequence[ModelRow], row: ModelRow, size: int, *, on_front: bool, wide: bool
) -> list[str]:
    """Median (with marks for front and foreign load), quantiles, speed-up against the baseline."""
    time = row.latency.get(size)
    if time is None:
        return ["-"] * (3 if wide else 2)
    mark = " !" if time.flagged else " *" if on_front else "  "
    ends = "-"
    if time.q05_ms is not None and time.q95_ms is not None:
        ends = f"{number(time.q05_ms)}-{number(time.q95_ms)}"
    base = reference(rows, row, size)
    speedup = "-"
    if base is not None and not time.flagged:
        speedup = f"{number(base.latency[size].median_ms / time.median_ms)}"
        if wide and base.runtime != row.runtime:
            speedup += f" vs {base.runtime}"
    return [number(time.median_ms) + mark, *([ends] if wide else []), speedup]


def _cells(rows: Sequence[ModelRow], *, wide: bool) -> list[list[str]]:
    sizes, groups = batches(rows), _by_device(rows)
    fronts = {size: {id(row) for own in groups for row in _front(own, size)} for size in sizes}
    lines = []
    for row in rows:
        told = row.precision in ("fp32", "") or row.precision in row.runtime
        runtime = row.runtime if told else f"{row.runtime} {row.precision}"
        accuracy = accuracy_text(row).replace("–", "-").removesuffix(" %")
        cells = [row.name, runtime, *[row.device] * (len(groups) > 1), count_text(row.params)]
        cells += [count_text(row.macs), accuracy, str(row.n)] if wide else [accuracy]
        for size in sizes:
            cells += _times(rows, row, size, on_front=id(row) in fronts[size], wide=wide)
        lines.append([plain_text(cell.replace("–", "-"), limit=60) for cell in cells])
    return lines


def models_table(rows: Sequence[ModelRow], *, title: str = "", wide: bool = True) -> Any:
    """A `rich.table.Table` of the rows; `*` marks the Pareto front at that batch size, `!` foreign load.

    Speed-up is against the baseline in the same runtime, or its fastest where it was not measured
    there; it is left out across devices and for times taken under foreign load. The narrow form
    leaves out the quantiles.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(plain_text(title)) if title else None, header_style="bold", box=box.SIMPLE_HEAD,
        caption=Text("* on the front beyond its error   ! measured under foreign load, in no front"),
        pad_edge=False, padding=(0, 1) if wide else (0, 1, 0, 0),
    )  # fmt: skip
    for index, name in enumerate(_header(rows, wide=wide)):
        table.add_column(name, justify="left" if index < 2 or name == "device" else "right")
    base = {row.name for size in batches(rows) if (row := baseline_row(rows, size)) is not None}
    for row, cells in zip(rows, _cells(rows, wide=wide), strict=True):
        # Text objects are not parsed for markup, so a hostile name prints as itself
        table.add_row(*(Text(cell) for cell in cells), style="dim" if row.name in base else None)
    return table


def print_models(rows: Sequence[ModelRow], *, title: str = "") -> None:
    """Print `models_table` on the terminal, in the form that fits its width."""
    from rich.console import Console

    console = Console()
    console.print(models_table(rows, title=title, wide=console.width >= _WIDE))


def markdown_table(rows: Sequence[ModelRow]) -> str:
    """The same table in Markdown."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.strip().replace("|", "\\|") for cell in cells) + " |"

    header = _header(rows, wide=True)
    left = header.index("params")
    rule = [*["---"] * left, *["---:"] * (len(header) - left)]
    lines = [line(cells) for cells in (header, rule, *_cells(rows, wide=True))]
    return "\n".join(lines) + f"\n\n{_LEGEND}\n"
