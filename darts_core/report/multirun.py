"""The pages of a multirun: one an element, and one that shows them all, labelled by their overrides.

Elements that differ in their seed alone are one method; `methods.csv` and `methods.md` hold the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from darts_core.errors import ConfigError
from darts_core.metric import ACCURACY
from darts_core.report.blocks import Section, card, duration
from darts_core.report.html import render
from darts_core.report.job_summary import elements
from darts_core.report.methods_section import (
    Element,
    methods_section,
    result,
    table_of,
    write_methods,
)
from darts_core.report.page import Content, page, write_report
from darts_core.report.read import STAGES, VersionRun, flatten, read_settings, read_version
from darts_core.runlog import write_text

__all__ = ["OVERRIDES", "labels", "multirun_content", "write_multirun_report"]

OVERRIDES = "overrides.yaml"


def _settings(folder: Path) -> dict[str, Any]:
    """The settings of an element's first stage, as dotted names."""
    paths = [folder / stage / "config.yaml" for stage in STAGES]
    return flatten(next((content for path in paths if (content := read_settings(path))), {}))


def labels(folders: Sequence[Path]) -> list[str]:
    """What tells the elements apart: the overrides that not all share, else the settings that differ."""
    found = [read_settings(folder / OVERRIDES) for folder in folders]
    if all(isinstance(words, list) for words in found):
        texts = [[str(word) for word in words] for words in found]
        shared = set.intersection(*map(set, texts)) if len(texts) > 1 else set()
        return [" ".join(word for word in words if word not in shared) for words in texts]
    settings = [_settings(folder) for folder in folders]
    names = dict.fromkeys(name for known in settings for name in known)
    differ = [name for name in names if len({repr(known.get(name)) for known in settings}) > 1]
    return [" ".join(f"{name}={known.get(name)}" for name in differ) for known in settings]


def _methods(folders: Sequence[Path], names: Sequence[str]) -> list[Element]:
    """(method, seed, run) of each element: the seed stands among the overrides, or in the settings."""
    found: list[Element] = []
    for folder, name in zip(folders, names, strict=True):
        words = name.split(" ")
        seeds = [word.partition("=")[2] for word in words if word.startswith("seed=")]
        seed = seeds[-1] if seeds else str(_settings(folder).get("seed", 0))
        method = " ".join(word for word in words if not word.startswith("seed="))
        try:
            run: VersionRun | None = read_version(folder)
        except ConfigError:
            run = None
        found.append((method, seed, run))
    return found


def _row(folder: Path, label: str) -> tuple[dict[str, Any], float | None, VersionRun | None]:
    """An element's line, the metric of its network, and what it has left."""
    row = {"name": folder.name, "label": label, "link": "", "stages": "nothing yet", "val": "–"}
    row |= {"test": "–", "time": "–"}
    try:
        run = read_version(folder)
    except ConfigError:
        return row, None, None
    states = [
        f"{name}{'' if stage.finished else ' (unfinished)'}" for name, stage in run.stages.items()
    ]
    spent = sum(stage.number("device_seconds") or 0.0 for stage in run.stages.values())
    name, text = run.metric.name, run.metric.text
    val, test = (result(run, f"{split}_{name}") for split in ("val", "test"))
    row |= {"stages": ", ".join(states)}
    row |= {"val": text(val), "test": text(test), "time": duration(spent)}
    return row, val if test is None else test, run


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
    known = [(value, row) for row, value, _ in rows if value is not None]
    name = f"{folder.parent.name} · {folder.name}"
    metric = next((run.metric for _, _, run in rows if run is not None), ACCURACY)
    lead = f"None has {metric.article} yet."
    if known:
        best, row = max(known, key=lambda item: metric.rating(item[0]))
        most = "most accurate" if metric == ACCURACY else f"best in {metric.words}"
        lead = f"The {most} is element {row['name']} ({row['label']}): {metric.text(best)}."
    for row, _, run in rows:
        row["link"] = f"{row['name']}/report.html" if links and run is not None else ""
    table = render("multirun", rows=[row for row, _, _ in rows], metric=metric.words)
    sections = [Section("elements", "Every element", card(table))]
    methods = _methods(found, names)
    compared = table_of(methods)
    if compared is not None:
        sections.insert(0, methods_section(compared, methods))
    return Content(
        title=f"{len(rows)} elements",
        crumb=title or f"{name} · multirun",
        lead=lead,
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
