"""The pages of a multirun: one an element, and one that shows them all, labelled by their overrides.

Elements that differ in their seed alone are one method; `methods.csv` and `methods.md` hold the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from darts_core.errors import ConfigError
from darts_core.metric import ACCURACY, Metric
from darts_core.report.blocks import Section, card, duration
from darts_core.report.elements import best_element, elements, first_settings, labels
from darts_core.report.html import render
from darts_core.report.methods_section import (
    Element,
    methods_section,
    result,
    table_of,
    write_methods,
)
from darts_core.report.page import Content, page, write_report
from darts_core.report.read import VersionRun, read_version
from darts_core.runlog import write_text

__all__ = ["multirun_content", "write_multirun_report"]

_NONE = "–"


def _methods(folders: Sequence[Path], names: Sequence[str]) -> list[Element]:
    """(method, seed, run) of each element: the seed stands among the overrides, or in the settings."""
    found: list[Element] = []
    for folder, name in zip(folders, names, strict=True):
        words = name.split(" ")
        # before a setting that there is a + changes nothing
        named = [word for word in words if word.lstrip("+").startswith("seed=")]
        seeds = [word.partition("=")[2] for word in named]
        seed = seeds[-1] if seeds else str(first_settings(folder).get("seed", 0))
        method = " ".join(word for word in words if word not in named)
        try:
            run: VersionRun | None = read_version(folder)
        except ConfigError:
            run = None
        found.append((method, seed, run))
    return found


def _row(folder: Path, label: str) -> tuple[dict[str, Any], VersionRun | None]:
    """An element's line, and what it has left."""
    row = {"name": folder.name, "label": label, "link": "", "stages": "nothing yet", "val": _NONE}
    row |= {"test": _NONE, "time": _NONE}
    try:
        run = read_version(folder)
    except ConfigError:
        return row, None
    states = [
        f"{name}{'' if stage.finished else ' (unfinished)'}" for name, stage in run.stages.items()
    ]
    spent = sum(stage.number("device_seconds") or 0.0 for stage in run.stages.values())
    name, text = run.metric.name, run.metric.text
    val, test = (result(run, f"{split}_{name}") for split in ("val", "test"))
    row |= {"stages": ", ".join(states)}
    row |= {"val": text(val), "test": text(test), "time": duration(spent)}
    return row, run


def _lead(row: dict[str, Any], metric: Metric) -> str:
    """The element that is best on val; what it has on test chose nothing."""
    if row["val"] == _NONE:
        return f"None has {metric.article} on val yet."
    test = "" if row["test"] == _NONE else f", {row['test']} on test"
    best = f"Best in {metric.words} on val is element {row['name']} ({row['label']})"
    return f"{best}: {row['val']}{test}."


def multirun_content(folder: Path, *, title: str | None = None, links: bool = False) -> Content:
    """A table of a multirun's elements; with `links`, to the page of each.

    Raises:
        ConfigError: the folder holds no elements.
    """
    found = elements(folder)
    if not found:
        raise ConfigError(f"{folder} holds no elements of a multirun.")
    names = labels(found)
    rows = [_row(path, label) for path, label in zip(found, names, strict=True)]
    best, _ = dict(zip(found, rows, strict=True)).get(best_element(folder), rows[-1])
    name = f"{folder.parent.name} · {folder.name}"
    metric = next((run.metric for _, run in rows if run is not None), ACCURACY)
    for row, run in rows:
        row["link"] = f"{row['name']}/report.html" if links and run is not None else ""
    table = render("multirun", rows=[row for row, _ in rows], metric=metric.words)
    sections = [Section("elements", "Every element", card(table))]
    methods = _methods(found, names)
    compared = table_of(methods)
    if compared is not None:
        sections.insert(0, methods_section(compared, methods))
    return Content(
        title=f"{len(rows)} elements",
        crumb=title or f"{name} · multirun",
        lead=_lead(best, metric),
        sections=sections,
    )


def write_multirun_report(folder: Path, *, title: str | None = None) -> Path:
    """Write the page of each element, beside them `report.html` of them all and the table of methods.

    Returns:
        the page's path.

    Raises:
        ConfigError: the folder holds no elements.
    """
    found = elements(folder)
    names = labels(found)
    methods = _methods(found, names)
    for (_, _, run), path, label in zip(methods, found, names, strict=True):
        if run is not None:
            write_report(path, title=f"{run.job} · {run.version} · {label}")
    compared = table_of(methods)
    if compared is not None:
        write_methods(compared, folder)
    target = folder / "report.html"
    write_text(target, page(multirun_content(folder, title=title, links=True)))
    return target
