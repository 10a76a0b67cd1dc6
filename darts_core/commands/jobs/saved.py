"""`jobs params save|list|show|edit|use|delete`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from darts_core.report.tables import render
from darts_core.runlog import plain
from darts_core.store import control
from darts_core.store.jobs import JobStore, Version
from darts_core.store.params import SavedParams

__all__ = ["run_params", "save_params"]


def save_params(store: JobStore, name: str, version: Version, description: str) -> None:
    """Save what a version was made from under a name."""
    request = control.parent_request(version)
    files = [Path(path) for path in request.config_paths]
    SavedParams(store).save(name, request.to_dict(), files, description=description)


def run_params(store: JobStore, args: argparse.Namespace) -> int:
    """`jobs params save|list|show|edit|use|delete`."""
    from darts_core.commands.jobs.verbs import create_job

    saved, verb = SavedParams(store), args.params_verb
    if verb == "save":
        save_params(store, args.saved, store.version(args.job), args.description)
        print(f"Saved as {args.saved}.")
    elif verb == "list":
        rows = [saved.load(name) for name in saved.names()]
        print(render(("name", "description", "code", "boot_file", "config_files"), rows, args.form))
    elif verb == "show":
        print(json.dumps(plain(saved.load(args.saved)), indent=2))
    elif verb == "edit":
        _edit_saved(saved, args)
        print(f"{args.saved} is changed.")
    elif verb == "use":
        request = control.Request.from_dict(saved.load(args.params))
        return create_job(store, args.name, args.description, request, args)
    else:
        saved.delete(args.saved)
        print(f"{args.saved} is deleted.")
    return 0


def _edit_saved(saved: SavedParams, args: argparse.Namespace) -> None:
    from darts_core.commands.jobs.verbs import changes_of

    content = saved.load(args.saved)
    changes = changes_of(args)
    files = [Path(path) for path in changes.pop("config_paths", content["config_paths"])]
    for name in ("arguments", "settings", "budget"):
        if name in changes:
            changes[name] = {**content.get(name, {}), **changes[name]}
    description = content.get("description", "") if args.description is None else args.description
    saved.save(args.saved, {**content, **changes}, files, description=description, replace=True)
