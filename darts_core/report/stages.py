"""Sections of the first stages: the cells, the search, the training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from darts_core.errors import DartsError
from darts_core.report.aim import aim_html
from darts_core.report.alphas import alpha_history, heat_maps, leading_edges, mean_weights
from darts_core.report.blocks import Section, callout, card, details, pair, plain_table
from darts_core.report.cells import architecture_html
from darts_core.report.charts import Line, line_chart
from darts_core.report.finalists import finalists_html
from darts_core.report.html import Markup, render
from darts_core.report.read import StageRun, VersionRun, read_architecture, series

__all__ = ["architecture_section", "search_section", "train_section"]


def architecture_section(run: VersionRun) -> Section | None:
    """The drawn cells, with the architecture's text to copy and its rank in a tabular benchmark."""
    for name in ("search", "train", "tune", "prune"):
        stage = run.stages.get(name)
        if stage is None:
            continue
        try:
            found = read_architecture(stage)
        except DartsError as error:
            return Section("architecture", "Architecture", callout(str(error), "bad"))
        if found is not None:
            copy = details("As text", render("copy", text=found.text()))
            body = card(architecture_html(found) + copy) + _tabular(stage)
            note = (
                "Data flows from left to right. Each coloured box is the operation on one edge; a node "
                "is the sum of what enters it."
            )
            return Section("architecture", "Architecture", body, note if found.cells else "")
    return None


def _tabular(stage: StageRun) -> Markup:
    """Accuracy, regret and rank in a tabular benchmark, where the search looked them up."""
    found = stage.result.get("tabular")
    if not isinstance(found, Mapping):
        return Markup()
    return card(plain_table(found), title="In the tabular benchmark")


def _ops(stage: StageRun) -> list[Any] | None:
    """Names of the candidate operations, from the result, the rows or the settings."""
    for value in (stage.result.get("ops"), stage.setting("space", "ops")):
        if isinstance(value, list) and value:
            return value
    return next((row["ops"] for row in stage.metrics if isinstance(row.get("ops"), list)), None)


_SHOWN = {
    "epoch", "time", "seconds", "loss", "train_loss", "alpha_loss", "val_loss", "learning_rate",
}  # fmt: skip
_MOST_OTHERS = 24


def _others(stage: StageRun) -> Markup:
    """Every further number that the stage logged, folded away; guards have a section of their own."""
    names = dict.fromkeys(str(key) for row in stage.metrics for key in row)
    judged = {f"{split}_{stage.metric.name}" for split in ("train", "alpha", "val")}
    left = [n for n in names if n not in _SHOWN | judged and not n.startswith("guard/")]
    found = [(name, points) for name in left if len(points := series(stage.metrics, name)) > 1]
    if not found:
        return Markup()
    pictures = []
    for name, points in found[:_MOST_OTHERS]:
        drawn = line_chart([Line("", points, "sep")], x_label="epoch", y_label=name, title=name,
                           height=210)  # fmt: skip
        pictures.append(card(drawn, title=name.replace("_", " ")))
    cut = f" ({_MOST_OTHERS} of {len(found)})" if len(found) > _MOST_OTHERS else ""
    return details(f"More measurements{cut}", pair(*pictures))


def search_section(run: VersionRun) -> Section | None:
    """Losses and accuracies of the search and how the mixing weights moved."""
    stage = run.stages.get("search")
    if stage is None or not stage.metrics:
        return None
    rows, metric = stage.metrics, stage.metric
    losses = line_chart(
        [Line("params split", series(rows, "train_loss"), "sep"),
         Line("alpha split", series(rows, "alpha_loss"), "pool")],
        x_label="epoch", y_label="loss", title="Search loss",
    )  # fmt: skip
    accuracies = line_chart(
        [Line("params split", series(rows, f"train_{metric.name}"), "sep"),
         Line("alpha split", series(rows, f"alpha_{metric.name}"), "pool"),
         Line("val split", series(rows, f"val_{metric.name}"), "conv")],
        x_label="epoch", y_label=metric.words, title=f"Search {metric.words}", percent=metric.share,
    )  # fmt: skip
    body = aim_html(stage) + finalists_html(stage)
    body += pair(
        card(losses, title="Loss"), card(accuracies, title=f"{metric.heading} of the supernet")
    )
    drawn = alpha_history(rows, _ops(stage), _options(stage))
    choices = [history for history in drawn if history.choice]
    body += pair(*(card(mean_weights(one), title=f"Options of {one.kind}") for one in choices))
    for history in drawn:
        if history.choice:
            continue
        kind = f"{history.kind} cell" if history.kind != "cell" else "cell"
        body += card(heat_maps(history), title=f"Mixing weights of the {kind}, edge by edge")
        body += pair(
            card(mean_weights(history), title=f"Mean weight of each operation, {kind}"),
            card(leading_edges(history), title=f"Most decided edges, {kind}"),
        )
    maps = (
        "In a map, epochs run from left to right and a darker tone is a larger weight; the outlined row "
        "is the operation that leads in the end."
    )
    note = maps if len(drawn) > len(choices) else ""
    return Section("search", "Search", body + _others(stage), note)


def _options(stage: StageRun) -> dict[str, list[str]]:
    """The options by label of a space of choices; older results name the labels alone."""
    found = stage.result.get("options")
    if isinstance(found, dict):
        return {str(k): [str(o) for o in v] for k, v in found.items() if isinstance(v, list)}
    architecture = stage.result.get("architecture")
    labels = architecture.get("choices") if isinstance(architecture, dict) else None
    return {str(label): [] for label in labels} if isinstance(labels, dict) else {}


def train_section(run: VersionRun) -> Section | None:
    """Training curves of the final network."""
    stage = run.stages.get("train")
    if stage is None or not stage.metrics:
        return None
    rows, metric = stage.metrics, stage.metric
    loss = line_chart([Line("training", series(rows, "loss"), "sep"),
                       Line("val", series(rows, "val_loss"), "conv")],
                      x_label="epoch", y_label="loss", title="Training loss")  # fmt: skip
    accuracy = line_chart([Line("training", series(rows, f"train_{metric.name}"), "sep"),
                           Line("val", series(rows, f"val_{metric.name}"), "conv")],
                          x_label="epoch", y_label=metric.words,
                          title=f"{metric.heading} while training", percent=metric.share)  # fmt: skip
    rate = line_chart([Line("", series(rows, "learning_rate"), "pool")], x_label="epoch",
                      y_label="learning rate", title="Learning rate", height=170)  # fmt: skip
    body = pair(card(accuracy, title=metric.heading), card(loss, title="Loss"))
    body += details("Learning rate", card(rate)) if rate else Markup()
    body += _others(stage)
    val, test = stage.judged("val"), stage.judged("test")
    # nothing was chosen by it: the network is that of the last epoch
    note = f"On the val split it ends with {metric.text(val)}." if val is not None else ""
    if test is not None:
        note += f" The test split was read once, at the end: {metric.text(test)}."
    stopped = stage.result.get("stopped")
    if isinstance(stopped, str):
        note += f" It ended after {len(rows)} epoch{'' if len(rows) == 1 else 's'}: {stopped}."
    return Section("train", "Training", body, note.strip())
