"""The process of a trial: reports up, decisions down a pipe, and it ends with its worker."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from typing import Any

from darts_core.errors import disk_failure
from darts_core.study.claim import LeaseLost
from darts_core.study.resources import limit_threads
from darts_core.study.trial import Pruned, TrialHandle, inside, unboxed

__all__ = ["call_objective", "child_main", "end_with_parent"]


def end_with_parent() -> None:
    """Make this process exit when the one that started it is gone, however that died."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(4)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def call_objective(objective: Callable[[TrialHandle], Any], handle: TrialHandle) -> tuple[str, Any]:
    """("returned", outcome), ("pruned", reason), ("raised", (sentence, traceback)), or, for a full or faulty
    disk, which is no trial's failure, ("disk", arguments of the OSError).
    """
    try:
        return "returned", objective(handle)
    except Pruned as pruned:
        return "pruned", str(pruned)
    except (LeaseLost, KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:  # whatever a trial raises, the sweep goes on
        disk = disk_failure(error)
        if disk is not None:
            return "disk", (disk.errno, disk.strerror, str(disk.filename or "a file of a trial"))
        return "raised", (f"{type(error).__name__}: {error}", traceback.format_exc())


def child_main(pipe: Any, packed: bytes) -> None:
    """The body of a trial's process: runs what the pipe names until it closes, or the worker ends."""
    end_with_parent()
    # Ctrl-C reaches the whole terminal group; the worker decides what becomes of its trial
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    objective = pickle.loads(packed)  # what its own parent packed
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

    if isinstance(content, dict):
        return plain({name: unboxed(value) for name, value in content.items()}, keep_nan=True)
    return unboxed(content)
