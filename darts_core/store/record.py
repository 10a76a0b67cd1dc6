"""The marker of a version, `version.json`: one schema for every kind, older ones read into it.

It names the version's kind and, for each command run in it, how it was started (program, arguments,
hash of its settings), its state, times and process. The newest command stands last.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darts_core.errors import JobError, ResumeError
from darts_core.runlog import read_json, write_json

__all__ = [
    "LIVE",
    "PIPELINE",
    "SCHEMA_VERSION",
    "SCRIPT",
    "STATES",
    "new_record",
    "read_job",
    "read_record",
    "write_job",
    "write_record",
]

SCHEMA_VERSION = 2
RECORD, JOB_RECORD = "version.json", "job.json"
STATES = ("queued", "running", "succeeded", "failed", "stopped", "interrupted")
LIVE = ("queued", "running")
# the kinds of today; others need no change here
PIPELINE, SCRIPT = "pipeline", "script"
_FORMAT, _JOB_FORMAT = "darts-core version", "darts-core job"
# folders of schema 1 do not say which program wrote them
_OLD_SCRIPT = "darts-core job version"
_OLD_PROGRAMS = {PIPELINE: "darts_core.cli", SCRIPT: "darts_core.autosearch"}
_OLD_KEYS = {"kind", "schema_version", "created", "parent", "mark"}


def new_record(kind: str, **details: Any) -> dict[str, Any]:
    """An empty record of a version of `kind`."""
    return {
        "format": _FORMAT,
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "created": time.time(),
        "parent": None,
        "commands": {},
        **details,
    }


def _mapping(path: Path) -> dict[str, Any] | None:
    """The mapping in a JSON file; None when there is none (or a plain file stands for a folder)."""
    try:
        content = read_json(path)
    except (ResumeError, OSError):
        return None
    return content if isinstance(content, dict) else None


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of the version in `folder`, in today's schema; None when it bears no marker of ours.

    Raises:
        JobError: a newer program wrote it.
    """
    content = _mapping(folder / RECORD)
    if content is None:
        return None
    schema = content.get("schema_version", 1)
    ours = content.get("format") == _FORMAT
    old = content.get("kind") == _OLD_SCRIPT or isinstance(content.get("commands"), dict)
    if (ours or old) and (not isinstance(schema, int) or schema > SCHEMA_VERSION):
        raise JobError(
            f"{folder / RECORD} was written by a newer program; update darts-core, use another "
            "version= or move the folder away."
        )
    if ours:
        known = content.get("commands")
        commands = known.items() if isinstance(known, dict) else ()
        return {**content, "commands": {k: v for k, v in commands if isinstance(v, dict)}}
    if content.get("kind") == _OLD_SCRIPT:
        return _old_script(folder, content)
    return _old_pipeline(content) if isinstance(content.get("commands"), dict) else None


def _old_script(folder: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """A search of a user's script as schema 1 kept it: one command, its state in `state.json`."""
    state = _mapping(folder / "state.json") or {}
    command = {
        "module": _OLD_PROGRAMS[SCRIPT],
        "arguments": ["run", "{root}", "{job}", "{version}"],
        "stops_by_file": True,
        "mark": str(content.get("mark", "")),
        "request": {k: v for k, v in content.items() if k not in _OLD_KEYS},
        **{k: state.get(k) for k in ("process", "started", "ended", "message")},
        "state": state.get("state") if state.get("state") in STATES else "interrupted",
    }
    return new_record(
        SCRIPT,
        created=content.get("created"),
        parent=content.get("parent"),
        commands={"autosearch": command},
    )


def _old_pipeline(content: Mapping[str, Any]) -> dict[str, Any]:
    """A pipeline's version as schema 1 kept it: no states, only when each command was finished."""
    commands = {}
    for name, known in content["commands"].items():
        old = dict(known) if isinstance(known, Mapping) else {}
        overrides = old.get("overrides")
        words = [str(word) for word in overrides] if isinstance(overrides, list) else []
        multirun = bool(old.get("multirun"))
        commands[str(name)] = {
            **old,
            "overrides": words,
            "multirun": multirun,
            "module": _OLD_PROGRAMS[PIPELINE],
            "arguments": [str(name), *(["-m"] if multirun else []), *words],
            "places": ["out={quoted_root}", "job={job}", "version={version}"],
            "ended": old.get("finished"),
            "state": "succeeded" if old.get("finished") else "interrupted",
        }
    times = [c.get("started") for c in commands.values()]
    known_times = [t for t in times if isinstance(t, (int, float))]
    return new_record(PIPELINE, created=min(known_times, default=None), commands=commands)


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a version's marker; the files that it replaces in a folder of schema 1 go."""
    write_json(folder / RECORD, record)
    with contextlib.suppress(OSError):
        (folder / "state.json").unlink(missing_ok=True)


def read_job(folder: Path) -> dict[str, Any] | None:
    """What `job.json` says, with the job's kind; None when there is none of ours."""
    content = _mapping(folder / JOB_RECORD)
    if content is None:
        return None
    if content.get("format") == _JOB_FORMAT:
        return content
    # schema 1 had job.json for scripts only, and `kind` for its format
    return {**content, "kind": SCRIPT} if content.get("kind") == _JOB_FORMAT else None


def write_job(folder: Path, kind: str, **details: Any) -> None:
    """Write a job's marker."""
    content = {"format": _JOB_FORMAT, "schema_version": SCHEMA_VERSION, "kind": kind, **details}
    write_json(folder / JOB_RECORD, content)
