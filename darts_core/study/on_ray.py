"""A study's trials on a Ray cluster: the books here, each trial in an actor with its processors and GPUs.

A worker is a thread here that claims trials and an actor there that runs them (`remote.Sitting`). An actor
that has no place yet waits as Ray's pending work does, so a cluster that grows by itself grows; no trial is
claimed before there is a place for it. When a node dies, its worker is lost: the trial goes on from its
last report in another actor, and nothing is counted as its failure.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from darts_core.errors import TuneError, first_line
from darts_core.study.claim import Claim
from darts_core.study.launch import Ends, RelaunchLimit, check_failures
from darts_core.study.ledger import Ledger
from darts_core.study.ray_cluster import RayCluster
from darts_core.study.records import TrialRecord
from darts_core.study.remote import LinkLost, Sitting, follow
from darts_core.study.runner import Decide, Objective, pack
from darts_core.study.worker import work

__all__ = ["run_on_ray"]

log = logging.getLogger("darts_core")

_LOOK_SECONDS = 0.5


class _Link:
    """The near end of an actor's `Sitting`."""

    def __init__(self, ray: Any, actor: Any, stop: threading.Event) -> None:
        self._ray, self._actor, self._stop = ray, actor, stop

    def placed(self) -> bool:
        """Wait until the actor has its place; False when the study ended first."""
        return self._get(self._actor.ready.remote(), waits=True) is not None

    def begin(self, facts: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        self._get(self._actor.begin.remote(facts, files))

    def next(self) -> Any:
        return self._get(self._actor.next.remote())

    def answer(self, reason: str | None) -> None:
        self._get(self._actor.answer.remote(reason))

    def _get(self, reference: Any, *, waits: bool = False) -> Any:
        """What an actor's method returned; looks up now and then for the end of the study."""
        while not self._ray.wait([reference], timeout=_LOOK_SECONDS)[0]:
            if self._stop.is_set():
                if waits:
                    return None
                raise KeyboardInterrupt("the study was stopped; its trials can be gone on with")
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError:
            raise
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            raise LinkLost(f"{type(error).__name__}: {first_line(error)}") from error

    def drop(self) -> None:
        """End the actor and what it runs."""
        with contextlib.suppress(Exception):  # it may be gone, the whole cluster too
            self._ray.kill(self._actor)


def _last_line(error: BaseException) -> str:
    return str(error).strip().rpartition("\n")[2]


class RayRunner:
    """Runs the sittings of trials in an actor; see `darts_core.study.runner.Runner`.

    Args:
        ray: the connected module.
        cluster: what a trial takes.
        packed: the objective.
        wanted: metrics of objectives and constraints.
        stop: set when the study ends.
    """

    def __init__(
        self,
        ray: Any,
        cluster: RayCluster,
        packed: bytes,
        wanted: tuple[str, ...],
        stop: threading.Event,
    ) -> None:
        self._ray, self._stop, self._arguments = ray, stop, (packed, wanted)
        # no restart by Ray: the new actor would not know its trial
        self._remote = ray.remote(
            num_cpus=cluster.num_cpus, num_gpus=cluster.num_gpus, max_restarts=0, max_concurrency=4
        )(Sitting)
        self._link: _Link | None = None

    def place(self) -> bool:
        """Get an actor that has its place; False when the study ended first.

        Raises:
            TuneError: actors die one after another, or the nodes lack the objective's modules.
        """
        limit = RelaunchLimit()
        while self._link is None:
            link = _Link(self._ray, self._remote.remote(*self._arguments), self._stop)
            try:
                if not link.placed():
                    link.drop()
                    return False
                self._link = link
            except self._ray.exceptions.RayTaskError as error:
                link.drop()
                raise TuneError(
                    f"A node of the cluster cannot load what its trials run ({_last_line(error)}); "
                    "install it there, or send your code along: runtime_env={working_dir: .}."
                ) from error
            except LinkLost as lost:
                log.warning("a worker on Ray was lost before it began (%s)", lost)
                limit.death(0, str(lost))
        return True

    def run(self, claim: Claim, decide: Decide) -> tuple[str, Any]:
        """One sitting of a trial, begun again elsewhere when its node is lost.

        Raises:
            TuneError: workers are lost one after another without anything new to report.
        """
        limit = RelaunchLimit()
        while True:
            if not self.place():
                raise KeyboardInterrupt("the study was stopped; its trials can be gone on with")
            assert self._link is not None
            try:
                return follow(self._link, claim, decide)
            except LinkLost as lost:
                # one that is only out of reach must not run on
                self.close()
                limit.death(claim.lease.epochs, str(lost))
                log.warning(
                    "trial %d: its worker on Ray was lost (%s); it goes on from its last report",
                    claim.number,
                    lost,
                )
                claim.restart(died=False)
                if self.place():
                    # waiting for a place is not the trial's time
                    claim.since = time.monotonic()
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """End the actor."""
        if self._link is not None:
            self._link.drop()
            self._link = None


def run_on_ray(
    ledger: Ledger,
    objective: Objective,
    workers: int,
    cluster: RayCluster,
    *,
    on_trial: Callable[[TrialRecord], None] | None = None,
    look: Callable[[], None] = lambda: None,
) -> None:
    """Run trials on the cluster, up to `workers` at a time, until none is left.

    Args:
        ledger: the study.
        objective: picklable; the nodes have its module, or `runtime_env` sends it.
        workers: how many.
        cluster: where.
        on_trial: called here with each trial that ends.
        look: called now and then; may raise, which ends the actors.

    Raises:
        TuneError: too many failed trials, workers keep dying, the objective cannot be pickled, or there is no
            cluster.
    """
    packed = pack(objective)
    ends = Ends(ledger, on_trial)
    errors: list[BaseException] = []
    stop = threading.Event()
    with cluster.connected() as ray:
        log.info("up to %d trials at a time on Ray, %s", workers, _described(ray))

        def body() -> None:
            runner = RayRunner(ray, cluster, packed, ledger.spec.wanted, stop)
            try:
                if runner.place():
                    work(ledger.spec, runner, say=False)
            except BaseException as error:  # raised again below, in the thread that waits
                errors.append(error)
            finally:
                runner.close()

        threads = [threading.Thread(target=body, name=f"ray-{i}") for i in range(workers)]
        try:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads) and not errors:  # one ends them all
                time.sleep(_LOOK_SECONDS)
                look()
                ends.tell()
                if not ledger.unfinished():
                    break
        finally:
            stop.set()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
    ends.tell()
    for error in errors:
        # what a worker says of the stop is its consequence
        if not isinstance(error, KeyboardInterrupt):
            raise error
    check_failures(ledger)


def _described(ray: Any) -> str:
    """Nodes, processors and GPUs as they are now."""
    alive = [node for node in ray.nodes() if node.get("Alive")]
    there = ray.cluster_resources()
    return (
        f"{len(alive)} node{'s' if len(alive) != 1 else ''} with {there.get('CPU', 0):g} CPUs and "
        f"{there.get('GPU', 0):g} GPUs"
    )
