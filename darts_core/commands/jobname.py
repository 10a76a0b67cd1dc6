"""Which job and version a command belongs to when it is not told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from darts_core.errors import ConfigError
from darts_core.store.jobs import Store

__all__ = ["default_job", "previous_version"]


def default_job(command: str, config: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """`<data>-<space>`; a multirun over several of them joins their names with `+`.

    Commands without a space put the architecture's name there, else their own.
    """
    if "data" not in config:
        raise ConfigError(
            f"`darts-core {command}` needs job=NAME, one of the folders in {config['out']}."
        )
    swept = {}
    for text in overrides:
        key, _, value = text.partition("=")
        if key in ("data", "space") and "," in value:
            swept[key] = "+".join(part.strip() for part in value.split(","))
    second = str(config.get("architecture") or config.get("model") or command)
    if "space" in config:
        second = swept.get("space") or config["space"]["name"]
    elif not second.replace("_", "").isalnum():
        second = command
    text = f"{swept.get('data') or config['data']['name']}-{second}"
    return "".join(c if c.isalnum() or c in "._+=-" else "_" for c in text)[:100]


def previous_version(command: str, config: Mapping[str, Any], job: str) -> str | None:
    """The job's newest version, for a command that takes up what an earlier one left there.

    Raises:
        ConfigError: the job has no version.
    """
    needs = {"train": "architecture", "tune": "architecture", "report": "job"}
    needs |= dict.fromkeys(("prune", "export"), "model")
    key = needs.get(command)
    if key is None or (key != "job" and config.get(key) is not None):
        return None
    found = Store(config["out"]).versions(job)
    if not found:
        options = "job=" if key == "job" else f"{key}= or job= and version= of an earlier command"
        raise ConfigError(
            f"There is no run of job {job!r} in {config['out']} to take up; give {options}."
        )
    return found[-1].name
