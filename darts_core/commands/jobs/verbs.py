"""The verbs that change something: create, new-version, stop, resume, edit, delete, best, params."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Any

from darts_core.autosearch.job_templates import described_templates, job_templates
from darts_core.autosearch.request import Request, engine, new_version
from darts_core.commands.jobs import pipeline
from darts_core.commands.jobs.options import changes_of, for_scripts, pairs, place_of
from darts_core.commands.jobs.saved import save_params
from darts_core.commands.jobs.starting import create_job, follow, start_version
from darts_core.errors import JobError
from darts_core.report.tables import neutral, render, short
from darts_core.store import control
from darts_core.store.code import model_file
from darts_core.store.jobs import Store
from darts_core.store.params import SavedParams
from darts_core.store.record import PIPELINE
from darts_core.store.version import Version
from darts_core.study.results import summary
from darts_core.study.slurm_jobs import cancel_left

__all__: list[str] = []


def _check_saved_name(store: Store, args: argparse.Namespace) -> None:
    """Refuse a name of --save-params before anything is made or started that would bear it."""
    if args.save_params is not None:
        SavedParams(store).check_free(args.save_params)


def run_create(store: Store, args: argparse.Namespace) -> int:
    """`jobs create`."""
    _check_saved_name(store, args)
    saved = SavedParams(store)
    request = Request()
    if args.params:
        content = saved.load(args.params)
        if content.get("overrides") is not None:
            raise JobError(
                f"The saved parameters {args.params!r} are a pipeline's; start it with darts-core jobs "
                f"params use {args.params} --name {args.name}."
            )
        request = Request.from_dict(content)
    # what was saved stays beside what is given here, as in a new version
    request = request.changed(changes_of(args))
    if args.dry_run:
        # where the store lies in the code's folder it is no code
        content = {**request.to_dict(), "root": str(store.root)}
        print(engine("dry-run", content=content).rstrip())
        return 0
    version, answer = create_job(store, args.name, args.description, request)
    if args.save_params:
        save_params(store, args.save_params, version, args.description)
    return start_version(store, version, answer, wait=args.wait)


def run_new_version(store: Store, args: argparse.Namespace) -> int:
    """`jobs new-version`."""
    _check_saved_name(store, args)
    parent = store.version(args.job)
    changes = changes_of(args, overrides=parent.kind == PIPELINE)
    if parent.kind == PIPELINE:
        return _new_pipeline(store, parent, changes, args)
    version, answer = new_version(store, parent, changes)
    if args.save_params:
        save_params(store, args.save_params, version, "")
    print(f"{version.label} is a child of {parent.name}.")
    return start_version(store, version, answer, wait=args.wait)


def _new_pipeline(
    store: Store, parent: Version, changes: Mapping[str, Any], args: argparse.Namespace
) -> int:
    """The parent's first command under changed settings."""
    recipe = pipeline.recipe_of(parent)
    if set(changes) != {"settings"}:
        other = for_scripts(changes)
        wrong = f"{other} is for scripts; " if other else ""
        raise JobError(
            f"{parent.label} is a pipeline: {wrong}a new version of it needs changed settings, for "
            f"example --set seed=1 (it was given {' '.join(recipe.overrides) or 'none'})."
        )
    changed = recipe.changed(pairs(args.set, "--set", keep=True))
    with pipeline.heard(args.wait) as log:
        version, process = pipeline.start(store, parent.job, changed, log=log)
        if args.save_params:
            save_params(store, args.save_params, version, "")
        return follow(store, version, process, "started", wait=args.wait, log=log)


def _pick(store: Store, name: str, wanted: Callable[[Version], str | None]) -> Version:
    """The version named, or the newest of the job with a command of the wanted kind, else the newest."""
    found = store.version(name)
    if "/" in name:
        return found
    return next((v for v in reversed(store.versions(name)) if wanted(v) is not None), found)


def run_stop(store: Store, args: argparse.Namespace) -> int:
    """`jobs stop`: what runs, else what was left by a process that died."""
    version = _pick(store, args.job, Version.running)
    if args.trial:
        control.stop_trial(version, args.trial)
        print(f"Trial {neutral(args.trial)} is stopped.")
    else:
        state = control.stop(version)
        # a command that was killed could not cancel what it had queued
        print(" ".join([f"{version.label} is {state}.", cancel_left(version.path)]).rstrip())
    return 0


def run_resume(store: Store, args: argparse.Namespace) -> int:
    """`jobs resume`: the newest that is unfinished; refused while one runs."""
    version = _pick(store, args.job, lambda v: v.running() or v.unfinished())
    return follow(store, version, control.resume(store, version), "resumed", wait=args.wait)


def run_edit(store: Store, args: argparse.Namespace) -> int:
    """`jobs edit`."""
    if "/" in args.job:
        store.version(args.job).describe(args.description)
    else:
        store.edit_job(args.job, args.description)
    print(f"{args.job}: description changed.")
    return 0


def run_delete(store: Store, args: argparse.Namespace) -> int:
    """`jobs delete`: several at once are checked before the first is deleted; versions go with their job."""
    for name in args.jobs:
        store.check_ended(name)
    if not args.yes and not _confirmed(args.jobs):
        print("Nothing was deleted.")
        return 0
    for name in dict.fromkeys(args.jobs):
        job, slash, _ = name.partition("/")
        if slash and job in args.jobs:
            continue
        if slash:
            store.delete_version(store.version(name))
        else:
            store.delete_job(name)
        print(f"{name} is deleted.")
    return 0


def _confirmed(names: list[str]) -> bool:
    """The answer of whoever sits at the terminal.

    Raises:
        JobError: nobody does.
    """
    named = ", ".join(names)
    if not sys.stdin.isatty():
        raise JobError(
            f"jobs delete asks first, and this is no terminal; add --yes to delete {named}."
        )
    try:
        answer = input(f"Delete {named} with all results? [y/N] ")
    except EOFError:  # Ctrl-D
        return False
    return answer.strip().lower() in ("y", "yes")


def run_best(store: Store, args: argparse.Namespace) -> int:
    """`jobs best`."""
    version = store.version(args.job)
    if version.kind == PIPELINE:
        return pipeline.show_best(version, args)
    result = summary(version.path)
    best = result["best"]
    if best is None:
        raise JobError(f"{version.job}/{version.name}: {result['verdict']}")
    model = model_file(best["folder"], best.get("model_path"))
    exported = None
    if args.export:
        exported = str(place_of(args.export, "--export", folder=True))
        # a process of its own: it runs the user's code to build and verify the network
        engine("take-home", str(version.path), exported)
    if args.form == "json":
        print(render((), [], "json", extra={**result, "exported": exported}))
        return 0
    print(f"{version.job}/{version.name}: trial {best['trial_id']} (#{best['number']})")
    print(f"settings   {short(best['config'])}")
    print(f"values     {short(best['values'])}")
    print(f"model      {neutral(model) if model else 'none inside the trial folder'}")
    print(neutral(result["verdict"], 1000))
    if exported:
        print(f"copied to  {neutral(exported)}")
    return 0


def run_template(store: Store, args: argparse.Namespace) -> int:
    """`jobs template list|show|algorithms`."""
    files = job_templates()
    if args.template_verb == "algorithms":
        print(engine("algorithms").rstrip())
    elif args.template_verb == "list":
        print(render(("name", "description"), described_templates()))
    elif args.template not in files:
        raise JobError(f"There is no template {args.template!r}; there are {', '.join(files)}.")
    else:
        print(files[args.template].rstrip())
    return 0
