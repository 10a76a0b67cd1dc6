"""Slurm's warning before a job ends, met where everything is saved."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from functools import cached_property
from types import FrameType
from typing import Any

__all__ = ["Preemption"]

log = logging.getLogger("darts_core")


class Preemption:
    """submitit's signal (SIGUSR2; SUBMITIT_PREEMPT_SIGNAL names another) as a request to leave.

    submitit's own handler saves the call, asks Slurm to queue it again and exits at once. Here it is
    called by `leave`, at a moment when everything is saved, or when the grace period is nearly over.

    Args:
        grace_seconds: between the signal and the end.
        ask: called when the signal arrives.
    """

    def __init__(self, grace_seconds: float, ask: Callable[[], object] = lambda: None) -> None:
        self.asked = False
        self._ask, self._patience = ask, grace_seconds / 2
        self._requeue: Any = None

    @cached_property
    def _number(self) -> signal.Signals:
        import submitit

        return signal.Signals[f"SIG{submitit.JobEnvironment.USR_SIG}"]

    @contextlib.contextmanager
    def ignored(self) -> Iterator[None]:
        """Ignore the signal in the block; what is started there ignores it for good.

        Slurm sends it to every process of a job, and it ends those that do not know it.
        """
        before = signal.signal(self._number, signal.SIG_IGN)
        try:
            yield
        finally:
            signal.signal(self._number, before)

    @contextlib.contextmanager
    def watched(self) -> Iterator[Preemption]:
        """Meet the signal in the block (main thread of a job)."""
        self._requeue = signal.signal(self._number, self._told)
        before = signal.signal(signal.SIGALRM, self._late)
        try:
            yield self
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            signal.signal(self._number, self._requeue)

    def _told(self, number: int, frame: FrameType | None) -> None:
        if not self.asked:
            self.asked = True
            log.info("%s: this job leaves when what runs is saved", signal.Signals(number).name)
            signal.setitimer(signal.ITIMER_REAL, self._patience)
            self._ask()

    def _late(self, number: int, frame: FrameType | None) -> None:
        log.info("nothing more was saved in %g seconds: this job leaves", self._patience)
        self.leave()

    def leave(self) -> None:
        """Queue this job again and end it, if it was asked to.

        Raises:
            SystemExit: always when it was asked.
        """
        if self.asked:
            self._requeue(self._number, None)
