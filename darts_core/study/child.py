"""The process of a trial, and how its worker talks to it: reports up, decisions down a pipe."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from darts_core.errors import TuneError
from darts_core.study.claim import Claim
from darts_core.study.trial import TrialHandle, inside

__all__ = ["TrialRunner", "child_main"]

Decide = Callable[[int, dict[str, float]], "str | None"]


class TrialRunner:
    """Runs the sittings of trials in processes other than this one.

    Each trial gets a new process, unless the objective has a true attribute `reuse_process`: then
    the process of a trial that ended well also runs the next one, which saves its imports and its
    loading of data.
    """

    def __init__(self, context: Any, objective: Any, wanted: tuple[str, ...]) -> None:
        self._context, self._objective, self._wanted = context, objective, wanted
        self._reuse = bool(getattr(objective, "reuse_process", False))
        self._process: Any = None
        self._pipe: Any = None

    def run(self, claim: Claim, decide: Decide) -> tuple[str, Any]:
        """One sitting of a trial, its reports relayed to `decide`.

        Returns:
            What `call_objective` returned there, or ("died", how).

        Raises:
            TuneError: the objective cannot be sent to another process.
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
            ending = self._talk(facts, decide)
        except BaseException:
            self._process.kill()
            self.close()
            raise
        if ending is None:
            self._process.join()
            ending = ("died", _how(self._process.exitcode))
        if not self._reuse or ending[0] not in ("returned", "pruned"):
            self.close()
        return ending

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        process = self._context.Process(target=child_main, args=(theirs, self._objective))
        try:
            process.start()
        except (AttributeError, TypeError, ImportError) as error:
            raise TuneError(
                f"The objective {self._objective!r} cannot run in another process ({error}); use a "
                "function at the top level of a module, or workers=1."
            ) from error
        finally:
            theirs.close()
        self._process = process

    def _talk(self, facts: dict[str, Any], decide: Decide) -> tuple[str, Any] | None:
        try:
            self._pipe.send(facts)
            while True:
                message = self._pipe.recv()
                if message[0] != "report":
                    return message[0], message[1]
                self._pipe.send(decide(message[1], message[2]))
        except (EOFError, OSError):
            return None

    def close(self) -> None:
        """Let the process end."""
        if self._process is not None:
            self._pipe.close()
            self._process.join()
            self._process = None


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    return f"its process ended with status {code} and no result"


def child_main(pipe: Any, objective: Any) -> None:
    """The body of a trial's process: runs what the pipe names until it closes, or the worker ends."""
    from darts_core.study.resources import limit_threads
    from darts_core.study.worker import call_objective, end_with_parent

    end_with_parent()
    # Ctrl-C reaches the whole terminal group; the worker decides what becomes of its trial
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit_threads()

    def decide(epoch: int, metrics: dict[str, Any]) -> str | None:
        pipe.send(("report", epoch, metrics))
        answer: str | None = pipe.recv()
        return answer

    while True:
        try:
            facts = pipe.recv()
        except EOFError:
            # a process that ran torch or CUDA may hang in its clean-up; all results are delivered
            os._exit(0)
        handle = TrialHandle(**facts, decide=decide)
        with inside(handle):
            kind, content = call_objective(objective, handle)
        try:
            pipe.send((kind, _plain(content)))
        except OSError:
            os._exit(0)  # the worker is gone; whoever takes the trial over finds its checkpoint


def _plain(content: Any) -> Any:
    """Numbers of other libraries as Python's own, so that the worker need not import them."""
    from darts_core.runlog import plain

    return plain(content, keep_nan=True) if isinstance(content, dict) else content
