"""Everything `jobs show` knows of a version, as plain values."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from darts_core.errors import JobError
from darts_core.report.elements import elements
from darts_core.report.job_summary import seen_summary, stage_facts
from darts_core.report.read import STAGES, read_settings
from darts_core.report.tables import neutral, short
from darts_core.report.variables import shown_override, without_variables
from darts_core.runlog import read_jsonl
from darts_core.store.record import LIVE, SCRIPT
from darts_core.store.version import Version
from darts_core.study.results import summary

__all__ = [
    "TAIL_LINES", "log_path", "resources_text", "stage_settings", "tail", "version_details",
]  # fmt: skip

TAIL_LINES = 10
# what is read of a log's end at first, and at most
_BLOCK, _MOST = 2**16, 2**20


def tail(path: Path, lines: int, *, most: int | None = _MOST) -> list[str]:
    """The last lines of a log, made harmless.

    Args:
        path: of the log; none is like an empty one.
        lines: how many.
        most: bytes that are looked at, as a line may have no end; None: as many as the lines take.
    """
    try:
        with path.open("rb") as stream:
            text = _end(stream, lines, most).decode("utf-8", "replace")
    except OSError:
        return []
    return [neutral(line, 500) for line in text.splitlines()[-lines:]]


def _end(stream: BinaryIO, lines: int, most: int | None) -> bytes:
    """As much of a file's end as its last lines take, within `most` bytes."""
    size = stream.seek(0, os.SEEK_END)
    limit = size if most is None else min(size, most)
    block = min(_BLOCK, limit)
    while True:
        stream.seek(size - block)
        found = stream.read(block)
        # one more than is asked for: the first one may be half a line. Each state of a progress bar is one
        if block == limit or len(found.splitlines()) > lines:
            return found
        block = min(4 * block, limit)


def _mean_cores(resources: Sequence[Mapping[str, Any]]) -> float | None:
    """Processor cores in use on average while trials ran."""
    busy = [float(r["cpu_cores"]) for r in resources if r.get("trials")]
    return round(sum(busy) / len(busy), 2) if busy else None


def resources_text(details: Mapping[str, Any]) -> str:
    """The use of processor, memory and GPU: now while the job runs, on average once it has ended."""
    last, mean = details["resources"], details["mean_cpu_cores"]
    average = f"{mean} cores on average" if mean is not None else "too short to say"
    text = f"{average}, at most {details['peak_memory_mib']} MiB"
    if details["state"] in LIVE:
        text = f"{last['cpu_cores']} cores, {last['memory_mib']} MiB now; {text}"
    return text + (f", gpu {short(last['gpu'])}" if last["gpu"] else "")


def log_path(version: Version) -> Path:
    """The log of a version: what its pipeline wrote, or what its detached process printed."""
    own = version.path / "log.txt"
    return version.path / "job.log" if version.kind == SCRIPT or not own.exists() else own


def stage_settings(folder: Path) -> dict[str, Any]:
    """The settings of each stage of a pipeline's version, or of the elements of a multirun."""
    found = {}
    for place in (folder, *elements(folder)):
        for stage in STAGES:
            path = place / stage / "config.yaml"
            if path.is_file():
                name = stage if place == folder else f"{place.name}/{stage}"
                found[name] = without_variables(read_settings(path))
    return found


def _commands(version: Version) -> list[dict[str, Any]]:
    """One row a command that was run in the version, the newest last."""
    kept = ("started", "ended", "message", "overrides", "multirun")
    rows: list[dict[str, Any]] = [
        {"command": name, "state": version.state(name), **{k: command.get(k) for k in kept}}
        for name, command in version.record()["commands"].items()
    ]
    for row in rows:
        if isinstance(row["overrides"], list):
            row["overrides"] = [shown_override(str(text)) for text in row["overrides"]]
    return rows


def version_details(version: Version) -> dict[str, Any]:
    """Everything `show` prints, as plain values."""
    record, command = version.record(), version.command()
    state = version.state()
    resources = read_jsonl(version.path / "autosearch" / "resources.jsonl")
    details: dict[str, Any] = {
        "job": version.job,
        "version": version.name,
        "kind": record["kind"],
        "parent": record.get("parent"),
        "description": version.description,
        "state": state,
        "message": command.get("message"),
        "created": record.get("created"),
        "started": command.get("started"),
        "ended": command.get("ended"),
        "folder": str(version.path),
        "commands": _commands(version),
        "log_tail": tail(log_path(version), TAIL_LINES),
        "resources": resources[-1] if resources else None,
        "mean_cpu_cores": _mean_cores(resources),
        "peak_memory_mib": max((r.get("memory_mib", 0.0) for r in resources), default=None),
        "summary": None,
    }
    if record["kind"] == SCRIPT:
        return {**details, **_script_details(version, command)}
    return {
        **details,
        "code_hash": None,
        "parameters": {row["command"]: row["overrides"] for row in details["commands"]},
        "configuration": stage_settings(version.path),
        "stages": stage_facts(version.path),
        "short_summary": seen_summary(version, state),
    }


def _script_details(version: Version, command: Mapping[str, Any]) -> dict[str, Any]:
    """What only the search of a user's script has: its request, its plan, its trials."""
    request = command.get("request") or {}
    kept = ("code", "boot_file", "config_files", "arguments", "settings", "multi", "data", "output",
            "python", "devices", "budget", "notify")  # fmt: skip
    given = {key: request.get(key) for key in kept}
    # what few searches are given stands there for those alone
    given |= {
        key: without_variables(request[key])
        for key in ("ray", "slurm")
        if request.get(key) is not None
    }
    if request.get("entry") not in (None, "train"):
        given["entry"] = request["entry"]
    details = {
        "code_hash": request.get("code_hash"),
        "parameters": given,
        "configuration": read_settings(version.path / "autosearch" / "config.yaml"),
    }
    with contextlib.suppress(JobError):
        details["summary"] = summary(version.path)
    return details
