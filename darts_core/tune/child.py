"""The process of one trial, and how its worker talks to it: reports up, decisions down a pipe."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from darts_core.errors import TuneError
from darts_core.tune.claim import Claim
from darts_core.tune.trial import TrialHandle, inside

__all__ = ["child_main", "run_child"]

Decide = Callable[[int, dict[str, float]], "str | None"]


def run_child(
    context: Any, objective: Any, claim: Claim, decide: Decide, wanted: tuple[str, ...]
) -> tuple[str, Any]:
    """Run one sitting of a trial in a process of its own and relay its reports.

    Returns:
        What `call_objective` returned there, or ("died", how).

    Raises:
        TuneError: the objective cannot be sent to another process.
    """
    here, there = context.Pipe()
    facts = {
        "number": claim.number,
        "params": claim.params,
        "folder": claim.folder,
        "seed": claim.seed,
        "resumed": claim.resumed,
        "wanted": wanted,
    }
    process = context.Process(target=child_main, args=(there, objective, facts), daemon=False)
    try:
        process.start()
    except (AttributeError, TypeError, ImportError) as error:
        raise TuneError(
            f"The objective {objective!r} cannot run in another process ({error}); use a function "
            "at the top level of a module, or workers=1."
        ) from error
    there.close()
    try:
        ending = _relay(here, decide)
    except BaseException:
        process.kill()
        process.join()
        raise
    finally:
        here.close()
    process.join()
    return ending or ("died", _how(process.exitcode))


def _relay(here: Connection, decide: Decide) -> tuple[str, Any] | None:
    while True:
        try:
            message = here.recv()
        except (EOFError, OSError):
            return None
        if message[0] != "report":
            return message[0], message[1]
        answer = decide(message[1], message[2])
        try:
            here.send(answer)
        except OSError:
            return None


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    return f"its process ended with status {code} and no result"


def child_main(pipe: Connection, objective: Any, facts: dict[str, Any]) -> None:
    """The body of a trial's process; ends with its worker."""
    from darts_core.tune.resources import limit_threads
    from darts_core.tune.worker import call_objective, end_with_parent

    end_with_parent()
    # Ctrl-C reaches the whole terminal group; the worker decides what becomes of its trial
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit_threads()

    def decide(epoch: int, metrics: dict[str, Any]) -> str | None:
        pipe.send(("report", epoch, metrics))
        answer: str | None = pipe.recv()
        return answer

    handle = TrialHandle(**facts, decide=decide)
    with inside(handle):
        kind, content = call_objective(objective, handle)
    pipe.send((kind, _plain(content)))
    pipe.close()
    # a process that ran torch or CUDA may hang in its clean-up; the result is already with the worker
    os._exit(0)


def _plain(content: Any) -> Any:
    """Numbers of other libraries as Python's own, so that the worker need not import them."""
    from darts_core.runlog import plain

    return plain(content, keep_nan=True) if isinstance(content, dict) else content
