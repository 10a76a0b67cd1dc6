"""`bench what=tabular`: strategies over seeds, judged by a table; what each spent is stated.

Two kinds take part. Searches that were run (their folders are given) are looked up. Black-box baselines,
random search and regularised evolution, are run on the table itself: each sees the selection column of
as many architectures as the budget allows, and is judged by the other column.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from darts_core.architecture import Architecture, CellChoice
from darts_core.bench.tabular import TabularBenchmark, canonical, summarize
from darts_core.bench.tabular_read import open_table
from darts_core.bench.tabular_runs import found_in_runs
from darts_core.errors import ArchitectureError, ConfigError, DartsError
from darts_core.report.escape import plain_text
from darts_core.runlog import write_json
from darts_core.settings import BenchOptions

__all__ = ["evolution", "random_search", "run"]

log = logging.getLogger("darts_core")


def random_search(
    table: TabularBenchmark, select: str | None, *, budget: int, rng: np.random.Generator
) -> str:
    """The best, by the selection column, of `budget` architectures drawn without repetition."""
    _, values = table.column(select)
    known = np.flatnonzero(~np.isnan(values))
    drawn = rng.choice(known, size=min(budget, len(known)), replace=False)
    return table.architectures[int(drawn[np.argmax(values[drawn])])]


def _mutated(text: str, ops: Sequence[str], rng: np.random.Generator) -> str:
    """`text` with another operation on one of its edges."""
    architecture = Architecture.from_text(text)
    cells = [list(cell.edges) for _, cell in architecture.cells]
    which = int(rng.integers(len(cells)))
    edge = int(rng.integers(len(cells[which])))
    source, target, op = cells[which][edge]
    cells[which][edge] = (source, target, str(rng.choice([other for other in ops if other != op])))
    changed = tuple(
        (kind, CellChoice(tuple(edges), cell.concat))
        for (kind, cell), edges in zip(architecture.cells, cells, strict=True)
    )
    return canonical(Architecture(architecture.space, changed))


@lru_cache(maxsize=1)  # every seed of a comparison asks for those of the same table
def _operations(architectures: tuple[str, ...]) -> tuple[str, ...]:
    """All operations of a table, sorted; of all rows, as a table may hold the best ones first.

    Raises:
        ConfigError: an architecture is not made of cells.
    """
    try:
        cells = (cell for text in architectures for _, cell in Architecture.from_text(text).cells)
        return tuple(sorted({op for cell in cells for _, _, op in cell.edges}))
    except ArchitectureError as error:
        raise ConfigError(f"Evolution needs architectures made of cells: {error}") from None


def evolution(
    table: TabularBenchmark,
    select: str | None,
    *,
    budget: int,
    rng: np.random.Generator,
    population: int = 20,
    tournament: int = 5,
) -> str:
    """The best, by the selection column, of `budget` evaluations of regularised evolution.

    The parent is the best of a random sample, its child changes one operation, the oldest dies. A child
    that the table does not hold is drawn again.

    Raises:
        ConfigError: the table's architectures are not made of cells, or numbers do not fit.

    Source: Real et al. 2019 (arXiv:1802.01548), Algorithm 1.
    """
    if not 1 <= tournament <= population or budget < 1:
        raise ConfigError(
            f"budget={budget}, population={population}, tournament={tournament}: the budget must be at "
            "least 1 and the tournament between 1 and the population."
        )
    _, values = table.column(select)
    known = np.flatnonzero(~np.isnan(values))
    place = {table.architectures[i]: int(i) for i in known}
    ops = _operations(table.architectures)
    if len(ops) < 2:
        raise ConfigError(
            f"Evolution needs at least two operations to choose from; there is {', '.join(ops)}."
        )
    drawn = rng.choice(known, size=min(population, budget, len(known)), replace=False)
    alive = deque(int(i) for i in drawn)
    history = list(alive)
    tries = 0
    while len(history) < budget and tries < 100 * budget:
        tries += 1
        sample = rng.choice(np.array(alive), size=min(tournament, len(alive)), replace=False)
        child = place.get(
            _mutated(table.architectures[int(sample[np.argmax(values[sample])])], ops, rng)
        )
        if child is None:
            continue
        alive.append(child)
        history.append(child)
        alive.popleft()
    return table.architectures[max(history, key=lambda i: values[i])]


def _black_box(
    table: TabularBenchmark, select: str, options: BenchOptions, seeds: Sequence[int]
) -> dict[str, list[str]]:
    """Random search and evolution over the seeds; evolution only where architectures are cells."""
    budget = options.budget
    result = {
        "random search": [
            random_search(table, select, budget=budget, rng=np.random.default_rng(seed))
            for seed in seeds
        ]
    }
    sizes = {"population": options.population, "tournament": options.tournament}
    try:
        result["regularised evolution"] = [
            evolution(table, select, budget=budget, rng=np.random.default_rng(seed), **sizes)
            for seed in seeds
        ]
    except ConfigError as error:
        if "made of cells" not in str(error):
            raise
        log.info("evolution is left out: %s", error)
    return result


def _selection(table: TabularBenchmark, given: str | None, judging: str) -> str:
    """The column by which black-box strategies choose: what was given, or the judging data's `:val`.

    Raises:
        ConfigError: nothing is given and there is no such column: nobody selects on test by default.
    """
    if given is not None:
        return table.column(given)[0]
    val = f"{judging.removesuffix(':test')}:val"
    if val != judging and val in table.accuracies:
        return val
    raise ConfigError(
        f"bench.options.select is needed: random search and evolution choose by it and are judged by "
        f"{judging!r}. {table.name!r} has {', '.join(table.accuracies)}; bench.options.budget=0 leaves "
        "the two out."
    )


def run(
    options: BenchOptions, folder: Path, *, device: str = "auto", seed: int = 0
) -> dict[str, Any]:
    """Compare strategies by `bench.options.table`; prints the rows and writes them to results.json.

    Options: table (an .npz, .csv or NATS-Bench files), column (judged by), select (what black-box
    strategies choose by; by default the `:val` of the judging data), runs (folders of searches: one row
    for those of identical settings), budget (architectures that a black-box strategy may see; 0: no
    such strategies), seeds.

    Raises:
        ConfigError: no table is given, there is nothing to select by, or nothing to compare.
    """
    if not options.table:
        raise ConfigError(
            "bench what=tabular needs bench.options.table=PATH: an .npz of ours, a .csv with columns "
            "architecture and accuracy, or NATS-Bench files."
        )
    table = open_table(options.table)
    column, _ = table.column(options.column)
    seeds = range(seed, seed + options.seeds)
    rows: list[dict[str, Any]] = []
    if options.budget:
        select = _selection(table, options.select, column)
        for name, architectures in _black_box(table, select, options, seeds).items():
            more = {"budget": f"{options.budget} looks", "select": select}
            rows += _rows(table, name, architectures, column, more)
    for group in found_in_runs(options.runs):
        known = [s for s in group.device_seconds if s is not None]
        budget = f"{np.mean(known):.1f} s on the device" if known else "not stated"
        about = {"budget": budget, "settings": group.differs}
        rows += _rows(table, group.name, group.architectures, column, about)
    if not rows:
        raise ConfigError(
            f"Nothing of what was found can be judged by {table.name!r}; the log says why."
            if options.budget or options.runs
            else "There is nothing to compare: give bench.options.runs=[FOLDER] or a budget above 0."
        )
    rows.sort(key=lambda row: (row["median_rank"], row["strategy"]))
    content = {
        "schema_version": 1,
        "theme": "tabular",
        "table": table.name,
        "data": column,
        "rows": rows,
    }
    write_json(folder / "results.json", content)
    # those without an accuracy in this column have no rank
    _print(rows, f"{table.name}, {column}: median rank among {rows[0]['total']} architectures")
    return {**content, "device_seconds": 0.0}


def _rows(
    table: TabularBenchmark, name: str, architectures: Sequence[str], column: str,
    more: Mapping[str, Any],
) -> list[dict[str, Any]]:  # fmt: skip
    """The row of one method; none, and a warning, when the table does not hold what it found."""
    try:
        return [{**summarize(table, {name: architectures}, column)[0], **more}]
    except DartsError as error:
        log.warning("%s is left out: %s", plain_text(name), error)
        return []


def _print(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """The comparison on the terminal; names are folded where it is narrow, numbers never cut."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(plain_text(title)), header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False,
        padding=(0, 1, 0, 0),
    )  # fmt: skip
    names = ("strategy", "seeds", "accuracy %", "regret", "rank", "budget")
    cells = [_cells(row) for row in rows]
    for index, name in enumerate(names):
        text = index in (0, 5)
        # rich would shorten a number; a column as wide as its longest one leaves nothing to shorten
        longest = max(len(line[index]) for line in [list(names), *cells])
        table.add_column(
            name, justify="left" if text else "right", no_wrap=not text, overflow="fold",
            min_width=min(longest, 12) if text else longest,
        )  # fmt: skip
    for line in cells:
        table.add_row(*(Text(cell) for cell in line))
    Console().print(table, crop=False)


def _cells(row: Mapping[str, Any]) -> list[str]:
    std = "" if row["accuracy_std"] is None else f" ± {100 * row['accuracy_std']:.2f}"
    return [
        plain_text(row["strategy"], limit=200),
        str(row["n"]),
        f"{100 * row['accuracy_mean']:.2f}{std}",
        f"{100 * row['regret_mean']:.2f}",
        f"{row['median_rank']:g}",
        row["budget"],
    ]
