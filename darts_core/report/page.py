"""`report.html`: one file that shows a version from search to benchmark, loading nothing from outside.

There is no script in it, and its content security policy forbids every source but its own style sheet:
a hostile name in a run folder is text, and would find nothing to run even if it were not.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from darts_core.report.blocks import Section
from darts_core.report.family import shrink_section
from darts_core.report.html import Markup, render
from darts_core.report.overview import (
    cost_section,
    environment_section,
    guards_section,
    total_cost,
)
from darts_core.report.prune_export import export_section, prune_section
from darts_core.report.read import VersionRun, read_version
from darts_core.report.results import (
    benchmark_section,
    headline,
    model_rows,
    results_section,
    tiles,
)
from darts_core.report.stages import architecture_section, search_section, train_section
from darts_core.report.style import style_sheet
from darts_core.report.tables import zone
from darts_core.report.tuning import tune_section
from darts_core.runlog import write_text
from darts_core.study.importance import Shares, importance

__all__ = ["Content", "page", "render_version", "version_content", "write_report"]


@dataclass(frozen=True)
class Content:
    """What is told of a version, for `report.html` and for the live page alike.

    `title` says in words what was reached, `crumb` what was done, `lead` explains the title.
    """

    title: str
    crumb: str
    lead: str
    sections: Sequence[Section]
    tiles: str = ""


def page(content: Content) -> str:
    """The whole document; title, crumb and lead are escaped on the way."""
    return (
        render(
            "page",
            title=content.title,
            crumb=content.crumb,
            lead=content.lead,
            tiles=content.tiles,
            sections=content.sections,
            style=Markup(style_sheet()),
            made=f"{time.strftime('%Y-%m-%d %H:%M')} ({zone()})",
        )
        + "\n"
    )


def _crumb(run: VersionRun, title: str | None) -> str:
    """What was done: the job, its version, the data and the space."""
    parts = [title or f"{run.job} · {run.version}"]
    data, space = run.setting("data", "name"), run.setting("space", "name")
    strategy = str(run.setting("strategy", "_target_") or "").rpartition(".")[2]
    parts += [str(part) for part in (data, space, strategy) if part]
    seed = run.setting("seed")
    if seed is not None:
        parts.append(f"seed {seed}")
    return " · ".join(parts)


def version_content(
    run: VersionRun, *, title: str | None = None, shares: Shares = importance
) -> Content:
    """What is told of a pipeline's version; sections appear for the stages that are there."""
    rows, problem = model_rows(run)
    tuned = (train_section(run), tune_section(run, shares))
    made = (shrink_section(run), prune_section(run))
    sections = [
        results_section(rows, problem) or benchmark_section(run),
        architecture_section(run),
        search_section(run),
        *((*tuned, *made) if run.reduced is None else (*made, *tuned)),
        export_section(run),
        cost_section(run),
        guards_section(run),
        environment_section(run),
    ]
    head, lead = headline(run, rows)
    return Content(
        title=head,
        crumb=_crumb(run, title),
        lead=lead,
        tiles=tiles(run, rows, total_cost(run)),
        sections=[section for section in sections if section is not None],
    )


def render_version(run: VersionRun, *, title: str | None = None) -> str:
    """The report of a pipeline's version as HTML text."""
    return page(version_content(run, title=title))


def write_report(folder: str | Path, *, title: str | None = None) -> Path:
    """Read a version's run folders and write `report.html` into it; returns the file's path.

    Args:
        folder: a version's folder, for example runs/digits-darts/V001.
        title: stands before the data's name at the top instead of the job's name and version.

    Raises:
        ConfigError: the folder is missing or holds no stage.
    """
    run = read_version(folder)
    target = Path(folder) / "report.html"
    write_text(target, render_version(run, title=title))
    return target
