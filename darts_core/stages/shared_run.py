"""The run folder of a stage that several processes share: the first one of a group has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from darts_core.distributed import Group, current_group, first_may_fail
from darts_core.runlog import RunFolder
from darts_core.stages.logging import make_loggers

__all__ = ["open_run"]


def open_run(
    config: Any, folder: Path, decides: Any = None
) -> tuple[Group | None, RunFolder | None, bool]:
    """The group of processes, the run folder, and whether it is finished, on which all agree.

    Args:
        config: of the stage.
        folder: of the stage.
        decides: the part of `config` that decides what comes out, if not all of it does.

    Returns:
        (None in a process of its own, None in all processes of a group but the first, finished)

    Raises:
        ResumeError: the folder holds a run of other settings; in all processes of a group.
        ConfigError: a logger is none; in all.
    """
    group = current_group()
    run = None
    with first_may_fail(group or Group.alone()):
        if group is None or group.primary:
            run = RunFolder.create(
                folder, (decides or config).described(), loggers=make_loggers(config)
            )
    finished = run is not None and run.finished
    return group, run, finished if group is None else group.agree(finished)
