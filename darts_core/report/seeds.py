"""One page for a search repeated with several seeds: mean, spread, worst case, agreement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from darts_core.architecture import Architecture
from darts_core.errors import ConfigError, DartsError
from darts_core.report.alphas import edge_names
from darts_core.report.blocks import Section, card, duration, pair, percent
from darts_core.report.cells import architecture_html
from darts_core.report.charts import Bar, Line, bars, line_chart, strip
from darts_core.report.contest import contest, contest_section, contest_sentence
from darts_core.report.html import Markup, render
from darts_core.report.methods_section import OF_A_SEARCH, knowing, result
from darts_core.report.overview import spent
from darts_core.report.page import Content, page
from darts_core.report.palette import op_family, series_colors
from darts_core.report.read import StageRun, VersionRun, read_architecture, read_version, series
from darts_core.report.rows import finite
from darts_core.report.svg import number
from darts_core.runlog import write_text

__all__ = ["agreement", "seeds_content", "seeds_summary", "write_seeds_report"]


def agreement(architectures: Sequence[Architecture]) -> float | None:
    """Mean share of edges on which two of the architectures agree, over all pairs; 1 is identity.

    An edge is its cell kind, source, target and operation; the share is the common edges over the
    edges of either (Jaccard). Labelled choices count as edges. None for fewer than two.
    """
    sets = [_edges(architecture) for architecture in architectures]
    pairs = [(a, b) for i, a in enumerate(sets) for b in sets[i + 1 :]]
    if not pairs:
        return None
    return sum(len(a & b) / len(a | b) for a, b in pairs) / len(pairs)


def _edges(architecture: Architecture) -> set[tuple[Any, ...]]:
    edges = {(kind, *edge) for kind, cell in architecture.cells for edge in cell.edges}
    return edges | {("choice", label, value) for label, value in architecture.choices}


def _found(run: VersionRun) -> Architecture | None:
    for stage in run.stages.values():
        try:
            architecture = read_architecture(stage)
        except DartsError:
            continue
        if architecture is not None:
            return architecture
    return None


def seeds_summary(folders: Sequence[str | Path]) -> dict[str, Any]:
    """Mean, sample std, worst and best of each metric over the runs, and the architectures' agreement.

    Args:
        folders: version folders (or elements of a multirun), one a seed.

    Raises:
        ConfigError: no folder is given, or one holds no run.
    """
    if not folders:
        raise ConfigError("A page over several seeds needs at least one run folder.")
    runs = [read_version(folder) for folder in folders]
    summary: dict[str, Any] = {"n": len(runs)}
    metric = runs[0].metric
    for key in metric.file_keys:
        values = [v for run in runs if (v := result(run, key)) is not None]
        if values:
            summary[key] = {
                "mean": float(np.mean(values)),
                "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                "worst": min(values, key=metric.rating),
                "best": max(values, key=metric.rating),
                "n": len(values),
            }
    found = [a for run in runs if (a := _found(run)) is not None]
    summary["agreement"] = agreement(found)
    summary["distinct_architectures"] = len(set(found))
    summary["contest"] = contest(runs)
    return summary


def _results_section(runs: Sequence[VersionRun]) -> Section:
    rows = []
    for run in runs:
        architecture = _found(run)
        rows.append(
            {
                "run": run.version,
                "seed": run.setting("seed"),
                "val": run.metric.text(result(run, f"val_{run.metric.name}")),
                "test": run.metric.text(result(run, f"test_{run.metric.name}")),
                "time": duration(spent(run)),
                "architecture": "–" if architecture is None else _short(architecture),
            }
        )
    metric = runs[0].metric
    table = render("seeds", rows=rows, metric=metric.words)
    strips = [
        card(strip([(f"seed {run.setting('seed')}", value) for run, value in found],
                   title=key.replace("_", " "), metric=metric), title=key.replace("_", " "))
        for key in reversed(metric.file_keys)
        if (found := [(run, v) for run in runs if (v := result(run, key)) is not None])
    ]  # fmt: skip
    return Section("seeds", "Every seed", card(table) + pair(*strips))


def _short(architecture: Architecture) -> str:
    """How many edges of each operation, most frequent first."""
    counts: dict[str, int] = {}
    for _, cell in architecture.cells:
        for _, _, op in cell.edges:
            counts[op] = counts.get(op, 0) + 1
    if not counts:
        return ", ".join(f"{label}={value}" for label, value in architecture.choices[:6])
    order = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{count} {op}" for op, count in order)


def _edge_text(edge: tuple[Any, ...]) -> str:
    """`normal: 0 → 3 sep_conv_3x3`, states numbered as in the architecture's file."""
    if edge[0] == "choice":
        return f"{edge[1]} = {edge[2]}"
    kind, source, target, op = edge
    return f"{kind}: {source} → {target}  {op}"


def _agreement_section(runs: Sequence[VersionRun], summary: dict[str, Any]) -> Section | None:
    """Which operation each seed chose, how often an edge was chosen, and the most typical cell."""
    found = [a for run in runs if (a := _found(run)) is not None]
    if len(found) < 2:
        return None
    counts: dict[tuple[Any, ...], int] = {}
    for architecture in found:
        for edge in _edges(architecture):
            counts[edge] = counts.get(edge, 0) + 1
    common = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))[:20]
    items = [
        Bar(_edge_text(edge), count, op_family(str(edge[-1])), f"{count} of {len(found)}")
        for edge, count in common
    ]  # fmt: skip
    shared = [sum(counts[edge] for edge in _edges(a)) / len(_edges(a)) for a in found]
    typical = found[int(np.argmax(shared))]
    body = card(
        bars(items, title="Most frequent edges", width=1060, row=22), title="Most frequent edges"
    )
    body += card(architecture_html(typical), title="The most typical architecture")
    distinct = summary["distinct_architectures"]
    note = (
        f"{distinct} different architecture{'s' if distinct != 1 else ''} in {len(found)} runs; two runs "
        f"share {percent(summary['agreement'])} of their edges on average."
    )
    return Section("agreement", "Agreement of the architectures", body, note)


def _curves_section(runs: Sequence[VersionRun]) -> Section | None:
    """The search curves of all seeds on one picture."""
    searches = [(run, run.stages["search"]) for run in runs if "search" in run.stages]
    colors = series_colors(len(searches))

    def chart(key: str, title: str, *, share: bool) -> Markup:
        lines = [
            Line(f"seed {run.setting('seed')}", series(stage.metrics, key), color)
            for (run, stage), color in zip(searches, colors, strict=True)
        ]
        return card(
            line_chart(lines, x_label="epoch", y_label=title, title=title, percent=share),
            title=title,
        )

    metric = runs[0].metric
    body = pair(
        chart(
            f"alpha_{metric.name}",
            f"{metric.heading} on the alpha split",
            share=metric.share,
        ),
        chart("train_loss", "Loss on the params split", share=False),
    )
    spread = _weight_spread([stage for _, stage in searches])
    body += card(spread, title="Edges on which the seeds disagree most")
    return Section("curves", "Search", body) if body else None


def _weight_spread(stages: Sequence[StageRun]) -> Markup:
    """Mean standard deviation over seeds of the final weights of each edge."""
    last: dict[str, list[np.ndarray[Any, Any]]] = {}
    for stage in stages:
        alphas = stage.metrics[-1].get("alphas") if stage.metrics else None
        for kind, value in alphas.items() if isinstance(alphas, dict) else ():
            try:
                last.setdefault(str(kind), []).append(np.asarray(value, dtype=np.float64))
            except (TypeError, ValueError):
                continue
    items = []
    for kind, tables in last.items():
        if len(tables) < 2 or len({t.shape for t in tables}) > 1 or tables[0].ndim != 2:
            continue
        deviation = np.stack(tables).std(axis=0, ddof=1).mean(axis=1)
        names = edge_names(len(deviation))
        items += [(f"{kind}  {names[i]}", float(v)) for i, v in enumerate(deviation)]
    items = [item for item in items if finite(item[1]) is not None]
    items.sort(key=lambda item: -item[1])
    drawn = [Bar(name, value, "pool", number(value)) for name, value in items[:12]]
    return bars(drawn, title="Spread of the final weights", width=1060, row=22)


def seeds_content(folders: Sequence[str | Path], *, title: str = "") -> Content:
    """Means, spreads and agreement of several seeds, one run folder each.

    Raises:
        ConfigError: no folder is given, or one holds no run.
    """
    summary = seeds_summary(folders)
    runs = [read_version(folder) for folder in folders]
    metric = runs[0].metric
    key = next((key for key in metric.file_keys if key in summary), None)
    if key is None:
        head, lead = f"{len(runs)} seeds", f"No run has {metric.article} yet."
    else:
        figures = summary[key]
        mean = metric.with_spread(figures["mean"], figures["std"])
        name = key.replace("_", " ")
        count = f"{figures['n']} seed{'s' if figures['n'] != 1 else ''}"
        head = f"{mean} {name} over {count}"
        lead = f"Worst {metric.text(figures['worst'])}, best {metric.text(figures['best'])}."
        lead += contest_sentence(summary["contest"], metric)
        stages = [stage for run in runs if (stage := knowing(run, key)) is not None]
        lead += f" {OF_A_SEARCH}" if any(stage.name == "search" for stage in stages) else ""
    parts = [
        _results_section(runs),
        contest_section(summary["contest"], runs[0]),
        _agreement_section(runs, summary),
        _curves_section(runs),
    ]
    data, space = runs[0].setting("data", "name"), runs[0].setting("space", "name")
    crumb = " · ".join(str(part) for part in (title or runs[0].job, data, space) if part)
    return Content(head, crumb, lead, [part for part in parts if part is not None])


def write_seeds_report(folders: Sequence[str | Path], path: str | Path, *, title: str = "") -> Path:
    """Read one run folder a seed and write the page about them to `path`.

    Raises:
        ConfigError: no folder is given, or one holds no run.
    """
    write_text(path, page(seeds_content(folders, title=title)))
    return Path(path)
