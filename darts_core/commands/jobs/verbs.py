"""The verbs that change something: create, new-version, stop, resume, edit, delete, best, params."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from darts_core.commands.jobs.saved import save_params
from darts_core.errors import JobError
from darts_core.report.tables import neutral, render, short
from darts_core.runlog import write_json
from darts_core.store import control
from darts_core.store.code import copy_model, model_file
from darts_core.store.index import forget, reindex, update_index
from darts_core.store.jobs import JobStore, Version
from darts_core.store.notify import check_notify
from darts_core.store.params import SavedParams
from darts_core.study.results import summary

__all__ = ["budget", "pairs"]

_TEMPLATES = Path(__file__).resolve().parents[2] / "autosearch" / "templates"


def pairs(items: list[str], flag: str) -> dict[str, str]:
    """`name=value` items as a mapping.

    Raises:
        JobError: an item has no `=` or an empty name.
    """
    result = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name.lstrip("-"):
            raise JobError(f"{flag} {item!r} is not NAME=VALUE; write {flag} lr=0.1.")
        result[name.lstrip("-")] = value
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
        if unit == "x":
            result["trainings"] = number
        else:
            result["seconds"] = number * {"s": 1, "m": 60, "h": 3600}[unit]
    return result


def changes_of(args: argparse.Namespace) -> dict[str, Any]:
    """The parts of a request that the command line names."""
    changes: dict[str, Any] = {}
    for name in ("code", "boot_file", "multi", "data", "output", "python"):
        if getattr(args, name, None) is not None:
            changes[name] = getattr(args, name)
    if args.config:
        changes["config_paths"] = tuple(args.config)
    if args.arg:
        changes["arguments"] = pairs(args.arg, "--arg")
    if args.set:
        changes["settings"] = {k: _yaml_value(k, v) for k, v in pairs(args.set, "--set").items()}
    if args.devices:
        changes["devices"] = tuple(part.strip() for part in args.devices.split(","))
    if args.budget:
        changes["budget"] = budget(args.budget)
    words = check_notify(args.notify)
    if words:
        changes["notify"] = tuple(words)
    return changes


def _yaml_value(field: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise JobError(f"--set {field}={text!r} is not a YAML value; quote it.") from None


def _forecast(answer: Mapping[str, Any]) -> str:
    notes = [f"Note: {neutral(note, 500)}." for note in answer.get("notes") or ()]
    return "\n".join([*notes, str(answer.get("forecast", ""))])


def _start(store: JobStore, version: Version, *, wait: bool) -> int:
    process = control.launch(store, version)
    print(f"{version.job}/{version.name} started (process {process.pid}).")
    print(f"Look at it with: darts-core jobs --root {store.root} show {version.job}")
    if not wait:
        return 0
    status = control.wait(process, version)
    print(f"{version.job}/{version.name}: {version.state()}. {_message(version)}")
    return status


def _message(version: Version) -> str:
    return neutral(version.state_record().get("message") or "", 1000)


def run_create(store: JobStore, args: argparse.Namespace) -> int:
    """`jobs create`."""
    saved = SavedParams(store)
    request = control.Request()
    if args.params:
        request = control.Request.from_dict(saved.load(args.params))
    request = control.Request.from_dict({**request.to_dict(), **changes_of(args)})
    if args.dry_run:
        print(control.engine("dry-run", content=request.to_dict()).rstrip())
        return 0
    if args.save_params and args.save_params in saved.names():
        raise JobError(f"Saved parameters {args.save_params!r} exist already; use another name.")
    return create_job(store, args.name, args.description, request, args)


def create_job(
    store: JobStore, job: str, description: str, request: control.Request, args: argparse.Namespace
) -> int:
    store.create_job(job, description)
    try:
        version, answer = control.create(store, job, request)
    except BaseException:
        # a refused request leaves no empty job behind
        if not store.versions(job):
            store.delete_job(job)
        raise
    if getattr(args, "save_params", None):
        save_params(store, args.save_params, version, description)
    print(_forecast(answer))
    return _start(store, version, wait=args.wait)


def run_new_version(store: JobStore, args: argparse.Namespace) -> int:
    """`jobs new-version`."""
    parent = store.version(args.job)
    version, answer = control.new_version(store, parent, changes_of(args))
    if args.save_params:
        save_params(store, args.save_params, version, "")
    print(f"{version.job}/{version.name} is a child of {parent.name}.")
    print(_forecast(answer))
    return _start(store, version, wait=args.wait)


def run_stop(store: JobStore, args: argparse.Namespace) -> int:
    """`jobs stop`."""
    version = store.version(args.job)
    if args.trial:
        control.stop_trial(version, args.trial)
        print(f"Trial {neutral(args.trial)} is stopped.")
    else:
        print(f"{version.job}/{version.name} is {control.stop(store, version)}.")
    return 0


def run_resume(store: JobStore, args: argparse.Namespace) -> int:
    """`jobs resume`."""
    version = store.version(args.job)
    process = control.resume(store, version)
    print(f"{version.job}/{version.name} resumed (process {process.pid}).")
    if not args.wait:
        return 0
    status = control.wait(process, version)
    print(f"{version.job}/{version.name}: {version.state()}. {_message(version)}")
    return status


def run_edit(store: JobStore, args: argparse.Namespace) -> int:
    """`jobs edit`."""
    store.edit_job(args.job, args.description)
    for version in store.versions(args.job):
        update_index(store, version)
    print(f"{args.job}: description changed.")
    return 0


def run_delete(store: JobStore, args: argparse.Namespace) -> int:
    """`jobs delete`: several at once are checked before the first is deleted."""
    for name in args.jobs:
        store.version(name) if "/" in name else store.job_record(name)
    for name in args.jobs:
        if "/" in name:
            version = store.version(name)
            store.delete_version(version)
            forget(store, version.job, version.name)
        else:
            store.delete_job(name)
            forget(store, name)
        print(f"{name} is deleted.")
    return 0


def run_best(store: JobStore, args: argparse.Namespace) -> int:
    """`jobs best`."""
    version = store.version(args.job)
    result = summary(version.path)
    best = result["best"]
    if best is None:
        raise JobError(f"{version.job}/{version.name}: {result['verdict']}")
    model = model_file(best["folder"], best.get("model_path"))
    exported = None
    if args.export:
        exported = _export(Path(args.export), best, result, model)
    if args.form == "json":
        print(render((), [], "json", extra={**result, "exported": exported}))
        return 0
    print(f"{version.job}/{version.name}: trial {best['trial_id']} (#{best['number']})")
    print(f"settings   {short(best['config'])}")
    print(f"values     {short(best['values'])}")
    print(f"model      {neutral(model) if model else 'none inside the trial folder'}")
    print(result["verdict"])
    if exported:
        print(f"copied to  {exported}")
    return 0


def _export(
    folder: Path, best: Mapping[str, Any], result: Mapping[str, Any], model: Path | None
) -> str:
    """Copy the best trial's settings and its model, if it really lies in the trial's output."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "best.json", {"schema_version": 1, **result})
    write_json(folder / "config.json", best["config"])
    if model is not None:
        copy_model(model, folder)
    return str(folder)


def run_reindex(store: JobStore, args: argparse.Namespace) -> int:
    """`jobs reindex`."""
    print(f"{reindex(store)} version(s) indexed.")
    return 0


def run_template(store: JobStore, args: argparse.Namespace) -> int:
    """`jobs template list|show|algorithms`."""
    files = {path.stem: path for path in sorted(_TEMPLATES.glob("*.yaml"))}
    if args.template_verb == "algorithms":
        print(control.engine("algorithms").rstrip())
    elif args.template_verb == "list":
        rows = [
            {
                "name": name,
                "description": path.read_text(encoding="utf-8").splitlines()[0].lstrip("# "),
            }
            for name, path in files.items()
        ]
        print(render(("name", "description"), rows))
    elif args.template not in files:
        raise JobError(f"There is no template {args.template!r}; there are {', '.join(files)}.")
    else:
        print(files[args.template].read_text(encoding="utf-8").rstrip())
    return 0
