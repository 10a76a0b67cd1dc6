"""Starting a pipeline's command for `jobs new-version` and `jobs params use`, from recorded overrides."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from darts_core.commands.jobs.options import place_of
from darts_core.commands.overrides import key_of, quoted, without_password
from darts_core.errors import ConfigError, DartsError, JobError
from darts_core.report.columns import Column
from darts_core.report.elements import best_element, elements, labels
from darts_core.report.job_summary import seen_summary
from darts_core.report.read import VersionRun, read_version
from darts_core.report.tables import neutral, render, short
from darts_core.runlog import read_mapping, write_json
from darts_core.store import control, procs
from darts_core.store.code import copy_model
from darts_core.store.jobs import Store
from darts_core.store.record import PIPELINE
from darts_core.store.version import Version

__all__ = ["Recipe", "heard", "recipe_of", "show_best", "start"]

_PLACES = ("out", "job", "version")
# what `jobs best` copies, by its name
_TAKEN = ("export", "model.pt", "best.yaml", "architecture.yaml")


@dataclass(frozen=True)
class Recipe:
    """A pipeline's command as it was typed, without the place of its results."""

    command: str
    overrides: tuple[str, ...] = ()
    multirun: bool = False
    config_dir: str | None = None
    directory: str | None = None

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Recipe:
        """A recipe from saved values; unknown keys are left out."""
        known = {k: content[k] for k in cls.__dataclass_fields__ if content.get(k) is not None}
        return cls(**{**known, "overrides": tuple(known.get("overrides", ()))})

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def changed(self, settings: Mapping[str, str]) -> Recipe:
        """The recipe with other settings, no password among them; one that stands there already is replaced.

        Raises:
            JobError: one says where results go, which the job and the root decide.
            TuneError: one holds a password that nothing would put back.
        """
        keys = {key_of(key) for key in settings}
        for key in keys.intersection(("job", "out")):
            raise JobError(
                f"--set {key}= would not count: a new version stays in its job and root. For another job "
                "keep the settings with jobs params save, and give --name to jobs params use."
            )
        kept = [text for text in self.overrides if key_of(text) not in keys]
        added = [without_password(f"{key}={value}") for key, value in settings.items()]
        return Recipe.from_dict({**self.to_dict(), "overrides": (*kept, *added)})

    def arguments(self, store: Store, job: str) -> list[str]:
        """What the console command is given."""
        words = [self.command, *(["-m"] if self.multirun else []), *self.overrides]
        words += [f"out={quoted(str(store.root))}", f"job={quoted(job)}"]
        return [*words, *(["--config-dir", self.config_dir] if self.config_dir else [])]


def recipe_of(version: Version) -> Recipe:
    """What a version's first command was told.

    Raises:
        JobError: no command of a pipeline was run in it, or several processes ran it.
    """
    commands = version.record()["commands"]
    if version.kind != PIPELINE or not commands:
        raise JobError(f"{version.label} holds no command of a pipeline.")
    name, command = next(iter(commands.items()))
    if isinstance(command.get("resume_line"), str):
        raise JobError(
            f"{version.label} was run by several processes, which are not started from here; type its line "
            f"with other settings:  {command['resume_line']}"
        )
    kept = [text for text in command.get("overrides") or () if key_of(text) not in _PLACES]
    return Recipe.from_dict({**command, "command": name, "overrides": kept})


def start(
    store: Store, job: str, recipe: Recipe, *, log: Path | None = None
) -> tuple[Version, Any]:
    """Start the command in a process of its own; returns the version that it took, and the process.

    What it prints goes to `log`, where one is named, else into the version.

    Raises:
        ConfigError: the command refused, with its sentence.
        JobError: a version with these settings is finished already.
        TuneError: an override holds a password that nothing would put back.
        KeyboardInterrupt: it was interrupted; what has no version yet, by which to stop it, is ended.
    """
    kept = log is not None
    # everybody may read the list of processes; what is started inherits the password
    recipe = replace(recipe, overrides=tuple(map(without_password, recipe.overrides)))
    if log is None:
        handle, name = tempfile.mkstemp(prefix="darts-core-", suffix=".log")
        os.close(handle)
        log = Path(name)
    mark = uuid.uuid4().hex
    process = control.start(
        "darts_core.cli",
        recipe.arguments(store, job),
        log=log,
        mark=mark,
        directory=recipe.directory,
    )
    try:
        while True:
            ended = process.poll() is not None
            version = _taken_by(store, job, recipe.command, mark)
            if version is not None:
                if not kept:
                    _keep_log(log, version)
                return version, process
            if ended:
                kind = ConfigError if process.returncode else JobError
                raise kind(control.last_words(log, process.returncode))
            time.sleep(0.05)
    except KeyboardInterrupt:
        with contextlib.suppress(ProcessLookupError):
            procs.end_tree(procs.identity(process.pid), mark, reap=process.poll)
        raise
    finally:
        if not kept:
            log.unlink(missing_ok=True)


def _taken_by(store: Store, job: str, command: str, mark: str) -> Version | None:
    """The version that the process with this mark has claimed."""
    for version in reversed(store.versions(job)):
        if str(version.command(command).get("mark")).startswith(f"{mark}/"):
            return version
    return None


def _keep_log(log: Path, version: Version) -> None:
    """What the process has printed so far; what it prints later stands in log.txt."""
    target = version.path / "job.log"
    # a command that came to nothing has taken its version away
    with contextlib.suppress(FileNotFoundError), target.open("ab") as stream:
        stream.write(log.read_bytes())


@contextlib.contextmanager
def heard(wait: bool) -> Iterator[Path | None]:
    """The `log` of `start` and `follow` for whoever waits for the end: it outlives a version that is gone."""
    if not wait:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="darts-core-") as folder:
        yield Path(folder) / "said.log"


def _left(folder: Path) -> list[Path]:
    """What a pipeline has left in `folder`, the shipped one first."""
    run, exported = read_version(folder), [folder / "export"]
    files = [*_picked_exports(run), *(s.folder / "model.pt" for s in run.networks)]
    # what was exported before it was pruned or shrunk is not what is shipped
    files = [*files, *exported] if run.export_left_behind else [*exported, *files]
    files += [folder / "tune/best.yaml", folder / "search/architecture.yaml"]
    return [path for path in files if path.exists()]


def _picked_exports(run: VersionRun) -> list[Path]:
    """The export of the point that `shrink` picked, where that is the network to ship."""
    if not run.networks or run.networks[0].name != "shrink":
        return []
    stage = run.networks[0]
    picked = stage.folder / str(stage.result.get("picked"))
    return [path for path in stage.folder.glob("points/*/export") if path.parent == picked]


def _taken(left: Path, folder: Path, column: Column, *, own: bool) -> Path:
    """Copy what a pipeline left into `folder`, in the place of what an earlier call copied there.

    Args:
        left: a file or folder.
        folder: where to, made if need be; `best.json` in it says what a call of ours copied.
        column: whose it is.
        own: the folder is the version's own, in which nobody else writes.

    Raises:
        JobError: what would be written over was copied by no call of ours.
    """
    mark, target = folder / "best.json", folder / left.name
    try:
        copied = str(read_mapping(mark).get("copied"))
    except DartsError:  # there is none, or it is no object
        copied = ""
    ours = {mark.name, copied} if copied in _TAKEN else set()
    there = [p.name for p in (mark, target) if os.path.lexists(p) and p.name not in ours]
    if (there and not own) or target.resolve() == left.resolve():
        raise JobError(
            f"{folder} holds {', '.join(there or [left.name])} already, and its best.json does not say that "
            "an export of a pipeline wrote that; name another folder with --export."
        )
    # a network that another call left would pass for a part of this one
    for path in {target, *(folder / name for name in ours - {mark.name})}:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(mark, {"schema_version": 1, "copied": left.name, "of": column.label})
    return copy_model(left, folder)


def _element(version: Version, place: Path) -> dict[str, Any] | None:
    """Which element of how many `place` is, and what tells it apart; None where there are none."""
    if place == version.path:
        return None
    found = elements(version.path)
    known = dict(zip(found, labels(found), strict=True))
    return {
        "name": place.relative_to(version.path).as_posix(),
        "of": len(found),
        "label": known[place] if place in known else f"{known[place.parent]} {place.name}",
    }


def show_best(version: Version, args: argparse.Namespace) -> int:
    """`jobs best` of a pipeline: how good its network is, and the model or architecture it left.

    Of a multirun, or of several seeds, those of the element that is best on val.
    """
    found = seen_summary(version, version.state())
    if found.get("best") is None:
        raise JobError(
            f"{version.label} holds nothing that was judged yet; see darts-core jobs show {version.job}."
        )
    place = best_element(version.path)
    column, files = Column(version, place), _left(place)
    exported = None
    if args.export and not files:
        raise JobError(f"{column.label} has left no model or architecture to copy yet.")
    if args.export:
        target = place_of(args.export, "--export", folder=True)
        exported = str(_taken(files[0], target, column, own=target.resolve() == version.exports))
    if args.form == "json":
        kept = {k: found.get(k) for k in ("metric", "best", "baseline")}
        extra = {
            **kept,
            "element": _element(version, place),
            "files": [str(path) for path in files],
            "exported": exported,
        }
        print(render((), [], "json", extra=extra))
        return 0
    chosen = _element(version, place)
    why = f", best on val of {chosen['of']} ({chosen['label']})" if chosen else ""
    print(f"{column.label}: {neutral(found['metric'])} {short(found['best'])}{neutral(why, 1000)}")
    for path in files:
        print(f"left       {neutral(path)}")
    if exported:
        print(f"copied to  {neutral(exported)}")
    return 0
