"""`summary.json` of a version: what a list shows of it, small and quick to read."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from darts_core.errors import ResumeError
from darts_core.runlog import read_json, write_json
from darts_core.store.record import RECORD, SCRIPT
from darts_core.store.version import Version

__all__ = ["read_summary", "write_summary"]

_SUMMARY, _POINTS = "summary.json", 24
# 1 showed of a multirun what its last element had found, 2 of a tuned version what its study's best trial had
_FORMAT = 3


def thin(values: Sequence[float], count: int = _POINTS) -> list[float]:
    """At most `count` of the values, evenly spread, the last among them."""
    if len(values) <= count:
        return list(values)
    step = (len(values) - 1) / (count - 1)
    return [values[round(index * step)] for index in range(count)]


def write_summary(
    version: Version,
    *,
    metric: str | None = None,
    best: float | None = None,
    baseline: float | None = None,
    sparkline: Sequence[float] = (),
) -> dict[str, Any]:
    """Write what is known of a version's results; returns the file's content.

    Args:
        version: the version.
        metric: what `best` is a value of.
        best: the best value found.
        baseline: what it is compared with.
        sparkline: the metric in the order in which it was found.
    """
    content = {
        "schema_version": _FORMAT,
        "state": version.state(),
        "metric": metric,
        "best": best,
        "baseline": baseline,
        "sparkline": thin(sparkline),
    }
    with contextlib.suppress(OSError):  # a store that may only be read
        write_json(version.path / _SUMMARY, content)
    return content


def read_summary(version: Version) -> dict[str, Any] | None:
    """The summary; None when none was written, it is damaged, another program's, or of an earlier state.

    A version that was stopped, went on and was stopped again is in the state that its summary names.
    """
    path = version.path / _SUMMARY
    try:
        if path.stat().st_mtime_ns < (version.path / RECORD).stat().st_mtime_ns:
            return None
        content = read_json(path)
    except (ResumeError, OSError):
        return None
    if not isinstance(content, dict):
        return None
    # nothing that the third says anew is said of scripts
    usable = (_FORMAT, 2) if version.kind == SCRIPT else (_FORMAT,)
    return content if content.get("schema_version") in usable else None
