"""A job's trials on the nodes of a cluster: what these are sent, and what is made of it there.

A node makes a workshop of its own and runs trials as the job's own machine does: a process tree each, with
its limits. On Slurm it works in the version's folder; on Ray the code is sent along, and a trial's files
come back with its reports.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

from darts_core.autosearch.costs import set_aside
from darts_core.autosearch.script_runner import ScriptRunner
from darts_core.autosearch.spec import SearchSpec
from darts_core.autosearch.trials import (
    GIVEN_GPU,
    Row,
    UserCode,
    Workshop,
    clear_of_other_settings,
)
from darts_core.store.keeper import start_keeper
from darts_core.study.calls import run_calls
from darts_core.study.engines import Elsewhere
from darts_core.study.ray_cluster import RayCluster
from darts_core.study.remote import Files, changed_files, store_files
from darts_core.study.results import trials_folder
from darts_core.study.runner import Runner

__all__ = ["JobThere", "ScriptTrials", "run_there"]


@dataclass(frozen=True)
class JobThere:
    """What a node needs of a job to run trials.

    Args:
        version: the version's folder, which the node sees where it is not sent files.
        code: the user's code.
        mark: of the job.
        metrics: objectives of other steps.
        device: of a trial on a node.
        files: of the code, where the node does not see it.
    """

    version: Path
    code: UserCode
    mark: str
    metrics: tuple[str, ...]
    device: str
    files: Files | None = None

    @classmethod
    def of(cls, workshop: Workshop, place: Elsewhere) -> JobThere:
        """The job of a workshop."""
        ships = isinstance(place, RayCluster)
        gpus = place.num_gpus if isinstance(place, RayCluster) else place.gpus
        return cls(
            workshop.version,
            workshop.code,
            workshop.mark,
            workshop.metrics,
            GIVEN_GPU if gpus else "cpu",
            changed_files(workshop.code.code_dir, {}) if ships else None,
        )

    def workshop(self) -> Workshop:
        """The job's workshop on this node; what it starts ends with this process."""
        # several nodes may be one machine: what one of them leaves behind is not the others'
        own = f"{self.mark}/{uuid.uuid4().hex[:8]}"
        start_keeper(own)
        version, code = self.version, self.code
        if self.files is not None:
            version = Path(tempfile.mkdtemp(prefix="darts-job-"))
            store_files(version / "code", self.files)
            boot = version / "code" / code.boot_file.relative_to(code.code_dir)
            code = replace(code, code_dir=version / "code", boot_file=boot)
        made = Workshop(
            version,
            code,
            devices=(self.device,),
            mark=self.mark,
            process_mark=own,
            metrics=self.metrics,
        )
        made.moves = self.files is not None
        return made


@dataclass(frozen=True)
class ScriptTrials:
    """The trials of a step, in the place of a study's objective: makes the runner on a node."""

    job: JobThere
    spec: SearchSpec
    step: str
    fixed: dict[str, Any] = field(default_factory=dict)
    rungs: tuple[int, ...] = ()

    def runner(self, wanted: tuple[str, ...]) -> Runner:
        """The runner of a worker there."""
        return ScriptRunner(
            self.spec, self.job.workshop(), step=self.step, fixed=self.fixed, rungs=self.rungs
        )


@dataclass(frozen=True)
class _OneThere:
    """One trial that belongs to no study, such as a confirming run; called on a node."""

    job: JobThere
    spec: SearchSpec
    number: int
    configuration: dict[str, Any]
    options: dict[str, Any]
    name: str
    files: Files

    def __call__(self, _: int) -> tuple[Row, Files]:
        """Its row, and the files that changed where they have to be sent back."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _interrupt)
        workshop = self.job.workshop()
        if self.job.files is None:
            return self._run(workshop), {}
        folder, seen = trials_folder(workshop.version) / self.name, dict[str, tuple[int, int]]()
        try:
            folder.mkdir(parents=True)
            store_files(folder, self.files)
            changed_files(folder, seen)
            return self._run(workshop), changed_files(folder, seen)
        finally:
            # outputs and checkpoints would fill the node's disk
            shutil.rmtree(workshop.version, ignore_errors=True)

    def _run(self, workshop: Workshop) -> Row:
        return workshop.run_one(self.spec, self.number, self.configuration, **self.options)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def run_there(
    workshop: Workshop,
    place: Elsewhere,
    spec: SearchSpec,
    number: int,
    configuration: dict[str, Any],
    options: dict[str, Any],
) -> Row:
    """`Workshop.run_one` on a node of the cluster; the trial's row.

    Args:
        workshop: the job's.
        place: the cluster.
        spec: of the search.
        number: of the trial.
        configuration: of the trial.
        options: of `run_one`.

    Raises:
        TuneError: see `run_calls`.
        StopWanted: a stop was asked for.
    """
    seed = options.get("seed")
    name = workshop.trial_id(
        options["step"], options.get("phase", "search"), number, spec.seed if seed is None else seed
    )
    folder = trials_folder(workshop.version) / name
    folder.mkdir(parents=True, exist_ok=True)
    # an earlier attempt's, whose time was spent too; the node sees it where it is sent
    set_aside(folder)
    clear_of_other_settings(folder, configuration)
    job = JobThere.of(workshop, place)
    files = changed_files(folder, {}) if job.files is not None else {}
    call = _OneThere(job, spec, number, configuration, options, name, files)
    submitted = workshop.version / "autosearch"
    ((row, changed),) = run_calls(place, call, 1, submitted, look=workshop.look)
    store_files(folder, changed)
    return row
