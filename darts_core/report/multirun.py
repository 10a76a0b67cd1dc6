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
from darts_core.report.elements import best_element, elements, first_settings, labels, parts_of
from darts_core.report.html import render
from darts_core.report.methods_section import (
    Element,
    methods_section,
    result,
    table_of,
    write_methods,
)
from darts_core.report.overview import spent
from darts_core.report.page import Content, page, write_report
from darts_core.report.read import VersionRun, read_version
from darts_core.runlog import write_text

__all__ = ["multirun_content", "write_multirun_report"]

_NONE = "–"


def _methods(folders: Sequence[Path], names: Sequence[str]) -> list[Element]:
    """(method, seed, run) of each element: the seed stands among the overrides, or in the settings.

    One that ran several seeds (`seeds=3`) is as many.
    """
    found: list[Element] = []
    for folder, name in zip(folders, names, strict=True):
        words = name.split(" ")
        # before a setting that there is a + changes nothing
        named = [word for word in words if word.lstrip("+").startswith("seed=")]
        seeds = [word.partition("=")[2] for word in named]
        seed = seeds[-1] if seeds else str(first_settings(folder).get("seed", 0))
        method = " ".join(word for word in words if word not in named)
        parts = parts_of(folder)  # its seeds
        found += [(method, part.name.removeprefix("seed"), _read(part)) for part in parts]
        if not parts:
            found.append((method, seed, _read(folder)))
    return found


def _read(folder: Path) -> VersionRun | None:
    """What lies in a folder; None while there is nothing."""
    try:
        return read_version(folder)
    except ConfigError:
        return None


def _row(folder: Path, label: str) -> tuple[dict[str, Any], VersionRun | None]:
    """An element's line, and what it has left."""
    row = {"name": folder.name, "label": label, "link": "", "stages": "nothing yet", "val": _NONE}
    row |= {"test": _NONE, "time": _NONE}
    parts = parts_of(folder)
    runs = [run for part in parts or [folder] if (run := _read(part)) is not None]
    if not runs:
        return row, None
    states = [
        f"{name}{'' if stage.finished else ' (unfinished)'}"
        for name, stage in runs[0].stages.items()
    ]
    metric = runs[0].metric
    for split in ("val", "test"):
        values = [v for run in runs if (v := result(run, f"{split}_{metric.name}")) is not None]
        row[split] = metric.text(sum(values) / len(values) if values else None)
    stages = f"{len(runs)} seeds" if parts else ", ".join(states)
    return row | {"stages": stages, "time": duration(sum(map(spent, runs)))}, runs[0]


def _lead(row: dict[str, Any], metric: Metric, folder: Path) -> str:
    """The element that is best on val; what it has on test chose nothing."""
    # `bench` judges none on val
    if row["val"] == _NONE and (folder / "models.md").is_file():
        # none where what was timed does not compare, such as models on several data sets
        drawn = ", and in one picture in models.png" * (folder / "models.png").is_file()
        return f"All models stand in one table in models.md{drawn}."
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
    place = best_element(folder)
    best, _ = next(
        (r for p, r in zip(found, rows, strict=True) if p in (place, place.parent)), rows[-1]
    )
    name = f"{folder.parent.name} · {folder.name}"
    metric = next((run.metric for _, run in rows if run is not None), ACCURACY)
    for path, (row, _) in zip(found, rows, strict=True):
        known = links and (path / "report.html").is_file()
        row["link"] = f"{row['name']}/report.html" if known else ""
    table = render("multirun", rows=[row for row, _ in rows], metric=metric.words)
    sections = [Section("elements", "Every element", card(table))]
    methods = _methods(found, names)
    compared = table_of(methods)
    if compared is not None:
        sections.insert(0, methods_section(compared, methods))
    return Content(
        title=f"{len(rows)} elements",
        crumb=title or f"{name} · multirun",
        lead=_lead(best, metric, folder),
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
    for path, label in zip(found, names, strict=True):
        run = _read(path)
        if run is not None:  # the page of several seeds is written by the command that runs them
            write_report(path, title=f"{run.job} · {run.version} · {label}")
    compared = table_of(_methods(found, names))
    if compared is not None:
        write_methods(compared, folder)
    target = folder / "report.html"
    write_text(target, page(multirun_content(folder, title=title, links=True)))
    return target
