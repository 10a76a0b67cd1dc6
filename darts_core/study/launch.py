"""Local worker processes of a study: started, watched, started again when they die."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing.connection
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from darts_core.errors import TuneError
from darts_core.study.accounts import Tally
from darts_core.study.ledger import Ledger
from darts_core.study.records import TrialRecord
from darts_core.study.resources import device_of
from darts_core.study.runner import (
    Objective,
    check_guarded,
    pack,
    start_process,
    worker_context,
)
from darts_core.study.worker import worker_main

__all__ = ["Ends", "RelaunchLimit", "check_failures", "left", "run_workers", "watching"]

log = logging.getLogger("darts_core")
OnTrial = Callable[[TrialRecord], None]

# workers that die this often in a row, without one trial ending in between, are not worth more
_RELAUNCHES = 5
_LOOK_SECONDS = 1.0
# between two looks at trials that other hosts run
_WAIT_SECONDS = 2.0


class RelaunchLimit:
    """Counts worker deaths since a trial last ended."""

    def __init__(self, limit: int = _RELAUNCHES) -> None:
        self.limit = limit
        self._deaths = 0
        self._ended = -1

    def death(self, ended: int, how: str) -> None:
        """Note a death, when `ended` trials had come to their end.

        Raises:
            TuneError: too many in a row.
        """
        if ended > self._ended:
            self._ended, self._deaths = ended, 0
        self._deaths += 1
        if self._deaths > self.limit:
            raise TuneError(
                f"Workers died {self._deaths} times in a row without finishing a trial (the last "
                f"one: {how}); look at the log above, then run the same command to continue."
            )


class Ends:
    """Tells of each trial that ends from now on; `seen` holds the numbers of those that have ended."""

    def __init__(self, ledger: Ledger, on_trial: OnTrial | None = None) -> None:
        self._ledger, self._on_trial = ledger, on_trial
        self.seen = {t.number for t in ledger.trials() if t.state.is_finished()}

    def tell(self) -> None:
        """Log each trial that has ended since, and pass its record on."""
        for trial in self._ledger.trials():
            if trial.state.is_finished() and trial.number not in self.seen:
                self.seen.add(trial.number)
                record = self._ledger.record(trial)
                log.info("trial %d: %s, %s", record.number, record.state, record.reason)
                if self._on_trial is not None:
                    self._on_trial(record)


def check_failures(ledger: Ledger) -> None:
    """See `Tally.check_failures` and `Tally.check_reported`."""
    trials = ledger.trials()
    tally = Tally().add(trials)
    tally.check_failures(trials, ledger.spec.max_failure_share, ledger.spec.hopeless)
    if ledger.spec.counts_epochs:
        epochs = ledger.spec.budget.epochs or 0
        # leases may lie in a database, whose connection is lost at times
        ledger.books.run(lambda: tally.check_reported(epochs, ledger.leases.read))


def run_workers(
    ledger: Ledger,
    objective: Objective,
    workers: int,
    *,
    on_trial: OnTrial | None = None,
) -> None:
    """Keep up to `workers` processes running until no trial is left to run.

    Args:
        ledger: the study.
        objective: picklable.
        workers: how many.
        on_trial: called with each trial that ends.

    Raises:
        TuneError: too many failed trials, workers keep dying, the objective cannot be pickled, or the user's
            script starts the study in each worker anew.
    """
    ends, limit = Ends(ledger, on_trial), RelaunchLimit()
    context, packed = worker_context(objective), pack(objective)
    device = device_of(objective)
    log.info("starting %d local worker processes, one trial each at a time", workers)
    alive: dict[int, Any] = {}
    try:
        for index in range(workers):
            alive[index] = _launch(context, ledger, packed, index, device)
        while alive:
            sentinels = {process.sentinel: index for index, process in alive.items()}
            ready = multiprocessing.connection.wait(list(sentinels), timeout=_LOOK_SECONDS)
            ends.tell()
            for sentinel in ready:
                index = sentinels[sentinel]  # type: ignore[index]
                process = alive.pop(index)
                process.join()
                if process.exitcode == 0 or not ledger.unfinished():
                    continue
                check_guarded(process.exitcode)
                check_failures(ledger)
                limit.death(len(ends.seen), f"status {process.exitcode}")
                log.warning("worker %d died (status %s); relaunched", index, process.exitcode)
                alive[index] = _launch(context, ledger, packed, index, device)
            if not alive and ledger.unfinished() and not ledger.held():
                # the last worker left while another's trial was running, and that one died since
                alive[0] = _launch(context, ledger, packed, 0, device)
    finally:
        for process in alive.values():
            process.kill()
            process.join()
    ends.tell()
    check_failures(ledger)


def left(ledger: Ledger) -> bool:
    """Whether trials are left to run here; waits while live workers of other hosts hold all that is left.

    One of these may be gone without a word: then its trial goes on here.
    """
    said = False
    while held := ledger.held():
        if not said:
            numbers = ", ".join(map(str, held))
            log.info(
                "nothing is left but trials that run elsewhere (%s); their end is waited for",
                numbers,
            )
            said = True
        time.sleep(_WAIT_SECONDS)
    return ledger.unfinished()


@contextlib.contextmanager
def watching(ledger: Ledger) -> Iterator[None]:
    """Log each trial that ends during the block, whoever runs it; for blocking launchers."""
    ends, stop = Ends(ledger), threading.Event()

    def watch() -> None:
        while not stop.wait(_LOOK_SECONDS):
            ends.tell()

    thread = threading.Thread(target=watch, daemon=True, name="trial-watch")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        ends.tell()


def _launch(context: Any, ledger: Ledger, packed: bytes, index: int, device: str) -> Any:
    return start_process(context, worker_main, (ledger.spec, packed, index, device))
