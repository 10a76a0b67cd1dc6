"""The record of an ended trial in its folder: there before the storage is told, and read where it was not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from darts_core.runlog import read_json, write_json
from darts_core.study.lease import Lease

__all__ = ["read_ending", "write_ending"]

RESULT = "result.json"
# in a `result.json` that holds a runner's own row: where the books' record stands
LEDGER = "ledger"


def write_ending(
    folder: Path,
    number: int,
    lease: Lease,
    state: str,
    reason: str,
    metrics: dict[str, float] | None = None,
    values: list[float] | None = None,
    trace: str | None = None,
    row: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write how a trial ended, inside the runner's own row where there is one; the record.

    Args:
        folder: of the trial.
        number: of the trial.
        lease: what its sittings used.
        state: complete, pruned or fail.
        reason: in words.
        metrics: what it measured.
        values: of the objectives.
        trace: of the error that ended it.
        row: what its runner keeps of it.
    """
    record = {
        "schema_version": 1,
        "number": number,
        "state": state,
        "reason": reason,
        "metrics": metrics or {},
        "values": values,
        "epochs": lease.epochs,
        "device_seconds": lease.seconds,
        "attempts": lease.attempt,
        "traceback": trace,
    }
    write_json(folder / RESULT, {**row, LEDGER: record} if row else record)
    return record


def read_ending(folders: Iterable[Path], number: int) -> dict[str, Any] | None:
    """The record of an ended trial in the first of the folders that has it, or None."""
    for folder in folders:
        if (folder / RESULT).is_file():
            content = read_json(folder / RESULT)
            record = content.get(LEDGER, content) if isinstance(content, dict) else {}
            # a row without the books' own record is what a cut-off sitting left
            if "device_seconds" in record and record.get("number") == number:
                return dict(record)
    return None
