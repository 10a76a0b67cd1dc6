"""A worker: claims trials of a study and runs them, one after another, until nothing is left to do.

A trial whose own process is killed leaves the worker alive, which starts it again from its checkpoint. A
worker that is killed leaves its trial to whoever claims next.
"""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import sys
import time
from collections.abc import Callable
from typing import Any

from darts_core.errors import TuneError, disk_failure, sentence_of
from darts_core.study.child import end_with_parent
from darts_core.study.claim import Claim, LeaseLost
from darts_core.study.ledger import Ledger
from darts_core.study.records import TrialRecord
from darts_core.study.resources import pin_worker
from darts_core.study.runner import ChildRunner, Runner
from darts_core.study.spec import StudySpec

__all__ = ["work", "worker_main"]

log = logging.getLogger("darts_core")

_LOOK_SECONDS = 0.5
OnTrial = Callable[[TrialRecord], None]


def worker_main(spec: StudySpec, packed: bytes, index: int, device: str = "auto") -> None:
    """The body of a worker process; ends with its parent."""
    end_with_parent()
    # before the objective is unpacked, which may hold tensors
    pin_worker(index, device)
    objective = pickle.loads(packed)  # what its own parent packed
    try:
        work(spec, ChildRunner(objective, spec.wanted))
    except (TuneError, OSError) as error:
        if not isinstance(error, TuneError) and disk_failure(error) is None:
            raise
        log.error("worker %d stops: %s", index, sentence_of(error))
        sys.exit(3)


def work(
    spec: StudySpec,
    runner: Runner,
    *,
    on_trial: OnTrial | None = None,
    limit: int | None = None,
    say: bool = True,
) -> int:
    """Run trials until the budget is spent or another worker holds the rest; how many were ended.

    Args:
        spec: the study.
        runner: runs the trials; closed at the end.
        on_trial: called with the record of each trial that this worker ends.
        limit: most trials to end here.
        say: log the end of each trial, where the starter of this worker does not.

    Raises:
        TuneError: too large a share of the trials failed.
        OSError: the disk is full or faulty; the trial stays open.
    """
    ledger = Ledger(spec)
    count = 0
    try:
        while count != limit and (claim := _next_claim(ledger)) is not None:
            record = _run_one(ledger, claim, runner)
            if record is None or record.state == "paused":
                continue
            count += 1
            _tell(record, on_trial, say)
        for record in ledger.end_paused() if count != limit else ():
            count += 1
            _tell(record, on_trial, say)
    finally:
        runner.close()
    return count


def _next_claim(ledger: Ledger) -> Claim | None:
    """A claim, waited for while trials of other workers may let a paused one go on."""
    while (claim := ledger.claim()) is None and ledger.may_promote():
        time.sleep(_LOOK_SECONDS)
    return claim


def _tell(record: TrialRecord, on_trial: OnTrial | None, say: bool) -> None:
    if say and multiprocessing.parent_process() is None:  # else the starter of this worker says it
        log.info("trial %d: %s, %s", record.number, record.state, record.reason)
    if on_trial is not None:
        on_trial(record)


def _run_one(ledger: Ledger, claim: Claim, runner: Runner) -> TrialRecord | None:
    """Bring one claimed trial to its end; None when another worker has taken it over."""
    try:
        with claim.beating():
            ending = _sittings(ledger, claim, runner)
        return close(ledger, claim, *ending)
    except LeaseLost as lost:
        log.warning("%s", lost)
        return None
    except BaseException:
        claim.release()
        raise


def close(ledger: Ledger, claim: Claim, kind: str, content: Any) -> TrialRecord:
    """Enter the end of a trial into the books."""
    if kind == "returned":
        return ledger.complete(claim, content)
    if kind == "pruned":
        return ledger.end(claim, "pruned", content)
    sentence, trace = content
    return ledger.end(claim, "fail", sentence, trace=trace)


def _sittings(ledger: Ledger, claim: Claim, runner: Runner) -> tuple[str, Any]:
    """Run sittings until one of them brings the trial to its end; how."""
    while True:
        ending = runner.run(claim, lambda epoch, row: ledger.report(claim, epoch, row))
        if ending[0] == "disk":
            # the trial is left open: the same command goes on with it once the disk is mended
            raise OSError(*ending[1])
        if ending[0] != "died":
            return ending
        claim.restart()
        times = claim.lease.idle
        if times > ledger.spec.max_restarts:
            reason = f"its process died {times} times without reporting anything new ({ending[1]})"
            return "raised", (reason, None)
        log.warning(
            "trial %d: %s; it is started again from its checkpoint", claim.number, ending[1]
        )
