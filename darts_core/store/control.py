"""Creating, starting, stopping and resuming versions. The search itself runs in a process of its own."""

from __future__ import annotations

import ast
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from os import environ
from pathlib import Path
from typing import Any

from darts_core.errors import ConfigError, JobError
from darts_core.runlog import write_json
from darts_core.store import procs
from darts_core.store.code import copy_code, numbered
from darts_core.store.index import update_index
from darts_core.store.jobs import LIVE, JobStore, Version
from darts_core.store.locks import device_lock_path

__all__ = ["Request", "create", "engine", "launch", "new_version", "resume", "stop", "stop_trial"]

# the layer above runs as a program of its own, so that nothing here imports it
_ENGINE = ("-m", "darts_core.autosearch")


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
    budget: dict[str, float] = field(default_factory=dict)
    notify: tuple[str, ...] = ()

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


def engine(*arguments: str, content: Any = None) -> str:
    """Run the search engine's program and return what it printed.

    Raises:
        ConfigError: it refused, with its sentence.
    """
    done = subprocess.run(
        [sys.executable, *_ENGINE, *arguments],
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


def check_boot_file(code: Path, boot_file: str, *, needs_train: bool) -> None:
    """Raise unless the boot file lies in the code folder, is Python, and has a `train` where needed.

    Raises:
        JobError: one of these does not hold.
    """
    path = code / boot_file
    if not boot_file or not path.is_file() or not path.resolve().is_relative_to(code.resolve()):
        raise JobError(
            f"There is no boot file {boot_file!r} in the code folder {code}; name it relative to --code."
        )
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise JobError(f"The boot file {boot_file} is not valid Python ({error}).") from error
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign):
            names.update(t.id for t in node.targets if isinstance(t, ast.Name))
    if needs_train and "train" not in names and "*" not in names:
        raise JobError(
            f"The boot file {boot_file} has no function train(); define it, without arguments, or give "
            "general.metrics with regular expressions to run the file as a script."
        )


def _check(store: JobStore, request: Request, *, needs_train: bool) -> dict[str, Any]:
    """Everything that can be checked before a version exists; returns the plan's summary."""
    code = Path(request.code).expanduser()
    if not request.code or not code.is_dir():
        raise JobError(f"There is no code folder {request.code!r}; name one with --code.")
    for device in request.devices:
        device_lock_path(store.root, device)
    for path, flag in ((request.data, "--data"), (request.python, "--python")):
        if path is not None and not Path(path).expanduser().exists():
            raise JobError(f"{flag} {path} does not exist; name an existing path.")
    answer: dict[str, Any] = json.loads(engine("check", content=request.to_dict()))
    check_boot_file(code, request.boot_file, needs_train=needs_train and not answer["zero_code"])
    return answer


def create(
    store: JobStore,
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
    answer = _check(store, request, needs_train=needs_train)
    record: dict[str, Any] = {**request.to_dict(), "parent": parent, "mark": uuid.uuid4().hex}
    for name in ("data", "output", "python"):
        if record[name] is not None:
            # no resolve(): a virtual environment's python is a link that must stay one
            record[name] = str(Path(record[name]).expanduser().absolute())
    record["code"] = str(Path(request.code).expanduser().resolve())
    with store.new_version(job, record) as folder:
        record["code_hash"] = copy_code(request.code, folder / "code", skip=store.root)
        record["config_files"] = []
        (folder / "config").mkdir()
        for index, path in enumerate(request.config_paths):
            record["config_files"].append(numbered(index + 1, Path(path)))
            shutil.copyfile(Path(path).expanduser(), folder / "config" / record["config_files"][-1])
    made = [v for v in store.versions(job) if v.record()["mark"] == record["mark"]]
    if not made:
        raise JobError(
            f"The new version of {job!r} was removed while it was being made; try again."
        )
    update_index(store, made[0])
    return made[0], answer


def launch(store: JobStore, version: Version) -> subprocess.Popen[bytes]:
    """Start the process that runs a version; it outlives this one and its terminal."""
    record = version.record()
    with (version.path / "job.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *_ENGINE, "run", str(store.root), version.job, version.name],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**environ, procs.MARK: record["mark"]},
            start_new_session=True,
        )
    with contextlib.suppress(ProcessLookupError):
        who = procs.identity(process.pid)
        write_json(version.path / "launch.json", {"process": who.to_dict()})
    return process


def resume(store: JobStore, version: Version) -> subprocess.Popen[bytes]:
    """Go on with a version that did not succeed: finished trials stay, cut-off ones are continued.

    Raises:
        JobError: it runs, or has succeeded already.
    """
    state = version.state()
    if state in LIVE:
        raise JobError(f"{version.job}/{version.name} is {state} already; see jobs logs.")
    if state == "succeeded":
        raise JobError(
            f"{version.job}/{version.name} has succeeded, there is nothing to resume; make another with "
            f"darts-core jobs new-version {version.job}."
        )
    version.stop_file.unlink(missing_ok=True)
    version.set_state("queued", process=None)
    (version.path / "launch.json").unlink(missing_ok=True)
    process = launch(store, version)
    update_index(store, version)
    return process


def stop(store: JobStore, version: Version, *, limit_seconds: float = 10.0) -> str:
    """Stop a version and everything it started; returns the state it is in then.

    It is asked first; what has not ended after half of the time is ended by force. Only processes whose
    id, start time and boot are the recorded ones, and their trees, are signalled.

    Raises:
        JobError: it does not run, or something of it could not be ended.
    """
    state = version.state()
    if state not in LIVE and state != "interrupted":
        raise JobError(f"{version.job}/{version.name} is {state}; there is nothing to stop.")
    begun = time.monotonic()
    mark = str(version.record()["mark"])
    version.stop_file.touch()
    who = version.process()
    while who is not None and time.monotonic() - begun < 0.6 * limit_seconds:
        time.sleep(0.05)
        who = version.process()
    left = limit_seconds - (time.monotonic() - begun)
    ended = procs.end_tree(
        who, mark, grace_seconds=min(0.5, left / 4), limit_seconds=max(1.0, left - 0.5)
    )
    if version.state() in (*LIVE, "interrupted"):
        lock = version.lock
        if lock.acquire(2.0):
            # the process died without writing its last state
            version.set_state("stopped", message="stopped by force", process=None)
            lock.release()
    update_index(store, version)
    if not ended:
        raise JobError(
            f"Some processes of {version.job}/{version.name} are still there; stop it again."
        )
    return version.state()


def stop_trial(version: Version, trial_id: str, *, limit_seconds: float = 10.0) -> None:
    """Stop one running trial; the search goes on.

    Raises:
        JobError: there is no running trial of that id, or it did not end in time.
    """
    folder = version.path / "autosearch" / "trials" / trial_id
    if not trial_id.isalnum() or not folder.is_dir() or (folder / "result.json").exists():
        raise JobError(
            f"{version.job}/{version.name} has no running trial {trial_id[:40]!r}; see darts-core jobs "
            f"show {version.job}."
        )
    (folder / "stop").touch()
    begun = time.monotonic()
    while not (folder / "result.json").exists():
        if time.monotonic() - begun > limit_seconds:
            raise JobError(
                f"The trial {trial_id} has not ended in {limit_seconds:.0f} s; stop the job."
            )
        time.sleep(0.05)


def parent_request(version: Version) -> Request:
    """The request a version was made from, pointing at its own copies of code and job files."""
    content = version.record()
    paths = [str(version.path / "config" / name) for name in content.get("config_files", [])]
    request = Request.from_dict({**content, "config_paths": paths})
    if not Path(request.code).is_dir():
        # the user's folder is gone; the version's copy is as good
        request = replace(request, code=str(version.path / "code"))
    return request


def new_version(
    store: JobStore, parent: Version, changes: Mapping[str, Any]
) -> tuple[Version, dict[str, Any]]:
    """A child version: the parent's request with changed parameters."""
    request = parent_request(parent)
    merged: dict[str, Any] = {}
    for name, value in changes.items():
        old = getattr(request, name)
        merged[name] = {**old, **value} if isinstance(old, dict) else value
    return create(store, parent.job, replace(request, **merged), parent=parent.name)


def wait(process: subprocess.Popen[bytes], version: Version) -> int:
    """Wait for a launched version; Ctrl-C only stops the waiting. 0 when it succeeded."""
    try:
        process.wait()
    except KeyboardInterrupt:
        print(f"{version.job}/{version.name} goes on; see darts-core jobs logs -f {version.job}.")
        return 128 + signal.SIGINT
    return 0 if version.state() == "succeeded" else 1
