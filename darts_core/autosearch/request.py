"""What a search of a user's script is made from, and making a version of a job from it."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from darts_core.autosearch.boot_file import check_boot_file, mentions
from darts_core.autosearch.interpreter import check_interpreter
from darts_core.errors import ConfigError, JobError
from darts_core.store.code import copy_code, kept_files, links_note, numbered
from darts_core.store.jobs import Store
from darts_core.store.locks import device_lock_path
from darts_core.store.procs import identity, program
from darts_core.store.record import SCRIPT, new_record
from darts_core.store.version import Version

__all__ = [
    "COMMAND",
    "RULES",
    "Request",
    "create",
    "engine",
    "made_by_older",
    "merged",
    "new_version",
    "request_of",
    "with_whole_paths",
]

MODULE, COMMAND = "darts_core.autosearch", "autosearch"
# by which a job file is read; a version holds the number of the program that made it, none before 2
RULES = 2


@dataclass(frozen=True)
class Request:
    """Everything a version is made from."""

    code: str = ""
    boot_file: str = ""
    config_paths: tuple[str, ...] = ()
    arguments: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    multi: str | None = None
    data: str | None = None
    output: str | None = None
    python: str | None = None
    devices: tuple[str, ...] = ("cpu",)
    ray: dict[str, Any] | None = None
    slurm: dict[str, Any] | None = None
    budget: dict[str, float] = field(default_factory=dict)
    notify: tuple[str, ...] = ()
    entry: str = "train"
    evaluate: str = "eval"

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Request:
        """A request from saved values; unknown keys are left out."""
        known = {k: content[k] for k in cls.__dataclass_fields__ if content.get(k) is not None}
        for name in ("config_paths", "devices", "notify"):
            if name in known:
                known[name] = tuple(known[name])
        return cls(**known)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def changed(self, changes: Mapping[str, Any]) -> Request:
        """The request with other parts, see `merged`."""
        return replace(self, **merged(vars(self), changes))


def merged(known: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of a request with others in their place; of mappings (arguments, settings, budget, a cluster)
    only what is named. One cluster takes the place of the other.
    """
    found = dict(known)
    for name, value in changes.items():
        old = found.get(name)
        if isinstance(old, dict) and isinstance(value, Mapping):
            found[name] = {**old, **value}
        else:
            found[name] = value
    for name, other in (("ray", "slurm"), ("slurm", "ray")):
        if changes.get(name) is not None and other not in changes:
            found[other] = None
    return found


def with_whole_paths(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of a request whose paths hold in any folder."""
    kept = dict(values)
    for name in ("data", "output", "python"):
        if kept.get(name) is not None:
            # no resolve(): a virtual environment's python is a link that must stay one
            kept[name] = str(Path(kept[name]).expanduser().absolute())
    if kept.get("code"):
        kept["code"] = str(Path(kept["code"]).expanduser().resolve())
    return kept


def engine(*arguments: str, content: Any = None) -> str:
    """Run the search engine's program and return what it printed; a quick command stays quick so.

    Raises:
        ConfigError: it refused, with its sentence.
    """
    done = subprocess.run(
        [*program(MODULE), *arguments],
        input=None if content is None else json.dumps(content),
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ConfigError(lines[-1].removeprefix("darts-core: "))
    return done.stdout


def _check(store: Store, request: Request, *, needs_train: bool) -> dict[str, Any]:
    """Everything that can be checked before a version exists; returns the plan's summary."""
    code = Path(request.code).expanduser()
    if not request.code or not code.is_dir():
        raise JobError(f"There is no code folder {request.code!r}; name one with --code.")
    for device in request.devices:
        device_lock_path(store.root, device)
    for path, flag in ((request.data, "--data"), (request.python, "--python")):
        if path is not None and not Path(path).expanduser().exists():
            raise JobError(f"{flag} {path} does not exist; name an existing path.")
    if request.output:
        # at the end of the search it would be found too late
        wanted = Path(request.output).expanduser().absolute()
        there = next(place for place in (wanted, *wanted.parents) if place.exists())
        if not there.is_dir():
            raise JobError(f"--output {request.output} is no folder ({there} is a file); name one.")
    if request.python is not None:
        check_interpreter(request.python, code)
    answer: dict[str, Any] = json.loads(engine("check", content=request.to_dict()))
    needs = request.entry if needs_train and not answer["zero_code"] else None
    answer["boot_file"] = check_boot_file(code, answer["boot_file"], needs=needs)
    for name in answer["own_arguments"]:
        if not mentions(code, name):
            answer["notes"].append(f"--arg {name}: no Python file of the code mentions that name")
    for name in answer["settings"]:
        if not mentions(code, name):
            answer["notes"].append(
                f"no Python file of the code mentions the setting {name!r}, so it may not reach your "
                f"training; call it like your script's option, or read autosearch.config[{name!r}]"
            )
    return answer


def create(
    store: Store,
    job: str,
    request: Request,
    *,
    parent: str | None = None,
    needs_train: bool = True,
) -> tuple[Version, dict[str, Any]]:
    """Make the next version of an existing job: code and job files are copied into it.

    Raises:
        JobError, ConfigError: something about the request is wrong; nothing was made.
    """
    store.job_record(job)
    store.require_kind(job, SCRIPT, "--name ")
    answer = _check(store, request, needs_train=needs_train)
    kept = with_whole_paths(request.to_dict())
    kept["rules"] = RULES
    kept["boot_file"] = answer["boot_file"]
    record = new_record(SCRIPT, parent=parent, commands={COMMAND: _command(kept)})
    with store.new_version(job, record) as folder:
        kept["code_hash"] = copy_code(request.code, folder / "code", skip=store.root)
        kept["config_files"] = []
        (folder / "config").mkdir()
        for index, path in enumerate(request.config_paths):
            kept["config_files"].append(numbered(index + 1, Path(path)))
            shutil.copyfile(Path(path).expanduser(), folder / "config" / kept["config_files"][-1])
    note = links_note(request.code, skip=store.root)
    if note:
        answer["notes"].append(note)
    return store.version(job, record["name"]), answer


def made_by_older(request: Mapping[str, Any]) -> bool:
    """Whether a version's request was written by a program that read job files less strictly.

    Such a search, half finished, goes on as it began.
    """
    rules = request.get("rules")
    return not isinstance(rules, int) or rules < RULES


def _command(request: dict[str, Any]) -> dict[str, Any]:
    """The record of the one command of such a version: how it is started, and its first state."""
    return {
        "module": MODULE,
        "arguments": ["run", "{root}", "{job}", "{version}"],
        "stops_by_file": True,
        "mark": uuid.uuid4().hex,
        "request": request,
        "state": "queued",
        "process": identity().to_dict(),
    }


def request_of(version: Version) -> Request:
    """The request a version was made from, pointing at its own copies of code and job files.

    Raises:
        JobError: it runs no script, or its record names files that are not its own.
    """
    content = version.command(COMMAND).get("request")
    if not isinstance(content, dict):
        raise JobError(
            f"{version.label} is a {version.kind}: it runs no script of yours, so it holds no code and no "
            "job file; its settings are the overrides that darts-core jobs show prints."
        )
    paths = kept_files(version.path / "config", content.get("config_files") or None)
    request = Request.from_dict({**content, "config_paths": list(map(str, paths))})
    kept = Store(version.path.parent.parent).keeps(request.code)
    if kept or not Path(request.code).is_dir():
        # the user's folder is gone, or it was a copy of ours, which goes with what it is part of; the
        # version's own copy is as good
        request = replace(request, code=str(version.path / "code"))
    return request


def new_version(
    store: Store, parent: Version, changes: Mapping[str, Any]
) -> tuple[Version, dict[str, Any]]:
    """A child version: the parent's request with changed parameters."""
    return create(store, parent.job, request_of(parent).changed(changes), parent=parent.name)
