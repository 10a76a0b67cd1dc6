"""Options of `darts-core jobs` read into the parts of a request."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darts_core.errors import JobError
from darts_core.reading_yaml import parse_yaml
from darts_core.store.notify import check_notify

__all__ = ["budget", "changes_of", "for_scripts", "pairs", "place_of"]

_FLAGS = {"config_paths": "--config", "arguments": "--arg"}


def pairs(items: list[str], flag: str, *, keep: bool = False) -> dict[str, str]:
    """`name=value` items as a mapping; leading dashes of a name go unless `keep` is set.

    Raises:
        JobError: an item has no `=` or an empty name.
    """
    result = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name.lstrip("-"):
            raise JobError(f"{flag} {item!r} is not NAME=VALUE; write {flag} lr=0.1.")
        result[name if keep else name.lstrip("-")] = value
    return result


def budget(items: list[str]) -> dict[str, float]:
    """`4x`, `30m`, `2h`, `90s` as limits in trainings and seconds.

    Raises:
        JobError: an item is none of these.
    """
    result = {}
    for item in items:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(x|s|m|h)", item)
        if found is None or float(found[1]) <= 0:
            raise JobError(
                f"--budget {item!r} is not understood; use 4x (trainings), 90s, 30m or 2h."
            )
        number, unit = float(found[1]), found[2]
        if unit == "x" and number < 1:
            raise JobError(
                f"--budget {item} is less than your own configuration takes, which is trained in full; give "
                "1x or more."
            )
        if unit == "x":
            result["trainings"] = number
        else:
            result["seconds"] = number * {"s": 1, "m": 60, "h": 3600}[unit]
    return result


def changes_of(args: argparse.Namespace, *, overrides: bool = False) -> dict[str, Any]:
    """The parts of a request that the command line names.

    Args:
        args: of the verb.
        overrides: its `--set` are a pipeline's overrides, which are Hydra's and need be no YAML.

    Raises:
        JobError: an option's value is not understood.
    """
    changes: dict[str, Any] = {}
    for name in ("code", "boot_file", "entry", "multi", "data", "output", "python"):
        if getattr(args, name, None) is not None:
            changes[name] = getattr(args, name)
    if args.config:
        # no shell reads the ~ of --config=~/job.yaml
        changes["config_paths"] = tuple(map(os.path.expanduser, args.config))
    if args.arg:
        changes["arguments"] = pairs(args.arg, "--arg")
    if args.set:
        changes["settings"] = {
            name: text if overrides else parse_yaml(text, f"--set {name}={text[:80]!r}", JobError)
            for name, text in pairs(args.set, "--set").items()
        }
    if args.devices:
        changes["devices"] = tuple(part.strip() for part in args.devices.split(","))
    for name in ("ray", "slurm"):
        if getattr(args, name) is not None:
            changes[name] = _mapping(name, getattr(args, name))
    if args.budget:
        changes["budget"] = budget(args.budget)
    words = check_notify(args.notify)
    if words:
        changes["notify"] = tuple(words)
    return changes


def place_of(name: str, flag: str, *, folder: bool = False) -> Path:
    """Where an option has a file, or a folder, written; no shell reads the `~` of `--html=~/page.html`.

    Raises:
        JobError: it is the other of the two, or lies below a file.
    """
    path = Path(name).expanduser()
    there = next((place for place in (path, *path.parents) if place.exists()), path)
    if there == path and path.exists() and path.is_dir() != folder:
        is_one, wanted = ("file", "folder") if folder else ("folder", "file")
        raise JobError(f"{flag} {name} is a {is_one}; name a {wanted}.")
    if there != path and not there.is_dir():
        raise JobError(f"{flag} {name} cannot be made, as {there} is a file; name another place.")
    return path


def for_scripts(changes: Mapping[str, Any]) -> str:
    """The options among changed parts that mean nothing to a pipeline, for a sentence; "" for none."""
    named = (_FLAGS.get(n, f"--{n.replace('_', '-')}") for n in changes if n != "settings")
    return ", ".join(named)


def _mapping(name: str, text: str) -> dict[str, Any] | None:
    """A cluster's settings; None where a version of another that ran there is to run on this machine."""
    if text == "null":
        return None
    found = parse_yaml(text, f"--{name} {text[:80]!r}", JobError)
    if not isinstance(found, dict):
        raise JobError(
            f"--{name} {text[:80]!r} is no mapping such as '{{address: auto}}'; '{{}}' takes the defaults, "
            "null this machine."
        )
    return found
