"""The pipeline's searches as calls, for notebooks: the same commands, settings, jobs and versions.

    from darts_core.api import search, shrink, tune

    found = search("data=digits", job="mine", settings={"search.epochs": 5})
    found.architecture

Each call runs its command in a process of its own: this one stays light, and an interrupt (the notebook's
stop button, Ctrl-C) stops the command, which keeps its checkpoint; the same call again goes on.
"""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darts_core.architecture import Architecture
from darts_core.autosearch.curves import trial_curves
from darts_core.commands.jobs import pipeline
from darts_core.commands.overrides import key_of, parse, quoted
from darts_core.credentials import masked
from darts_core.errors import ConfigError, DartsError, JobError
from darts_core.report.notebook import notebook_html
from darts_core.report.watching import status_line, watching
from darts_core.runlog import read_json
from darts_core.stages.schema import PLACES
from darts_core.store import control
from darts_core.store.jobs import Store
from darts_core.store.names import check_name
from darts_core.store.version import Version

__all__ = ["Found", "search", "shrink", "tune"]

_STOP_SECONDS = 60.0
# texts that the grammar of overrides reads as they are
_PLAIN = re.compile(r"[\w./:-]*", re.ASCII)


@dataclass(frozen=True)
class Found:
    """What a command has left in a version.

    Attributes:
        version: the version's place in the store.
        command: search, tune or shrink.
    """

    version: Version
    command: str

    @property
    def folder(self) -> Path:
        """The folder of the command's stage."""
        return self.version.path / self.command

    @functools.cached_property
    def result(self) -> dict[str, Any]:
        """The stage's `result.json`."""
        content = read_json(self.folder / "result.json")
        return content if isinstance(content, dict) else {}

    @property
    def architecture(self) -> Architecture:
        """The architecture that a search found.

        Raises:
            ConfigError: the command leaves none.
        """
        return Architecture.from_yaml(self.folder / "architecture.yaml")

    def __repr__(self) -> str:
        try:
            return f"Found({status_line(self.version)})"
        except DartsError:  # deleted since, or unpickled where it is not
            return f"Found({self.version.label}: nothing is there any more)"

    def _repr_html_(self) -> str | None:
        try:
            return notebook_html(self.version.path, curves=trial_curves)
        except DartsError:
            return None  # a cell shows the text above; an empty piece of HTML would hide it


def _run(
    command: str,
    overrides: tuple[str, ...],
    settings: Mapping[str, Any] | None,
    job: str,
    out: str | Path,
    progress: bool,
) -> Found:
    words = [*overrides, *(f"{key}={_value(value)}" for key, value in (settings or {}).items())]
    job, words = _placed(job, words)
    store = Store(out)
    recipe = pipeline.Recipe(command, tuple(words), directory=str(Path.cwd()))
    with tempfile.TemporaryDirectory(prefix="darts-core-") as scratch:
        log = Path(scratch) / "said.log"
        try:
            version, process = pipeline.start(store, job, recipe, log=log)
        except JobError:
            finished = _finished(store, job, command, words)
            if finished is None:
                raise
            return Found(finished, command)
        try:
            with watching(version, shown=progress):
                process.wait()
        except KeyboardInterrupt:
            state = control.stop(version, limit_seconds=_STOP_SECONDS)
            kept = (
                "; its checkpoint is kept, and the same call goes on"
                if version.path.is_dir()
                else ""
            )
            raise KeyboardInterrupt(f"{version.label} is {state}{kept}.") from None
        if process.returncode:
            raise JobError(f"{version.label}: {control.last_words(log, process.returncode)}")
    return Found(version, command)


def _placed(job: str, words: list[str]) -> tuple[str, list[str]]:
    """The job's name and the overrides; `mine/V001`, as lists print it, is `mine` with `version=V001`.

    Raises:
        ConfigError: an override says where results go, which the arguments of the call decide, or is an
            option of the command line such as -m, of which nothing could be returned.
        JobError: no job may be called so; said before a process is started, which would go on alone.
    """
    for word in words:
        if word.startswith("-") and not word.startswith(("--config-dir", "-cd")):
            raise ConfigError(
                f"{word!r} is for the command line alone: a call returns what one command found. For several "
                "values call it once for each."
            )
        key = key_of(word)
        if key in ("job", "out"):
            raise ConfigError(
                f"{word!r} would not count: the argument {key}= of the call says that; give it there."
            )
    job, _, version = job.partition("/")
    return check_name(job), [*words, *([f"version={quoted(version)}"] if version else [])]


def _value(value: Any) -> str:
    """A setting as the command line takes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    # a range as well, and an array of numpy: as texts they would be a sweep, and no list
    if isinstance(value, (list, tuple, range)) or bool(getattr(value, "ndim", False)):
        return f"[{','.join(_value(item) for item in value)}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_value(item)}" for key, item in value.items()) + "}"
    text = str(value)
    return text if _PLAIN.fullmatch(text) or _reads(text) else quoted(text)


def _reads(text: str) -> bool:
    """Whether the grammar of overrides knows the text as one value: `~/a` it does not, `a,b` are two."""
    try:
        value = parse(f"setting={text}").value()
    except ConfigError:
        return False
    return not getattr(value, "simple_form", False)


def _finished(store: Store, job: str, command: str, words: list[str]) -> Version | None:
    """The version in which this very command has succeeded already, as its first command or a later one.

    Several may have; where the words name one it is that one.
    """
    if job not in store.jobs():
        return None
    named = [parse(word).value() for word in words if key_of(word) == "version"]
    for version in reversed(store.versions(job)):
        if named and named[-1] is not None and str(named[-1]) != version.name:
            continue
        if version.state(command) == "succeeded":
            known = version.command(command).get("overrides")
            if isinstance(known, list) and _kept(known) == _kept(words):
                return version
    return None


def _kept(words: Iterable[str]) -> list[str]:
    """Overrides without the place of the results, with their passwords masked as a version keeps them."""
    return [str(masked(word)) for word in words if key_of(word) not in PLACES]


def search(
    *overrides: str,
    job: str = "notebook-search",
    settings: Mapping[str, Any] | None = None,
    out: str | Path = "runs",
    progress: bool = True,
) -> Found:
    """`darts-core search`: an architecture by gradient.

    Args:
        overrides: as on the command line, for example `"data=digits"`.
        job: the job's name, or `job/V001` for one of its versions; the same settings go on in the version
            that has them.
        settings: more of them as a mapping, for example `{"search.epochs": 5}`.
        out: folder of all jobs.
        progress: show how far it is.

    Raises:
        ConfigError: the command refused, with its sentence, or an override is `job=`, `out=` or an option
            such as `-m`.
        JobError: it failed, or the job's name is not allowed.
        TuneError: an override holds a password that is no database's.
        KeyboardInterrupt: it was interrupted; its checkpoint is kept.
    """
    return _run("search", overrides, settings, job, out, progress)


def tune(
    *overrides: str,
    job: str = "notebook-tune",
    settings: Mapping[str, Any] | None = None,
    out: str | Path = "runs",
    progress: bool = True,
) -> Found:
    """`darts-core tune`: a hyperparameter study of the final training; see `search`."""
    return _run("tune", overrides, settings, job, out, progress)


def shrink(
    *overrides: str,
    job: str = "notebook-shrink",
    settings: Mapping[str, Any] | None = None,
    out: str | Path = "runs",
    progress: bool = True,
) -> Found:
    """`darts-core shrink`: a front of sub-networks of a given network; see `search`."""
    return _run("shrink", overrides, settings, job, out, progress)
