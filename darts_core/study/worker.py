"""A worker: claims trials of a study and runs them, one after another, until nothing is left to do.

With `isolate` each trial runs in a process of its own: a trial that is killed, or that takes its
process down, leaves the worker alive, which starts it again from its checkpoint.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from darts_core.errors import TuneError
from darts_core.study.child import TrialRunner
from darts_core.study.claim import Claim, LeaseLost
from darts_core.study.ledger import Ledger
from darts_core.study.records import TrialRecord
from darts_core.study.resources import pin_worker
from darts_core.study.spec import StudySpec
from darts_core.study.trial import Pruned, TrialHandle, inside

__all__ = ["Objective", "work", "worker_context", "worker_main"]

log = logging.getLogger("darts_core")

_LOOK_SECONDS = 0.5
Objective = Callable[[TrialHandle], Any]
OnTrial = Callable[[TrialRecord], None]


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
    context.set_forkserver_preload(["darts_core.study.child", module, *more])
    return context


def worker_main(spec: StudySpec, objective: Objective, index: int) -> None:
    """The body of a worker process; ends with its parent."""
    pin_worker(index)
    end_with_parent()
    try:
        work(spec, objective, isolate=True)
    except TuneError as error:
        log.error("worker %d stops: %s", index, error)
        sys.exit(3)


def end_with_parent() -> None:
    """Make this process exit when the one that started it is gone, however that died."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(4)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def work(
    spec: StudySpec,
    objective: Objective,
    *,
    isolate: bool,
    on_trial: OnTrial | None = None,
) -> int:
    """Run trials until the budget is spent or another worker holds the rest; how many were ended.

    Raises:
        TuneError: too large a share of the trials failed.
    """
    ledger = Ledger(spec)
    runner = TrialRunner(worker_context(objective), objective, spec.wanted) if isolate else None
    count = 0
    try:
        while (claim := _next_claim(ledger)) is not None:
            record = _run_one(ledger, claim, objective, runner)
            if record is None or record.state == "paused":
                continue
            count += 1
            _say(record, on_trial)
        for record in ledger.end_paused():
            count += 1
            _say(record, on_trial)
    finally:
        if runner is not None:
            runner.close()
    return count


def _next_claim(ledger: Ledger) -> Claim | None:
    """A claim, waited for while trials of other workers may let a paused one go on."""
    while (claim := ledger.claim()) is None and ledger.may_promote():
        time.sleep(_LOOK_SECONDS)
    return claim


def _say(record: TrialRecord, on_trial: OnTrial | None) -> None:
    if multiprocessing.parent_process() is None:  # else the starter of this worker says it
        log.info("trial %d: %s, %s", record.number, record.state, record.reason)
    if on_trial is not None:
        on_trial(record)


def _run_one(
    ledger: Ledger, claim: Claim, objective: Objective, runner: TrialRunner | None
) -> TrialRecord | None:
    """Bring one claimed trial to its end; None when another worker has taken it over."""
    try:
        if runner is None:
            return _here(ledger, claim, objective)
        return _isolated(ledger, claim, runner)
    except LeaseLost as lost:
        log.warning("%s", lost)
        return None
    except BaseException:
        claim.release()
        raise


def _here(ledger: Ledger, claim: Claim, objective: Objective) -> TrialRecord:
    """Run the objective in this process."""
    handle = TrialHandle(
        claim.number,
        claim.params,
        claim.folder,
        seed=claim.seed,
        resumed=claim.resumed,
        decide=lambda epoch, metrics: ledger.report(claim, epoch, metrics),
        wanted=ledger.spec.wanted,
    )
    with claim.beating(), inside(handle):
        kind, content = call_objective(objective, handle)
    return close(ledger, claim, kind, content)


def call_objective(objective: Objective, handle: TrialHandle) -> tuple[str, Any]:
    """("returned", outcome), ("pruned", reason) or ("raised", (sentence, traceback))."""
    try:
        return "returned", objective(handle)
    except Pruned as pruned:
        return "pruned", str(pruned)
    except (LeaseLost, KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:  # whatever a trial raises, the sweep goes on
        return "raised", (f"{type(error).__name__}: {error}", traceback.format_exc())


def close(ledger: Ledger, claim: Claim, kind: str, content: Any) -> TrialRecord:
    """Enter the end of a trial into the books."""
    if kind == "returned":
        return ledger.complete(claim, content)
    if kind == "pruned":
        return ledger.end(claim, "pruned", content)
    sentence, trace = content
    return ledger.end(claim, "fail", sentence, trace=trace)


def _isolated(ledger: Ledger, claim: Claim, runner: TrialRunner) -> TrialRecord:
    """Run sittings in other processes until one of them brings the trial to its end."""
    with claim.beating():
        while True:
            ending = runner.run(claim, lambda epoch, row: ledger.report(claim, epoch, row))
            if ending[0] != "died":
                break
            claim.restart()
            if claim.lease.idle > ledger.spec.max_restarts:
                times = claim.lease.idle
                reason = f"its process died {times} times without reporting anything new"
                ending = ("raised", (f"{reason} ({ending[1]})", None))
                break
            log.warning(
                "trial %d: %s; it is started again from its checkpoint", claim.number, ending[1]
            )
    return close(ledger, claim, *ending)
