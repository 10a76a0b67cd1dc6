"""`jobs params save|list|show|edit|use|delete`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darts_core.autosearch.request import Request, merged, request_of, with_whole_paths
from darts_core.commands.jobs import pipeline
from darts_core.commands.jobs.options import changes_of, for_scripts, pairs
from darts_core.commands.jobs.starting import create_job, follow, start_version
from darts_core.errors import JobError
from darts_core.report.tables import render
from darts_core.runlog import plain
from darts_core.store.jobs import Store
from darts_core.store.names import free_name
from darts_core.store.params import SavedParams
from darts_core.store.record import PIPELINE
from darts_core.store.version import Version

__all__ = ["run_params", "save_params"]


def save_params(store: Store, name: str, version: Version, description: str) -> None:
    """Save what a version was made from under a name: a script's request, or a pipeline's overrides."""
    saved = SavedParams(store)
    if version.kind == PIPELINE:
        saved.save(name, pipeline.recipe_of(version).to_dict(), [], description=description)
        return
    request = request_of(version)
    files = [Path(path) for path in request.config_paths]
    saved.save(name, request.to_dict(), files, description=description)


def run_params(store: Store, args: argparse.Namespace) -> int:
    """`jobs params save|list|show|edit|use|delete`."""
    saved, verb = SavedParams(store), args.params_verb
    if verb == "save":
        save_params(store, args.saved, store.version(args.job), args.description)
        print(f"Saved as {args.saved}.")
    elif verb == "list":
        rows = list(saved.readable())
        print(render(("name", "description", "code", "boot_file", "config_files"), rows, args.form))
    elif verb == "show":
        print(json.dumps(plain(saved.load(args.saved)), indent=2))
    elif verb == "edit":
        _edit_saved(saved, args)
        print(f"{args.saved} is changed.")
    elif verb == "use":
        content = saved.load(args.params)
        if content.get("overrides") is not None:
            return _start_pipeline(store, content, args)
        request = Request.from_dict(content)
        version, answer = create_job(store, args.name, args.description, request)
        return start_version(store, version, answer, wait=args.wait)
    else:
        saved.delete(args.saved)
        print(f"{args.saved} is deleted.")
    return 0


def _edit_saved(saved: SavedParams, args: argparse.Namespace) -> None:
    content = saved.load(args.saved)
    of_pipeline = content.get("overrides") is not None
    changes = with_whole_paths(changes_of(args, overrides=of_pipeline))
    if of_pipeline:
        if other := for_scripts(changes):
            raise JobError(
                f"The saved parameters {args.saved!r} are a pipeline's and {other} is for scripts; change "
                "their settings with --set, for example --set seed=1."
            )
        recipe = pipeline.Recipe.from_dict(content).changed(pairs(args.set, "--set", keep=True))
        changes = {"overrides": list(recipe.overrides)}
    files = [Path(path) for path in changes.pop("config_paths", content["config_paths"])]
    description = content.get("description", "") if args.description is None else args.description
    values = merged(content, changes)
    saved.save(args.saved, values, files, description=description, replace=True)


def _start_pipeline(store: Store, content: Mapping[str, Any], args: argparse.Namespace) -> int:
    """A new job of a pipeline from saved overrides."""
    recipe = pipeline.Recipe.from_dict(content)
    if store.versions(args.name):  # one without is begun anew, as jobs create does
        raise JobError(
            f"The job {args.name!r} exists already; use jobs new-version {args.name} --set KEY=VALUE, or "
            f"--name {free_name(store.root, args.name)}."
        )
    with pipeline.heard(args.wait) as log:
        version, process = pipeline.start(store, args.name, recipe, log=log)
        if args.description:
            store.edit_job(args.name, args.description)
        return follow(store, version, process, "started", wait=args.wait, log=log)
