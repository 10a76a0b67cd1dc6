"""The report of a version of any kind: a pipeline, a multirun of one, several seeds, a user's script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from darts_core.report.job_page import write_page
from darts_core.report.job_summary import elements
from darts_core.report.multirun import write_multirun_report
from darts_core.report.page import write_report
from darts_core.report.read import STAGES
from darts_core.report.search_view import Curves, read_search
from darts_core.report.seeds import write_seeds_report
from darts_core.report.version_rows import version_rows
from darts_core.store.jobs import Store
from darts_core.store.record import SCRIPT, read_record
from darts_core.store.version import Version

__all__ = ["sibling_rows", "write_version_report"]


def write_version_report(
    folder: str | Path, *, title: str | None = None, curves: Curves | None = None
) -> Path:
    """Write `report.html` into a version's folder, whatever ran in it; returns the file's path.

    Args:
        folder: a version's folder, for example runs/digits-darts/V001.
        title: stands at the top of a pipeline's page instead of the job's name and version.
        curves: reads a metric at each iteration of the trials of a script.

    Raises:
        ConfigError: the folder is missing or holds nothing to report.
    """
    folder = Path(folder)
    record = read_record(folder)
    if record is not None and record["kind"] == SCRIPT:
        return _write_script_report(Version(folder), curves)
    parts = elements(folder)
    own = any((folder / stage).is_dir() for stage in STAGES)
    if own or not parts:
        return write_report(folder, title=title)
    if all(part.name.startswith("seed") for part in parts):
        return write_seeds_report(parts, folder / "report.html")
    return write_multirun_report(folder, title=title)


def _write_script_report(version: Version, curves: Curves | None) -> Path:
    """The page of a search of a user's script."""
    search = read_search(version, curves)
    write_page(version.path / "report.html", search, sibling_rows(version))
    return version.path / "report.html"


def sibling_rows(version: Version) -> list[dict[str, Any]]:
    """All versions of a version's job, one row each."""
    return list(version_rows(Store(version.path.parent.parent), version.job))
