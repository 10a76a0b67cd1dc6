"""Stage `report`: report.html of a version."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from darts_core.autosearch.curves import trial_curves
from darts_core.report.versions import write_version_report
from darts_core.stages.schema import ReportStage

__all__ = ["report"]

log = logging.getLogger("darts_core")


def report(config: ReportStage, folder: Path) -> dict[str, Any]:
    """Write `report.html` beside the stages' folders; `folder` itself is not made.

    Returns:
        report: the path of the page.
    """
    page = write_version_report(
        folder.parent, title=config.report.title or None, curves=trial_curves
    )
    log.info("report: %s", page)
    return {"report": str(page)}
