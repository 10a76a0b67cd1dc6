"""A trial in the hands of a worker: its Optuna trial, folder, parameters, and the lease it renews."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darts_core.study.database import lost
from darts_core.study.lease import BEAT_SECONDS, Lease, Leases

__all__ = ["Claim", "LeaseLost"]


class LeaseLost(Exception):
    """Another worker took this trial over (ours was taken for dead); drop it."""


@dataclass
class Claim:
    """A trial that this worker runs. `since` is the monotonic time at which this sitting began.

    `pauses` is set when the trial waits at a rung from here on, instead of having ended; `share` is the
    part of a device that a trial has while all workers run; `row` is what the runner wants kept beside
    the books' own record of the trial's end; `together` does several things to the books at once.
    """

    trial: Any
    folder: Path
    lease: Lease
    leases: Leases
    params: dict[str, Any]
    seed: int
    since: float
    is_baseline: bool = False
    share: float = 1.0
    pauses: bool = False
    row: dict[str, Any] = field(default_factory=dict)
    over: Callable[[], str | None] = lambda: None
    together: Callable[[Callable[[], None]], None] = lambda step: step()
    _writing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def number(self) -> int:
        """The trial's number in the study."""
        return int(self.trial.number)

    @property
    def resumed(self) -> bool:
        """Whether an earlier sitting was interrupted."""
        return self.lease.attempt > 1

    @property
    def earlier_seconds(self) -> float:
        """Device-seconds of the sittings before this one."""
        return self.lease.seconds

    def seconds(self) -> float:
        """Device-seconds so far, over all sittings."""
        return self.lease.seconds + self.share * (time.monotonic() - self.since)

    def check(self) -> None:
        """See that the trial is still ours.

        Raises:
            LeaseLost: the lease carries another worker's token.
        """
        if not self._ours():
            raise LeaseLost(f"trial {self.number} is run by another worker now")

    def _ours(self) -> bool:
        current = self.leases.read(self.number)
        return current is not None and current.token == self.lease.token

    def renew(self, epochs: int = 0) -> None:
        """Write the lease anew, with at least `epochs` epochs done.

        Raises:
            LeaseLost: the file carries another worker's token.
        """

        def renewed() -> None:
            # in this order: who writes has its connection, and waits for nobody
            with self._writing:
                self.check()
                self.lease.epochs = max(self.lease.epochs, epochs)
                snapshot = Lease(**vars(self.lease))
                snapshot.seconds = self.seconds()
                self.leases.write(self.number, snapshot)

        self.together(renewed)

    def restart(self, *, died: bool = True) -> None:
        """Begin another sitting in the same worker.

        Args:
            died: the trial's own process died, rather than the host that ran it.
        """
        with self._writing:
            self.lease.seconds = self.seconds()
            self.lease = self.lease.successor(died=died)

        def written() -> None:
            with self._writing:
                self.leases.write(self.number, self.lease)

        self.together(written)
        self.since = time.monotonic()

    def release(self) -> None:
        """Let anybody go on with this trial; a stop on request is not counted as a death."""

        def released() -> None:
            with self._writing:
                if self._ours():
                    self.lease.seconds = self.seconds()
                    self.lease.start, self.lease.epochs_before = None, -1
                    self.leases.write(self.number, self.lease)

        self.together(released)

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """Renew the lease in the background for the block."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(BEAT_SECONDS):
                try:
                    self.renew()
                except LeaseLost:
                    return  # the next report meets the same and ends the trial
                except OSError:
                    # a disk that was full for a moment: without further beats, other hosts would take the
                    # trial for a dead worker's while it runs
                    continue
                except Exception as error:  # drivers raise their own kinds
                    if not lost(error):
                        raise

        thread = threading.Thread(target=beat, daemon=True, name=f"lease-{self.number}")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
