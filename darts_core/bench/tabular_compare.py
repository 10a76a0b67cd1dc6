"""`bench what=tabular`: strategies over seeds, judged by a table, under equal budget.

Two kinds take part. Searches that were run (their folders are given) are looked up. Black-box baselines,
random search and regularised evolution, are run on the table itself: each sees the selection column of
as many architectures as the budget allows, and is judged by the other column.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from darts_core.architecture import Architecture, CellChoice
from darts_core.bench.tabular import TabularBenchmark, canonical, open_table, summarize
from darts_core.errors import ArchitectureError, ConfigError, DartsError
from darts_core.report.escape import plain_text
from darts_core.report.read import read_architecture, read_stage
from darts_core.runlog import write_json
from darts_core.settings import BenchOptions

__all__ = ["evolution", "found_in_runs", "random_search", "run", "table_facts"]

log = logging.getLogger("darts_core")


def table_facts(
    path: str | Path, architecture: Architecture | str, data: str | None = None
) -> dict[str, Any]:
    """What a search's result states under `tabular`: accuracy, regret, rank, total, the table's name.

    Raises:
        ArchitectureError: the table does not hold the architecture.
        DataError: the table cannot be read.
    """
    table = open_table(path)
    return {"table": table.name, **table.lookup(architecture, data).to_dict()}


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
    try:
        cells = [
            cell
            for text in table.architectures[:200]
            for _, cell in Architecture.from_text(text).cells
        ]
    except ArchitectureError as error:
        raise ConfigError(f"Evolution needs architectures made of cells: {error}") from None
    ops = sorted({op for cell in cells for _, _, op in cell.edges})
    if len(ops) < 2:
        raise ConfigError(
            f"Evolution needs at least two operations to choose from; there is {ops}."
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


def found_in_runs(folders: Sequence[str | Path]) -> dict[str, dict[str, Any]]:
    """Architectures and mean device seconds that search folders hold, by strategy.

    Args:
        folders: search folders, or folders that hold `search` folders at any depth.

    Raises:
        ConfigError: a folder holds no finished search.
    """
    result: dict[str, dict[str, Any]] = {}
    for folder in folders:
        path = Path(folder)
        own = [path] if (path / "architecture.yaml").is_file() else sorted(path.glob("**/search"))
        stages = [stage for place in own if (stage := read_stage(place)).finished]
        if not stages:
            raise ConfigError(
                f"{path} holds no finished search; give the folders that `search` wrote."
            )
        for stage in stages:
            found = read_architecture(stage)
            if found is None:
                continue
            name = _strategy_name(stage.config)
            entry = result.setdefault(name, {"architectures": [], "device_seconds": []})
            entry["architectures"].append(canonical(found))
            entry["device_seconds"].append(stage.number("device_seconds"))
    return result


def _strategy_name(config: Mapping[str, Any]) -> str:
    """Strategy and relaxation of a search's configuration, by the last part of their targets."""
    parts = []
    for key in ("strategy", "relax"):
        node = config.get(key)
        target = (
            str(node.get("_target_") or node.get("name") or "") if isinstance(node, Mapping) else ""
        )
        if target:
            parts.append(target.rpartition(".")[2])
    return " + ".join(parts) or "search"


def _black_box(
    table: TabularBenchmark, options: BenchOptions, select: str, seeds: Sequence[int]
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


def run(options: BenchOptions, folder: Path, *, seed: int = 0) -> dict[str, Any]:
    """Compare strategies by `bench.options.table`; prints the rows and writes them to results.json.

    Options: table (an .npz, .csv or NATS-Bench files), column (judged by), select (what black-box
    strategies see; the same as column by default), runs (folders of searches), budget (architectures
    that a black-box strategy may see), seeds.

    Raises:
        ConfigError: no table is given.
    """
    if not options.table:
        raise ConfigError(
            "bench what=tabular needs bench.options.table=PATH: an .npz of ours, a .csv with columns "
            "architecture and accuracy, or NATS-Bench files."
        )
    table = open_table(options.table)
    column, _ = table.column(options.column)
    found = _black_box(table, options, options.select or column, range(seed, seed + options.seeds))
    searched = found_in_runs(options.runs)
    found |= {name: entry["architectures"] for name, entry in searched.items()}
    rows = []
    for name, architectures in found.items():
        try:
            row = summarize(table, {name: architectures}, column)[0]
        except DartsError as error:
            log.warning("%s is left out: %s", plain_text(name), error)
            continue
        known = [s for s in searched.get(name, {}).get("device_seconds", ()) if s is not None]
        row["budget"] = (
            f"{options.budget} looks" if name not in searched
            else f"{np.mean(known):.1f} s on the device" if known else "not stated"
        )  # fmt: skip
        rows.append(row)
    rows.sort(key=lambda row: (row["median_rank"], row["strategy"]))
    content = {
        "schema_version": 1,
        "theme": "tabular",
        "table": table.name,
        "data": column,
        "rows": rows,
    }
    write_json(folder / "results.json", content)
    _print(rows, f"{table.name}, {column}: median rank among {len(table)} architectures")
    return {**content, "device_seconds": 0.0}


def _print(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """The comparison on the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(plain_text(title)), header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False,
        padding=(0, 1, 0, 0),
    )  # fmt: skip
    names = ("strategy", "seeds", "accuracy %", "regret", "rank", "budget")
    for index, name in enumerate(names):
        table.add_column(name, justify="left" if index in (0, 5) else "right", no_wrap=True)
    for row in rows:
        std = "" if row["accuracy_std"] is None else f" ± {100 * row['accuracy_std']:.2f}"
        table.add_row(
            Text(plain_text(row["strategy"], limit=40)),
            str(row["n"]),
            f"{100 * row['accuracy_mean']:.2f}{std}",
            f"{100 * row['regret_mean']:.2f}",
            f"{row['median_rank']:g}",
            row["budget"],
        )
    Console().print(table)
