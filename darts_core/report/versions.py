"""The report of a version of any kind: a pipeline, a multirun of one, several seeds, a user's script."""

from __future__ import annotations

from pathlib import Path

from darts_core.report.elements import elements
from darts_core.report.multirun import multirun_content, write_multirun_report
from darts_core.report.page import Content, page, version_content
from darts_core.report.read import STAGES, read_version
from darts_core.report.script_content import Curves, read_search, script_content
from darts_core.report.seeds import seeds_content
from darts_core.runlog import write_text
from darts_core.store.record import SCRIPT, read_record
from darts_core.store.version import Version
from darts_core.study.importance import Shares, importance

__all__ = ["content_of", "write_version_report"]


def content_of(
    folder: str | Path,
    *,
    title: str | None = None,
    curves: Curves | None = None,
    shares: Shares = importance,
) -> Content:
    """What is told of a version, whatever ran in it: for `report.html` and for the live page.

    Args:
        folder: a version's folder, for example runs/digits-darts/V001.
        title: stands at the top of the page instead of the job's name and version.
        curves: reads a metric at each iteration of the trials of a script.
        shares: works out which setting mattered.

    Raises:
        ConfigError: the folder is missing or holds nothing to report.
    """
    folder = Path(folder)
    record = read_record(folder)
    if record is not None and record["kind"] == SCRIPT:
        return script_content(read_search(Version(folder), curves, shares), title=title)
    parts = elements(folder)
    if _has_stages(folder) or not parts:
        return version_content(read_version(folder), title=title, shares=shares)
    if all(part.name.startswith("seed") for part in parts):
        # one that has begun nothing takes no page from the others
        begun = [part for part in parts if _has_stages(part)]
        return seeds_content(begun or parts, title=title or "")
    return multirun_content(folder, title=title)


def _has_stages(folder: Path) -> bool:
    return any((folder / stage).is_dir() for stage in STAGES)


def write_version_report(
    folder: str | Path, *, title: str | None = None, curves: Curves | None = None
) -> Path:
    """Write `report.html` into a version's folder (see `content_of`); returns the file's path.

    Each element of a multirun gets a page of its own beside.

    Raises:
        ConfigError: the folder is missing or holds nothing to report.
    """
    folder = Path(folder)
    record = read_record(folder)
    parts = elements(folder)
    script = record is not None and record["kind"] == SCRIPT
    of_seeds = all(part.name.startswith("seed") for part in parts)
    if not script and parts and not _has_stages(folder) and not of_seeds:
        return write_multirun_report(folder, title=title)
    target = folder / "report.html"
    write_text(target, page(content_of(folder, title=title, curves=curves)))
    return target
