"""Sections of the stages: cells, search, training, tuning, pruning, export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from darts_core.errors import DartsError
from darts_core.report.alphas import alpha_history, heat_maps, leading_edges, mean_weights
from darts_core.report.blocks import Section, card, pair, percent, plain_table, records
from darts_core.report.cells import architecture_html
from darts_core.report.charts import Bar, Line, bars, line_chart
from darts_core.report.escape import html_text
from darts_core.report.read import StageRun, VersionRun, read_architecture, read_stage, series
from darts_core.report.rows import finite
from darts_core.report.svg import number
from darts_core.report.trials import (
    best_so_far,
    importance,
    importance_bars,
    parallel,
    read_trials,
    trial_curves,
)

__all__ = [
    "architecture_section",
    "export_section",
    "prune_section",
    "search_section",
    "train_section",
    "tune_section",
]

_MOST_TRIALS = 500


def _callout(content: object, tone: str = "bad") -> str:
    return f'<div class="callout {tone}">{html_text(content, limit=1000)}</div>'


def architecture_section(run: VersionRun) -> Section | None:
    """The drawn cells, with the architecture's text to copy and its rank in a tabular benchmark."""
    for name in ("search", "train", "tune", "prune"):
        stage = run.stages.get(name)
        if stage is None:
            continue
        try:
            found = read_architecture(stage)
        except DartsError as error:
            return Section("architecture", "Architecture", _callout(error))
        if found is not None:
            text = html_text(found.text(), limit=20000)
            copy = f"<details><summary>As text</summary><pre>{text}</pre></details>"
            body = f'<div class="card">{architecture_html(found)}{copy}</div>' + _tabular(stage)
            note = (
                "Data flows from left to right. Each coloured box is the operation on one edge; a node "
                "is the sum of what enters it."
            )
            return Section("architecture", "Architecture", body, note if found.cells else "")
    return None


def _tabular(stage: StageRun) -> str:
    """Accuracy, regret and rank in a tabular benchmark, where the search looked them up."""
    found = stage.result.get("tabular")
    if not isinstance(found, Mapping):
        return ""
    return card(plain_table(found), title="In the tabular benchmark")


def _ops(stage: StageRun) -> list[Any] | None:
    """Names of the candidate operations, from the result, the rows or the settings."""
    for value in (stage.result.get("ops"), stage.setting("space", "ops")):
        if isinstance(value, list) and value:
            return value
    return next((row["ops"] for row in stage.metrics if isinstance(row.get("ops"), list)), None)


def search_section(run: VersionRun) -> Section | None:
    """Losses and accuracies of the search and how the mixing weights moved."""
    stage = run.stages.get("search")
    if stage is None or not stage.metrics:
        return None
    rows = stage.metrics
    losses = line_chart(
        [Line("params split", series(rows, "train_loss"), "sep"),
         Line("alpha split", series(rows, "alpha_loss"), "pool")],
        x_label="epoch", y_label="loss", title="Search loss",
    )  # fmt: skip
    accuracies = line_chart(
        [Line("params split", series(rows, "train_accuracy"), "sep"),
         Line("alpha split", series(rows, "alpha_accuracy"), "pool"),
         Line("val split", series(rows, "val_accuracy"), "conv")],
        x_label="epoch", y_label="accuracy", title="Search accuracy", percent=True,
    )  # fmt: skip
    body = pair(card(losses, title="Loss"), card(accuracies, title="Accuracy of the supernet"))
    for history in alpha_history(rows, _ops(stage)):
        kind = f"{history.kind} cell" if history.kind != "cell" else "cell"
        body += card(heat_maps(history), title=f"Mixing weights of the {kind}, edge by edge")
        body += pair(
            card(mean_weights(history), title=f"Mean weight of each operation, {kind}"),
            card(leading_edges(history), title=f"Most decided edges, {kind}"),
        )
    note = (
        "In a map, epochs run from left to right and a darker tone is a larger weight; the outlined row "
        "is the operation that leads in the end."
    )
    return Section("search", "Search", body, note)


def train_section(run: VersionRun) -> Section | None:
    """Training curves of the final network."""
    stage = run.stages.get("train")
    if stage is None or not stage.metrics:
        return None
    rows = stage.metrics
    loss = line_chart([Line("training", series(rows, "loss"), "sep"),
                       Line("val", series(rows, "val_loss"), "conv")],
                      x_label="epoch", y_label="loss", title="Training loss")  # fmt: skip
    accuracy = line_chart([Line("training", series(rows, "train_accuracy"), "sep"),
                           Line("val", series(rows, "val_accuracy"), "conv")],
                          x_label="epoch", y_label="accuracy", title="Accuracy while training",
                          percent=True)  # fmt: skip
    rate = line_chart([Line("", series(rows, "learning_rate"), "pool")], x_label="epoch",
                      y_label="learning rate", title="Learning rate", height=170)  # fmt: skip
    body = pair(card(accuracy, title="Accuracy"), card(loss, title="Loss"))
    body += f"<details><summary>Learning rate</summary>{card(rate)}</details>" if rate else ""
    val, test = stage.number("val_accuracy"), stage.number("test_accuracy")
    note = f"Chosen on the val split ({percent(val)})." if val is not None else ""
    if test is not None:
        note += f" The test split was read once, at the end: {percent(test)}."
    return Section("train", "Training", body, note.strip())


def _percent_like(values: list[float], label: str) -> bool:
    """Whether an objective is a fraction that reads better as a percentage."""
    return "acc" in label.lower() and all(0 <= value <= 1 for value in values)


def tune_section(run: VersionRun) -> Section | None:
    """Best so far, parallel coordinates, importance, every trial's curve, the best settings."""
    stage = run.stages.get("tune")
    if stage is None:
        return None
    trials = read_trials(stage.result.get("trials"))
    objective = str(stage.result.get("objective") or "val_accuracy")
    direction = str(stage.result.get("direction") or "maximize").lower()
    maximize = not direction.startswith("min")
    values = [t.value for t in trials if t.complete and t.value is not None]
    share = _percent_like(values, objective)
    chosen = (max if maximize else min)(
        (t for t in trials if t.complete), key=lambda t: t.value or 0.0, default=None
    )
    label = objective.replace("_", " ")
    given = stage.result.get("importance")
    shares = given if isinstance(given, Mapping) and given else importance(trials)
    curves: dict[int, list[tuple[float, float]]] = {}
    folder = stage.folder / "trials"
    for trial in trials[:_MOST_TRIALS]:
        rows = read_stage(folder / str(trial.number)).metrics
        points = series(rows, objective) or series(rows, "value")
        if points:
            curves[trial.number] = points
    body = pair(
        card(best_so_far(trials, maximize=maximize, label=label, percent=share), title="Best so far"),
        card(trial_curves(curves, chosen.number if chosen else None, label=label, percent=share),
             title="Every trial's curve"),
    )  # fmt: skip
    body += card(
        parallel(trials, maximize=maximize, label=label, percent=share),
        title="Parallel coordinates",
    )
    best = plain_table(chosen.params) if chosen else ""
    body += pair(
        card(importance_bars(shares), title="Importance"),
        card(best, title=f"Best settings (trial {chosen.number})" if chosen else ""),
    )
    if not body:
        return None
    states = {state: sum(t.state == state for t in trials) for state in
              sorted({t.state for t in trials})}  # fmt: skip
    note = (
        f"{len(trials)} trials: " + ", ".join(f"{n} {state}" for state, n in states.items()) + "."
    )
    if not (isinstance(given, Mapping) and given) and shares:
        note += (
            " Importance is the share of the spread that a parameter explains alone, less what chance "
            "would explain."
        )
    return Section("tune", "Tuning", body, note)


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


def _rounds(content: Any) -> str:
    """Measured time after each round of pruning, with the time that the round aimed at."""
    rows = _mappings(content.get("rounds")) if isinstance(content, Mapping) else []
    if len(rows) < 2:
        return ""
    lines = [Line("measured", series(rows, "median_ms", x="round"), "pruned", dots=True),
             Line("aim", series(rows, "target_ms", x="round"), "none", dash="5 4")]  # fmt: skip
    return line_chart(
        lines, x_label="round", y_label="latency, ms", title="Latency after each round"
    )


def prune_section(run: VersionRun) -> Section | None:
    """Time and size before and after, against the budget, and every layer's width."""
    stage = run.stages.get("prune")
    if stage is None or not stage.result:
        return None
    before, after = stage.number("latency_before_ms"), stage.number("latency_after_ms")
    budget = stage.number("budget_ms")
    times = [
        Bar(label, value, color, f"{number(value)} ms")
        for label, value, color in (
            ("before", before, "baseline"),
            ("budget", budget, "none"),
            ("after", after, "pruned"),
        )
        if value is not None
    ]
    skip = {"schema_version", "layers", "widths", "latency_before_ms", "latency_after_ms",
            "budget_ms", "architecture", "note"}  # fmt: skip
    facts = {
        key.replace("_", " "): value
        for key, value in stage.result.items()
        if key not in skip and not isinstance(value, (list, Mapping))
    }
    body = pair(
        card(bars(times, title="Latency against the budget"), title="Latency against the budget"),
        card(plain_table(facts), title="Before and after"),
    )
    content = stage.file("pruning.json") or stage.result
    body += card(_rounds(content), title="Rounds")
    cut = stage.result.get("replaced")
    if isinstance(cut, Mapping) and cut:
        body += card(plain_table(cut), title="Operations and edges cut")
    layers = pruned_layers(content)
    if layers:
        items = [Bar(name, last, "pruned", f"{number(last)} of {number(first)}", before=first)
                 for name, first, last in layers[:200]]  # fmt: skip
        drawn = bars(items, title="Channels kept in every layer", width=1060, row=20)
        kept = sum(last for _, _, last in layers) / max(sum(first for _, first, _ in layers), 1)
        part = f'<div class="card"><h3>Channels kept: {percent(kept, 0)} of all</h3>'
        body += (
            f"{part}{drawn}</div>"
            if len(items) <= 24
            else f"{part}<details><summary>{len(items)} layers</summary>{drawn}</details></div>"
        )
    speedup = stage.number("speedup")
    note = f"Measured speed-up {number(speedup)}×." if speedup is not None else ""
    return Section("prune", "Pruning", body, note)


def export_section(run: VersionRun) -> Section | None:
    """The written artifacts and how each was verified."""
    stage = run.stages.get("export")
    if stage is None:
        return None
    manifest = stage.file("manifest.json")
    manifest = manifest if isinstance(manifest, Mapping) else stage.result
    found = manifest.get("artifacts", manifest.get("files"))
    if isinstance(found, Mapping):
        found = [{"name": name, **value} if isinstance(value, Mapping) else {"name": name, "": value}
                 for name, value in found.items()]  # fmt: skip
    body = card(records(found), title="Artifacts") if isinstance(found, list) else ""
    skip = {"schema_version", "artifacts", "files", "hashes", "versions", "architecture"}
    facts = {key.replace("_", " "): value for key, value in manifest.items() if key not in skip}
    body += f"<details><summary>Manifest</summary>{card(plain_table(facts))}</details>"
    return Section("export", "Export", body, "Each artifact was compared with the eager model.")
