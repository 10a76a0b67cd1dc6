"""Sections of what makes the model small and portable: pruning and export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from darts_core.report.blocks import (
    Section,
    card,
    count_text,
    details,
    pair,
    percent,
    plain_table,
    records,
)
from darts_core.report.charts import Bar, Line, bars, line_chart
from darts_core.report.html import Markup
from darts_core.report.read import StageRun, VersionRun, series
from darts_core.report.rows import finite
from darts_core.report.svg import number

__all__ = ["export_section", "prune_section", "pruned_layers"]


def pruned_layers(content: Any) -> list[tuple[str, float, float]]:
    """(layer, width at first, width in the end) of a pruning report.

    Read are `layers` (a list of mappings with name, before and after) and `rounds`, each with
    `widths` (name -> [before, after]); over the rounds the first and the last width count.
    """
    if not isinstance(content, Mapping):
        return []
    found: dict[str, list[float]] = {}

    def add(name: Any, pair: Any) -> None:
        before, after = (finite(value) for value in pair)
        if before is not None and after is not None:
            found.setdefault(str(name), [before, after])[1] = after

    for row in _mappings(content.get("layers")):
        add(row.get("name"), (row.get("before"), row.get("after")))
    for row in _mappings(content.get("rounds")):
        widths = row.get("widths")
        for name, value in widths.items() if isinstance(widths, Mapping) else ():
            if isinstance(value, (list, tuple)) and len(value) == 2:
                add(name, value)
    return [(name, before, after) for name, (before, after) in found.items()]


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list; nothing when `value` is no list."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _rounds(content: Any) -> Markup:
    """Measured time after each round of pruning, with the time that the round aimed at."""
    rows = _mappings(content.get("rounds")) if isinstance(content, Mapping) else []
    if len(rows) < 2:
        return Markup()
    lines = [Line("measured", series(rows, "median_ms", x="round"), "pruned", dots=True),
             Line("aim", series(rows, "target_ms", x="round"), "none", dash="5 4")]  # fmt: skip
    return line_chart(
        lines, x_label="round", y_label="latency, ms", title="Latency after each round"
    )


def _before_after(before: StageRun | None, after: StageRun) -> Markup:
    """Latency, size and accuracy of the network that went into pruning and of the one that came out."""
    facts: list[Mapping[str, Any]] = []

    def add(what: str, old: float | None, new: float | None, shown: Any) -> None:
        if new is not None:
            facts.append({"": what, "before": shown(old), "after": shown(new)})

    metric = after.metric

    def time(value: float | None) -> str:
        return "–" if value is None else f"{number(value)} ms"

    add("latency", after.number("latency_before_ms"), after.number("latency_after_ms"), time)
    for key, what, shown in (
        ("params", "parameters", count_text),
        ("macs", "multiply-adds", count_text),
        (f"val_{metric.name}", f"val {metric.words}", metric.text),
        (f"test_{metric.name}", f"test {metric.words}", metric.text),
    ):
        add(what, before.number(key) if before else None, after.number(key), shown)
    return records(facts)


def _widths(content: Any) -> Markup:
    """Every layer's width before and after."""
    layers = pruned_layers(content)
    if not layers:
        return Markup()
    items = [
        Bar(name, last, "pruned", f"{number(last)} of {number(first)}", before=first)
        for name, first, last in layers[:200]
    ]
    drawn = bars(items, title="Channels kept in every layer", width=1060, row=20)
    kept = sum(last for _, _, last in layers) / max(sum(first for _, first, _ in layers), 1)
    if len(items) > 24:
        of_all = f" of {len(layers)}" if len(layers) > len(items) else ""
        drawn = details(f"{len(items)}{of_all} layers", drawn)
    return card(drawn, title=f"Channels kept: {percent(kept)} of all")


def prune_section(run: VersionRun) -> Section | None:
    """Time and size before and after, against the budget, every cut and every layer's width."""
    stage = run.stages.get("prune")
    if stage is None or not stage.result:
        return None
    whole = run.stages.get("train") if run.reduced is None else run.extras.get("searched")
    times = [
        Bar(label, value, color, f"{number(value)} ms")
        for label, key, color in (
            ("before", "latency_before_ms", "baseline"),
            ("budget", "budget_ms", "none"),
            ("after", "latency_after_ms", "pruned"),
        )
        if (value := stage.number(key)) is not None
    ]
    body = pair(
        card(bars(times, title="Latency against the budget"), title="Latency against the budget"),
        card(_before_after(whole, stage), title="Before and after"),
    )
    content = stage.file("pruning.json") or stage.result
    body += card(_rounds(content), title="Rounds")
    cut = stage.result.get("replaced")
    if isinstance(cut, Mapping) and cut:
        body += card(plain_table(cut), title="Operations, edges and blocks replaced")
    body += _widths(content)
    speedup = stage.number("speedup")
    note = f"Measured speed-up {number(speedup)}×." if speedup is not None else ""
    return Section("prune", "Pruning", body, note)


def _artifact(name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """One line of the artifacts' table: what it is, how exact, how large, how fast."""
    row: dict[str, Any] = {"artifact": name}
    found = [key for key in content if key.startswith("val_")]
    for key in ("kind", "precision", "device", "relative_error", *found):
        if content.get(key) is not None:
            row[key] = content[key]
    files = content.get("files")
    sizes = [finite(f.get("bytes")) for f in files if isinstance(f, Mapping)] if isinstance(
        files, list) else [finite(content.get("bytes"))]  # fmt: skip
    total = sum(size for size in sizes if size is not None)
    if total:
        row["size"] = f"{number(total / 1e6)} MB"
    times = content.get("latency")
    for batch, timing in times.items() if isinstance(times, Mapping) else ():
        median = finite(timing.get("median_ms")) if isinstance(timing, Mapping) else None
        if median is not None:
            row[f"ms, batch {batch}"] = number(median) + (
                " (loaded)" if timing.get("flagged") else ""
            )
    for key in ("verified", "max_error"):
        if key in content:
            row[key] = content[key]
    return row


def export_section(run: VersionRun) -> Section | None:
    """The written artifacts and how each was verified."""
    stage = run.stages.get("export")
    if stage is None:
        return None
    manifest = stage.file("manifest.json")
    manifest = manifest if isinstance(manifest, Mapping) else stage.result
    found = manifest.get("artifacts")
    rows = [
        _artifact(str(name), content)
        for name, content in (found.items() if isinstance(found, Mapping) else ())
        if isinstance(content, Mapping)
    ]
    body = card(records(rows), title="Artifacts")
    skip = {"schema_version", "artifacts", "versions", "architecture"}
    facts = {key.replace("_", " "): value for key, value in manifest.items() if key not in skip}
    body += details("Manifest", card(plain_table(facts)))
    note = "Each artifact was loaded again and compared with the eager model before it was kept."
    return Section("export", "Export", body, note)
