"""Stage `report`: report.html of a version."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darts_core.report import write_report

__all__ = ["report"]

log = logging.getLogger("darts_core")


def report(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write `report.html` beside the stages' folders; `folder` itself is not made.

    Returns:
        report: the path of the page.
    """
    title = config["report"]["title"]
    page = write_report(folder.parent, **({"title": title} if title else {}))
    log.info("report: %s", page)
    return {"report": str(page)}
