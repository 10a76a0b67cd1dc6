"""How a trial is run: a callable in this process, or one in a child process.

A runner brings one sitting of a trial to its end and says how it ended. A third kind, which runs a user's
script, is in `darts_core.autosearch`.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import pickletools
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from darts_core.errors import TuneError
from darts_core.store.procs import signal_name
from darts_core.study.child import call_objective, child_main
from darts_core.study.claim import Claim
from darts_core.study.database import lost
from darts_core.study.trial import TrialHandle, inside

__all__ = [
    "CallableRunner",
    "ChildRunner",
    "Decide",
    "Objective",
    "Runner",
    "check_guarded",
    "leave_unguarded",
    "pack",
    "runner_of",
    "start_fork_server",
    "worker_context",
]

_STARTS = 5
# exit status of a process that met a study in the user's script before it was ready for a trial; no code's
# own, such as sys.exit(1)
_UNGUARDED = 213
_GUARD = (
    "run_study is called by the processes of its own study, too, which import your script; put the call "
    "under if __name__ == '__main__':."
)
# how often a trial that says nothing is looked at, and how long it may say nothing after the budget is spent:
# so long, and so many times the longest pause before; it may be measured or waiting for that
_LOOK_SECONDS, _GRACE_SECONDS, _GRACE_PAUSES = 60.0, 600.0, 3.0
_TERM_SECONDS = 5.0
Decide = Callable[[int, dict[str, float]], "str | None"]
Objective = Callable[[TrialHandle], Any]


class Runner(Protocol):
    """Runs the sittings of trials, one after another."""

    def run(self, claim: Claim, decide: Decide) -> tuple[str, Any]:
        """One sitting of a trial; each epoch's metrics are given to `decide`, which may end the trial.

        Returns:
            ("returned", outcome), ("pruned", reason), ("raised", (sentence, traceback or None)), or
            ("died", how) when the trial's own process was killed: it is started again. ("disk", arguments
            of the OSError): the disk is full or faulty, which is no trial's failure.
        """

    def close(self) -> None:
        """Let go of what the runner holds."""


class CallableRunner:
    """Calls the objective in this process."""

    def __init__(self, objective: Objective, wanted: tuple[str, ...]) -> None:
        self._objective, self._wanted = objective, wanted

    def run(self, claim: Claim, decide: Decide) -> tuple[str, Any]:
        """See `Runner`."""
        handle = TrialHandle(
            claim.number,
            claim.params,
            claim.folder,
            seed=claim.seed,
            resumed=claim.resumed,
            decide=decide,
            wanted=self._wanted,
        )
        with inside(handle):
            return call_objective(self._objective, handle)

    def close(self) -> None:
        """Nothing."""


def leave_unguarded() -> None:
    """End this process where it is a new one that only imports the user's script, which calls `run_study`.

    An error would be a traceback in each of them; whoever started it knows the status, see `check_guarded`.
    """
    # multiprocessing's own mark, by which it refuses processes of such a process
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        print(f"darts-core: {_GUARD}", file=sys.stderr, flush=True)
        os._exit(_UNGUARDED)


def check_guarded(status: int | None) -> None:
    """Nothing, unless a process ended with `status` because the user's script calls `run_study` unguarded.

    Raises:
        TuneError: it did; another process would end like it.
    """
    if status == _UNGUARDED:
        raise TuneError(_GUARD)


def pack(objective: Any) -> bytes:
    """The objective for another process. It is unpacked there only once that process watches its parent:
    unpacking imports modules, and a process must not outlive its parent by the length of an import.

    Raises:
        TuneError: it cannot be sent.
    """
    try:
        packed = pickle.dumps(objective)
    except (AttributeError, TypeError, ImportError, pickle.PicklingError) as error:
        raise TuneError(
            f"The objective {objective!r} cannot run in another process ({error}); use a function at the "
            "top level of a module, or workers=1."
        ) from error
    # by its name alone, which another process finds in a file; what was packed by value has none
    at_home = getattr(sys.modules["__main__"], "__file__", None) is None and b"__main__" in packed
    if at_home and any(word == "__main__" for _, word, _ in pickletools.genops(packed)):
        raise TuneError(
            f"The objective {objective!r} is defined in a notebook or a shell, of which another process "
            "knows nothing; write it into a module and import it from there, or use workers=1."
        )
    return packed


def worker_context(objective: Any) -> Any:
    """How processes are started: a fork server that has imported the objective's modules once.

    These are the module it is defined in, and those that its attribute `preload` names.

    Forking a process with threads or a GPU context is unsafe, and a fresh interpreter a trial would
    import torch again each time.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # joblib's worker processes name a method of their own as the default, which ours cannot find
    if multiprocessing.get_start_method(allow_none=True) not in (
        None,
        "fork",
        "spawn",
        "forkserver",
    ):
        multiprocessing.set_start_method("forkserver", force=True)
    target = getattr(objective, "func", objective)
    module = getattr(target, "__module__", None) or type(target).__module__
    more = getattr(objective, "preload", ())
    context.set_forkserver_preload(
        ["darts_core.study.fork_server", "darts_core.study.child", module, *more]
    )
    return context


def start_fork_server(objective: Any) -> None:
    """Start it now, so that all it forks inherits what this process ignores."""
    if sys.platform == "linux":
        from multiprocessing.forkserver import ensure_running

        worker_context(objective)
        ensure_running()


def start_process(context: Any, target: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """A started process; a fork server that was killed meanwhile is replaced.

    Raises:
        TuneError: no process can be started.
    """
    for _ in range(_STARTS):
        process = context.Process(target=target, args=args)
        try:
            process.start()
        except (EOFError, ConnectionError) as error:
            last = error
        else:
            return process
    raise TuneError(
        f"No process can be started ({type(last).__name__}: {last}). Does your script call run_study outside "
        "of if __name__ == '__main__':? Then put it there; else run the same command to continue."
    ) from last


class ChildRunner:
    """Runs the sittings of trials in child processes.

    Each trial gets a new process, unless the objective has a true attribute `reuse_process`: then
    the process of a trial that ended well also runs the next one, which saves its imports and its
    loading of data.
    """

    def __init__(self, objective: Any, wanted: tuple[str, ...]) -> None:
        self._context, self._objective, self._wanted = worker_context(objective), objective, wanted
        self._reuse = bool(getattr(objective, "reuse_process", False))
        self._process: Any = None
        self._pipe: Any = None
        # of all its trials: an objective that reports nothing tells by its earlier ones how long it takes
        self._longest = 0.0

    def run(self, claim: Claim, decide: Decide) -> tuple[str, Any]:
        """One sitting of a trial, its reports relayed to `decide`.

        Returns:
            What `call_objective` returned there, or ("died", how). One that hangs is ended by force when the
            budget is spent: ("pruned", reason).

        Raises:
            TuneError: the objective cannot be sent to another process, or that one starts the study anew.
        """
        if self._process is None:
            self._start()
        facts = {
            "number": claim.number,
            "params": claim.params,
            "folder": claim.folder,
            "seed": claim.seed,
            "resumed": claim.resumed,
            "wanted": self._wanted,
        }
        try:
            ending = self._talk(facts, decide, claim)
        except BaseException:
            self._process.kill()
            self.close()
            raise
        if ending is None:
            self._process.join()
            check_guarded(self._process.exitcode)
            ending = ("died", _how(self._process.exitcode))
        if not self._reuse or ending[0] not in ("returned", "pruned"):
            self.close()
        return ending

    def _start(self) -> None:
        packed = pack(self._objective)
        self._pipe, theirs = self._context.Pipe()
        try:
            self._process = start_process(self._context, child_main, (theirs, packed))
        finally:
            theirs.close()

    def _talk(self, facts: dict[str, Any], decide: Decide, claim: Claim) -> tuple[str, Any] | None:
        """Relay the reports of a sitting to `decide`; how it ended, or None when the process is gone.

        What `decide` raises is raised: a full disk under the books, too, is no death of the process, which
        lives and waits for the answer.
        """
        if not self._send(facts):
            return None
        while True:
            reason = self._hangs(claim)
            if reason is not None:
                self._end()
                return "pruned", f"{reason}; it reported nothing after that and was ended by force"
            try:
                message = self._pipe.recv()
            except (EOFError, OSError):
                return None
            if message[0] != "report":
                return message[0], message[1]
            if not self._send(decide(message[1], message[2])):
                return None

    def _hangs(self, claim: Claim) -> str | None:
        """Wait for a message; the spent budget, in words, where none came for long after that."""
        since = spent = time.monotonic()
        reason: str | None = None
        while not self._heard():
            now = time.monotonic()
            if reason is None:
                reason, spent = _over(claim), now
                continue
            # before anything was heard, what it had taken by then: a first epoch may need hours
            pause = self._longest or spent - since
            if now - spent >= _GRACE_SECONDS and now - since >= _GRACE_PAUSES * pause:
                return reason
        self._longest = max(self._longest, time.monotonic() - since)
        return None

    def _heard(self) -> bool:
        """Whether a message, or the end of the process, came within a while."""
        try:
            return bool(self._pipe.poll(_LOOK_SECONDS))
        except OSError:
            return True  # reading tells the same

    def _end(self) -> None:
        """End the process: asked first, then by force."""
        self._process.terminate()
        self._process.join(_TERM_SECONDS)
        self._process.kill()
        self.close()

    def _send(self, value: Any) -> bool:
        try:
            self._pipe.send(value)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let the process end."""
        if self._process is not None:
            self._pipe.close()
            self._process.join()
            self._process = None


def runner_of(objective: Any, wanted: tuple[str, ...]) -> Runner:
    """What runs an objective's trials in a worker: the runner that it makes itself (its method `runner`), as
    what runs a user's script does, else a child process a trial.
    """
    make = getattr(objective, "runner", None)
    found: Runner = ChildRunner(objective, wanted) if make is None else make(wanted)
    return found


def _over(claim: Claim) -> str | None:
    """The spent budget, in words; books that cannot be read for a moment end no trial."""
    try:
        return claim.over()
    except Exception as error:  # drivers raise their own kinds
        if isinstance(error, OSError) or lost(error):
            return None
        raise


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was killed by {signal_name(-code)}"
    return f"its process ended with status {code} and no result"
