"""Everything `jobs show` knows of a version, as plain values."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darts_core.errors import JobError
from darts_core.report.tables import neutral, short
from darts_core.runlog import read_jsonl, read_yaml
from darts_core.store.jobs import LIVE, Version
from darts_core.study.results import summary

__all__ = ["TAIL_LINES", "resources_text", "tail", "version_details"]

TAIL_LINES = 10


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log, made harmless."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - 64 * 1024))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [neutral(line, 500) for line in text.splitlines()[-lines:]]


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


def version_details(version: Version) -> dict[str, Any]:
    """Everything `show` prints, as plain values."""
    record, state = version.record(), version.state_record()
    config_path = version.path / "autosearch" / "config.yaml"
    resources = read_jsonl(version.path / "autosearch" / "resources.jsonl")
    details: dict[str, Any] = {
        "job": version.job,
        "version": version.name,
        "parent": record.get("parent"),
        "state": version.state(),
        "message": state.get("message"),
        "created": record.get("created"),
        "started": state.get("started"),
        "ended": state.get("ended"),
        "folder": str(version.path),
        "code_hash": record.get("code_hash"),
        "parameters": {
            k: record.get(k)
            for k in ("code", "boot_file", "config_files", "arguments", "settings", "multi", "data",
                      "output", "python", "devices", "budget", "notify")
        },
        "configuration": read_yaml(config_path) if config_path.exists() else None,
        "log_tail": tail(version.path / "job.log", TAIL_LINES),
        "resources": resources[-1] if resources else None,
        "mean_cpu_cores": _mean_cores(resources),
        "peak_memory_mib": max((r.get("memory_mib", 0.0) for r in resources), default=None),
    }  # fmt: skip
    try:
        details["summary"] = summary(version.path)
    except JobError:
        details["summary"] = None
    return details
