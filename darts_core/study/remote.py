"""A trial's sitting on another host: reports and files come back, decisions go there.

The books stay where the study is. What runs a trial elsewhere gets the files of its folder, and with each
report returns those that changed, so that a host may vanish and the trial goes on from its last report on
another. Nothing here knows how the two ends are connected.
"""

from __future__ import annotations

import os
import pickle
import queue
import shutil
import tempfile
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from darts_core.errors import TuneError
from darts_core.runlog import write_bytes
from darts_core.study.claim import Claim
from darts_core.study.lease import LEASE_FILE
from darts_core.study.runner import Decide, Runner, runner_of

__all__ = ["LinkLost", "Sitting", "changed_files", "follow", "store_files"]

# the books' own files stay with the books
_KEPT_HOME = (LEASE_FILE, "result.json")
Files = dict[str, bytes]
Stamps = dict[str, tuple[int, int]]


def changed_files(folder: Path, seen: Stamps) -> Files:
    """The contents of files that are new or have changed since `seen`, by relative path; updates `seen`."""
    found: Files = {}
    for path in sorted(Path(root, name) for root, _, names in os.walk(folder) for name in names):
        name = path.relative_to(folder).as_posix()
        if name in _KEPT_HOME or path.is_symlink() or not path.is_file():
            continue
        try:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if seen.get(name) != stamp:
                found[name] = path.read_bytes()
                seen[name] = stamp
        except FileNotFoundError:
            continue  # a script that runs on meanwhile has renamed or removed it
    return found


def store_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files below `folder`, each at once.

    Raises:
        TuneError: a path leads out of the folder.
    """
    root = folder.resolve()
    for name, content in files.items():
        path = root / name
        if not path.resolve().is_relative_to(root) or name in _KEPT_HOME:
            raise TuneError(f"A trial elsewhere returned the file {name!r}, which is not its own.")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)


_FACTS = ("number", "params", "seed", "resumed", "is_baseline", "earlier_seconds")


@dataclass
class _There:
    """The part of a claim that a runner elsewhere needs. The budget is looked at at the near end."""

    number: int
    params: dict[str, Any]
    seed: int
    resumed: bool
    is_baseline: bool
    earlier_seconds: float
    folder: Path
    row: dict[str, Any] = field(default_factory=dict)

    def over(self) -> str | None:
        """Nothing, see `Claim`."""
        return None


class LinkLost(Exception):
    """One end of a sitting is gone, with the host or the process that held it."""


class Sitting:
    """The far end: runs trials, one after another, each in a child process of this host.

    Args:
        packed: of `pack`, the objective.
        wanted: metrics that the study's objectives and constraints name.
    """

    def __init__(self, packed: bytes, wanted: tuple[str, ...]) -> None:
        self._packed, self._wanted = packed, wanted
        self._begun: queue.Queue[_There] = queue.Queue()
        self._messages: queue.Queue[tuple[str, Any, Files]] = queue.Queue()
        self._answers: queue.Queue[str | LinkLost | None] = queue.Queue()
        self._seen: Stamps = {}

    def ready(self) -> bool:
        """True, once this end is able to run trials.

        Raises:
            Exception: the objective's modules cannot be imported here.
        """
        runner = runner_of(pickle.loads(self._packed), self._wanted)  # what its own study packed
        # one thread for all trials: what it forks is ended by the kernel when it ends
        target = threading.Thread(target=self._run, args=(runner,), daemon=True, name="sittings")
        target.start()
        return True

    def begin(self, facts: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Start a sitting with the trial's files so far."""
        folder, self._seen = Path(tempfile.mkdtemp(prefix="darts-trial-")), {}
        store_files(folder, files)
        changed_files(folder, self._seen)
        self._begun.put(_There(**facts, folder=folder))

    def next(self) -> tuple[str, Any, Files]:
        """The next message, waited for: ("report", (epoch, metrics), files), ("ended", (how, row), files)."""
        return self._messages.get()

    def answer(self, reason: str | None) -> None:
        """The decision on the last report."""
        self._answers.put(reason)

    def close(self) -> None:
        """End the trial that waits for an answer, and its process."""
        self._answers.put(LinkLost("the near end is gone"))

    def _run(self, runner: Runner) -> None:
        while True:
            there = self._begun.get()
            try:
                ending = runner.run(there, partial(self._decide, there.folder))  # type: ignore[arg-type]
            except Exception as error:
                ending = ("raised", (f"{type(error).__name__}: {error}", traceback.format_exc()))
            files = changed_files(there.folder, self._seen)
            self._messages.put(("ended", (ending, there.row), files))
            shutil.rmtree(there.folder, ignore_errors=True)

    def _decide(self, folder: Path, epoch: int, metrics: dict[str, float]) -> str | None:
        self._messages.put(("report", (epoch, metrics), changed_files(folder, self._seen)))
        answer = self._answers.get()
        if isinstance(answer, LinkLost):
            raise answer
        return answer


def follow(link: Any, claim: Claim, decide: Decide) -> tuple[str, Any]:
    """One sitting seen from the near end; how it ended.

    Args:
        link: has `begin`, `next` and `answer` of a `Sitting`; each may raise `LinkLost`.
        claim: the trial.
        decide: judges reports.

    Raises:
        LinkLost: the far end is gone; the trial's folder is as at its last report.
    """
    link.begin({name: getattr(claim, name) for name in _FACTS}, changed_files(claim.folder, {}))
    while True:
        kind, content, files = link.next()
        store_files(claim.folder, files)
        if kind == "ended":
            ending, claim.row = content
            return ending[0], ending[1]
        link.answer(decide(*content))
