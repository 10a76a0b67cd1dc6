"""One trial as a process of its own: folder, log, seed, device, time and memory limits.

Whatever user code does - crash, hang, eat memory, leave processes behind - is this trial's failure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darts_core.autosearch.closing import ARCHITECTURE, CLOSING
from darts_core.autosearch.contract import TRIAL_VARIABLE
from darts_core.autosearch.interpreter import package_path
from darts_core.autosearch.reports import ReportReader
from darts_core.autosearch.seeding import SEED_VARIABLE
from darts_core.autosearch.spec import Limits
from darts_core.autosearch.zero_code import FROM_OUTSIDE
from darts_core.runlog import write_json
from darts_core.store import procs

__all__ = ["BY_COMMAND", "Outcome", "TrialProcess"]

BY_COMMAND = "stopped by command"
_MEMORY_POLL_SECONDS = 0.3


@dataclass(frozen=True)
class Outcome:
    """How a trial's process ended: `done`, `stopped` (scheduler, iterations), `failed`, `cancelled`, or
    `killed` by somebody who is not the job.
    """

    state: str
    reason: str
    seconds: float
    peak_mib: float


class TrialProcess:
    """A running trial.

    Args:
        record: what `trial.json` holds (see contract.py), `trial_id` among it.
        folder: the trial's folder.
        limits: time and memory limits, and the grace between asking and forcing.
        python: the interpreter, this one by default.
        mark: what its whole process tree carries.
        visible: the GPU numbers to show to it, "" for none, None to leave the variable alone.
    """

    def __init__(
        self,
        record: dict[str, Any],
        folder: Path,
        *,
        limits: Limits,
        mark: str,
        python: str | None = None,
        visible: str | None = None,
    ) -> None:
        self.record = record
        self.folder = folder
        self.limits = limits
        self.mark = f"{mark}/{record['trial_id']}"
        self.python = python or sys.executable
        self.visible = visible
        self.reader = ReportReader(folder / "reports.jsonl")
        self.outcome: Outcome | None = None
        self.peak_mib = 0.0
        self.cpu_seconds = 0.0
        self.rss_mib = 0.0
        self._asked: tuple[float, str, str] | None = None
        self._checked = 0.0
        self._popen: subprocess.Popen[bytes] | None = None
        self._who: procs.Identity | None = None
        self._seen: set[procs.Identity] = set()
        self._begun = 0.0

    @property
    def pid(self) -> int | None:
        """The process id, once started."""
        return self._popen.pid if self._popen else None

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the start, or of the whole trial once it ended."""
        return self.outcome.seconds if self.outcome else time.monotonic() - self._begun

    def _environment(self) -> dict[str, str]:
        threads = str(self.record.get("threads", 1))
        environment = {
            **os.environ,
            TRIAL_VARIABLE: str(self.folder),
            procs.MARK: self.mark,
            "PYTHONHASHSEED": str(self.record.get("seed", 0) % 2**32),
            SEED_VARIABLE: str(self.record.get("seed", 0)),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
        }
        # for an interpreter of the user's own that lacks this package
        environment["PYTHONPATH"] = os.pathsep.join(
            p for p in (os.environ.get("PYTHONPATH", ""), package_path(self.python)) if p
        )
        if self.visible is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self.visible
        return environment

    def start(self) -> None:
        """Write `trial.json`, set earlier attempts' reports aside, start the process.

        What an earlier attempt found goes: this one may fail before it finds anything.
        """
        for name in ("output", "checkpoint"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        old = self.folder / "reports.jsonl"
        if old.exists():
            attempts = len(list(self.folder.glob("reports.*.jsonl"))) + 1
            old.rename(self.folder / f"reports.{attempts}.jsonl")
        for name in ("stop", "stopped.json", "decided", ARCHITECTURE, CLOSING):
            (self.folder / name).unlink(missing_ok=True)
        write_json(self.folder / "trial.json", self.record)
        with (self.folder / "log.txt").open("ab") as log:
            self._popen = subprocess.Popen(
                [self.python, "-m", "darts_core.autosearch.trial_main", str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder / "output",
                env=self._environment(),
                start_new_session=True,
            )
        self._begun = time.monotonic()
        try:
            self._who = procs.identity(self._popen.pid)
        except ProcessLookupError:
            self._who = None
        if self._who is not None:
            write_json(self.folder / "process.json", {**self._who.to_dict(), "mark": self.mark})

    def ask_to_stop(self, state: str, reason: str) -> None:
        """Ask the trial to end at its next report; after the grace time it is ended by force."""
        if self._asked is None and self.outcome is None:
            self._asked = (time.monotonic(), state, reason)
            (self.folder / "stop").touch()

    def end_now(self, state: str, reason: str, *, grace_seconds: float = 1.0) -> None:
        """End the whole tree within seconds."""
        if self.outcome is None and self._popen is not None:
            procs.end_tree(
                self._who,
                self.mark,
                grace_seconds=grace_seconds,
                limit_seconds=grace_seconds + 4.0,
                reap=self._popen.poll,
                seen=self._seen,
            )
            self._finish(state, reason)

    def poll(self) -> Mapping[str, Any]:
        """Look after the process; returns its new iterations under "iterations".

        When it has ended, `outcome` is set afterwards.
        """
        iterations = self.reader.new_iterations()
        if self.outcome is not None or self._popen is None:
            return {"iterations": iterations}
        code = self._popen.poll()
        if code is not None:
            # what it left behind must not outlive it
            procs.end_tree(None, self.mark, grace_seconds=0.2, limit_seconds=5.0, seen=self._seen)
            iterations += self.reader.new_iterations()
            self._finish(*self._judge(code))
            return {"iterations": iterations}
        self._enforce()
        return {"iterations": iterations}

    def _enforce(self) -> None:
        now = time.monotonic()
        if now - self._checked >= _MEMORY_POLL_SECONDS:
            self._checked = now
            members = procs.tree(self._who, self.mark, self._seen)
            self._seen.update(members)
            self.rss_mib = procs.resident_mib(members)
            self.cpu_seconds = max(self.cpu_seconds, procs.cpu_seconds(members))
            self.peak_mib = max(self.peak_mib, self.rss_mib)
            limit = self.limits.trial_memory_mib
            if limit is not None and self.rss_mib > limit:
                self.end_now(
                    "failed",
                    f"memory: {self.rss_mib:.0f} MiB resident, the limit is {limit:.0f} MiB",
                    grace_seconds=0.0,
                )
                return
        limit = self.limits.trial_seconds
        if limit is not None and self.seconds > limit:
            self.end_now("failed", f"time: still running after {limit:.0f} s")
        elif self._asked is not None and now - self._asked[0] > self.limits.grace_seconds:
            self.end_now(self._asked[1], self._asked[2])

    def _judge(self, code: int) -> tuple[str, str]:
        """State and reason from the exit status and what the trial left."""
        stopped = self.folder / "stopped.json"
        if self._asked is not None and (code != 0 or stopped.exists()):
            return self._asked[1], self._asked[2]
        if code == 0 and stopped.exists():
            try:
                reason = str(json.loads(stopped.read_text(encoding="utf-8")).get("reason", ""))[
                    :200
                ]
            except (ValueError, AttributeError, OSError):
                reason = "stopped"
            # the last iteration is a full training; any other stop was early
            if "max_iterations" in reason:
                return "done", reason
            # the trial may see a command's mark before we do
            return "stopped", BY_COMMAND if (self.folder / "stop").exists() else reason
        if code == 0:
            return "done", ""
        if code < 0 and -code in FROM_OUTSIDE:
            return "killed", f"ended from outside by signal {procs.signal_name(-code)}"
        if code < 0:
            return "failed", f"crash: ended by signal {procs.signal_name(-code)}"
        return "failed", f"crash: exit status {code}; {self._why()}"

    def _why(self) -> str:
        """Why a script ended, where its log says it in words known here."""
        with (self.folder / "log.txt").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 4000))
            end = log.read().decode("utf-8", "replace")
        if "unrecognized arguments: --trial_id" in end or "No such option: --trial_id" in end:
            return (
                "the script takes only arguments that it knows; set general.arguments: named, or give "
                "general.command: 'python FILE.py --lr {lr}'"
            )
        return "the last lines of log.txt tell why"

    def _finish(self, state: str, reason: str) -> None:
        # the final report stands last, behind whatever a fast script has written meanwhile
        self.reader.rest()
        self.outcome = Outcome(state, reason, time.monotonic() - self._begun, self.peak_mib)
        (self.folder / "process.json").unlink(missing_ok=True)
