"""Ctrl-C and SIGTERM: in a training loop they wait for the next checkpoint, elsewhere they act at once."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from darts_core.distributed import Group

__all__ = ["check_stop", "deferred_stop", "handle_signals", "stop_wanted"]

log = logging.getLogger("darts_core")


class _State:
    """What the signal handler leaves for the loop; one per process, as signals are."""

    deferring = 0
    requested: str | None = None
    raised = False


def _on_signal(number: int, frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    at_once = _State.deferring == 0 or _State.requested is not None
    # compiled code (an import, a callback) may swallow what is raised here: the next loop then stops
    _State.requested = name
    if at_once:
        _State.raised = True
        raise _stopped()
    log.info("%s: stopping at the next checkpoint; once more to stop at once", name)


def _stopped() -> KeyboardInterrupt:
    return KeyboardInterrupt(f"{_State.requested}: what was saved last is kept.")


@contextmanager
def handle_signals() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C while the block runs (main thread only; elsewhere nothing changes).

    Raises:
        KeyboardInterrupt: a signal arrived; also where compiled code turned it into an error of its own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.signal(s, _on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except Exception as error:
        if _State.raised:
            raise _stopped() from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _State.requested = None
        _State.raised = False


@contextmanager
def deferred_stop() -> Iterator[None]:
    """A block that calls `check_stop` after each checkpoint: a first signal waits for that call."""
    _State.deferring += 1
    try:
        yield
    finally:
        _State.deferring -= 1


def stop_wanted() -> bool:
    """Whether a signal arrived and waits for the next checkpoint."""
    return _State.requested is not None


def check_stop(group: Group | None = None) -> None:
    """Call right after a checkpoint is safe on disk; of a group in all processes.

    Raises:
        KeyboardInterrupt: a signal arrived since the block began, in whichever process.
    """
    wanted = stop_wanted()
    if wanted if group is None else group.agree(wanted):
        raise KeyboardInterrupt(f"{_State.requested or 'stopped'}: a checkpoint is saved.")
