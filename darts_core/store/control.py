"""Starting, stopping and resuming commands: each is the program that its version's record names.

A started program runs in a process of its own, which outlives the one that started it and its terminal.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
import uuid
from os import environ
from pathlib import Path

from darts_core.errors import JobError, disk_failure
from darts_core.store import procs
from darts_core.store.jobs import Store
from darts_core.store.names import quoted
from darts_core.store.record import LIVE, PIPELINE
from darts_core.store.version import Version

__all__ = ["last_words", "launch", "resume", "start", "stop", "stop_trial", "wait"]

# a record may name a program of this package, nothing else
_PACKAGE = __name__.partition(".")[0]
_TRIAL_SECONDS = 10  # how long a trial may take to end


def _argument(text: str, store: Store, version: Version, mark: str = "") -> str:
    """An argument of a record with the places of the version put in, its names between quotation marks."""
    values = {"root": str(store.root), "quoted_root": quoted(str(store.root))}
    values |= {"job": f"{mark}{version.job}{mark}", "version": f"{mark}{version.name}{mark}"}
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def start(
    module: str, arguments: list[str], *, log: Path, mark: str, directory: str | None = None
) -> subprocess.Popen[bytes]:
    """Start a program of this package, its output appended to `log`.

    Raises:
        JobError: the module is none of this package's, or the directory is gone.
    """
    if module.partition(".")[0] != _PACKAGE or not all(p.isidentifier() for p in module.split(".")):
        raise JobError(
            f"The record names the program {module[:80]!r}, which is none of {_PACKAGE}'s."
        )
    if directory is not None and not Path(directory).is_dir():
        raise JobError(
            f"The command was started in {directory}, which is gone; make that folder again (relative "
            "paths of its settings count from there)."
        )
    with log.open("ab") as stream:
        return subprocess.Popen(
            [*procs.program(module), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env={**environ, procs.MARK: mark},
            start_new_session=True,
        )


def launch(store: Store, version: Version, name: str | None = None) -> subprocess.Popen[bytes]:
    """Start the program of a command (the newest by default).

    Raises:
        JobError: the record does not say how it was started.
    """
    name = name or version.newest() or ""
    command = version.command(name)
    known = command.get("arguments")
    if not isinstance(command.get("module"), str) or not isinstance(known, list):
        raise JobError(f"{version.label} does not say how its {name or 'command'} was started.")
    # an override: a bare name such as a=b or 2026_11_30 is none, or a number
    places = [_argument(str(text), store, version, "'") for text in command.get("places") or ()]
    if places:
        arguments = [*(str(text) for text in known), *places]
    else:
        arguments = [_argument(str(text), store, version) for text in known]
    directory = command.get("directory")
    # a program that claims the version itself also gives its processes a mark of their own
    mark = uuid.uuid4().hex if places else str(command.get("mark") or "")
    process = start(
        command["module"],
        arguments,
        log=version.path / "job.log",
        mark=mark,
        directory=directory if isinstance(directory, str) else None,
    )
    with contextlib.suppress(ProcessLookupError):
        version.note_launch(name, procs.identity(process.pid))
    if places:
        _await_claim(process, version, name)
    return process


def _await_claim(process: subprocess.Popen[bytes], version: Version, name: str) -> None:
    """Return once the process has taken the version up, or has ended well.

    Raises:
        JobError: it refused, with its sentence.
    """
    while process.poll() is None:
        who = procs.Identity.from_dict(version.command(name).get("process"))
        if who is not None and who.pid == process.pid:
            return
        time.sleep(0.05)
    # it may also have run and failed: then the version says why
    if (
        process.returncode
        and version.path.is_dir()
        and version.state(name) not in ("failed", "stopped")
    ):
        raise JobError(last_words(version.path / "job.log", process.returncode))


def last_words(log: Path, status: int) -> str:
    """The sentence with which a program ended, from what it has printed."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = [line for line in lines if line.startswith("darts-core: ")] or lines
    return (said or [f"exit status {status}"])[-1].removeprefix("darts-core: ")


def resume(store: Store, version: Version) -> subprocess.Popen[bytes]:
    """Go on with the newest command that did not succeed, or left something; what it has computed stays.

    Raises:
        JobError: one runs, or all have succeeded already.
    """
    running = version.running()
    if running is not None:
        raise JobError(
            f"{version.label} is {version.state(running)} already ({running}); see jobs logs."
        )
    name = version.unfinished()
    if name is None:
        raise JobError(
            f"{version.label} has succeeded, there is nothing to resume; make another with "
            f"darts-core jobs new-version {version.job}"
            f"{' --set KEY=VALUE' * (version.kind == PIPELINE)}."
        )
    again = version.command(name).get("resume_line")
    if isinstance(again, str):
        raise JobError(f"{version.label} cannot be started from here; go on with:  {again}")
    lock = version.lock
    if not lock.try_acquire():
        raise JobError(f"{version.label} is in use by another process; see jobs logs.")
    try:
        version.stop_file.unlink(missing_ok=True)
        version.set_state("queued", name)
        version.note_launch(name, None)
    finally:
        lock.release()
    return launch(store, version, name)


def stop(version: Version, *, limit_seconds: float = 10.0) -> str:
    """Stop the command that runs and everything it started; returns the state it is in then.

    It is asked first; what has not ended after half of the time is ended by force. Only processes whose
    id, start time and boot are the recorded ones, and their trees, are signalled.

    Raises:
        JobError: none runs, what is recorded runs in another folder, or something could not be ended.
    """
    name = version.running() or version.newest()
    state = version.state(name)
    _refuse_copy(version)
    if state not in LIVE and state != "interrupted":
        raise JobError(f"{version.label} is {state}; there is nothing to stop.")
    command = version.command(name)
    begun = time.monotonic()
    mark = str(command.get("mark") or "")
    asked = _ask(version)
    who = version.process(name)
    if who is not None and not (asked and command.get("stops_by_file")):
        procs.send(who, signal.SIGTERM)
    while who is not None and time.monotonic() - begun < 0.6 * limit_seconds:
        time.sleep(0.05)
        try:
            who = version.process(name)
        except JobError:  # it had nothing to keep and has taken its version away
            who = who if procs.is_alive(who) else None
    left = limit_seconds - (time.monotonic() - begun)
    ended = procs.end_tree(
        who, mark, grace_seconds=min(0.5, left / 4), limit_seconds=max(1.0, left - 0.5)
    )
    # where the disk takes no state, that of a process that is gone is known all the same
    with contextlib.suppress(JobError, OSError):
        _note_stop(version, name)
    if not ended:
        raise JobError(f"Some processes of {version.label} are still there; stop it again.")
    # a command that had nothing to keep has taken its version away
    return version.state(name) if version.path.is_dir() else "stopped"


def _ask(version: Version) -> bool:
    """Leave the file that says that a stop is wanted; False where the disk is too full, or faulty, for it."""
    try:
        version.stop_file.touch()
    except OSError as error:
        if disk_failure(error) is None:
            raise
        return False
    return True


def _refuse_copy(version: Version) -> None:
    """Refuse a folder that was copied while its command ran: the process works in the other one.

    Raises:
        JobError: it is one.
    """
    who = version.elsewhere()
    if who is not None:
        raise JobError(
            f"{version.label} is a copy of a version that process {who.pid} runs in another folder; nothing "
            f"was stopped. darts-core jobs delete {version.label} deletes the copy alone."
        )


def _note_stop(version: Version, name: str | None) -> None:
    """Write the last state of a process that died without doing so."""
    if version.state(name) not in (*LIVE, "interrupted"):
        return
    lock = version.lock
    if lock.acquire(2.0):
        try:
            version.set_state("stopped", name, message="stopped by force")
        finally:
            lock.release()


def stop_trial(version: Version, trial_id: str) -> None:
    """Stop one running trial of a user's script; the search goes on.

    Raises:
        JobError: there is no running trial of that id, or it did not end in time.
    """
    folders = [path for path in version.path.glob("*/trials/*") if path.name == trial_id]
    folder = folders[0] if trial_id.isalnum() and folders else None
    if folder is None or not (folder / "trial.json").exists() or (folder / "result.json").exists():
        raise JobError(
            f"{version.label} has no running trial {trial_id[:40]!r} that can be stopped alone; see "
            f"darts-core jobs show {version.job}."
        )
    (folder / "stop").touch()
    begun = time.monotonic()
    while not (folder / "result.json").exists():
        if time.monotonic() - begun > _TRIAL_SECONDS:
            raise JobError(
                f"The trial {trial_id} has not ended in {_TRIAL_SECONDS} s; stop the job."
            )
        time.sleep(0.05)


def wait(process: subprocess.Popen[bytes], version: Version) -> int:
    """Wait for a launched version; Ctrl-C only stops the waiting. 0 when it succeeded."""
    try:
        process.wait()
    except KeyboardInterrupt:
        print(f"{version.label} goes on; see darts-core jobs logs -f {version.job}.")
        return 128 + signal.SIGINT
    return 0 if version.path.is_dir() and version.state() == "succeeded" else 1
