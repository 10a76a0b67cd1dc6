"""Running a Hydra command: check everything, claim the version, hand over to Hydra, note the end."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from darts_core.commands.compose import (
    compose,
    expand,
    open_arguments,
    register_schemas,
    session,
)
from darts_core.commands.jobname import default_job, previous_version
from darts_core.commands.logs import configure_logging
from darts_core.commands.ranks import Ranks, current_ranks
from darts_core.credentials import keep_password
from darts_core.errors import ConfigError
from darts_core.report.job_summary import summarize
from darts_core.report.multirun import OVERRIDES
from darts_core.runlog import config_hash, write_yaml
from darts_core.settings import to_plain
from darts_core.stages.schema import PLACES, UNHASHED, BenchStage, DataStage, Stage
from darts_core.stages.settings import config_root
from darts_core.store.claim import Claim, claim
from darts_core.store.jobs import Store
from darts_core.store.procs import MARK
from darts_core.store.record import PIPELINE
from darts_core.study import current_trial

__all__ = ["main", "task"]

log = logging.getLogger("darts_core")
_HYDRA_ONLY = ("cfg", "info", "shell_completion", "hydra_help")


def main(command: str, argv: Sequence[str]) -> int:
    """Run `darts-core COMMAND ARGV...`; returns the exit status.

    Raises:
        DartsError: a setting is wrong or a stage fails in an expected way.
    """
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parser.prog = f"darts-core {command}"
    args = parser.parse_args(list(argv))
    # before anything is composed, hashed, logged or written
    args.overrides = [open_arguments(str(keep_password(text))) for text in args.overrides]
    if any(getattr(args, name) for name in _HYDRA_ONLY):
        return _hand_over(command, [str(keep_password(text)) for text in argv])
    for name in ("config_name", "config_path"):
        if getattr(args, name):
            raise ConfigError(
                f"--{name.replace('_', '-')} is not used here: each command has one configuration; "
                "add your own groups with --config-dir FOLDER."
            )
    with session(args.config_dir) as extra:
        firsts, elements = expand(args.overrides, multirun=args.multirun)
        config = compose(command, firsts, extra)
        for element in elements:
            compose(command, element, extra)
    _check_values(config)
    ranks = current_ranks()
    if ranks is None:
        return _lead(args, config, None)
    ranks.check(config, multirun=args.multirun)
    ranks.join(config.device)
    try:
        return (_lead if ranks.first else _follow)(args, config, ranks)
    finally:
        ranks.leave()


def _lead(args: argparse.Namespace, config: Stage, ranks: Ranks | None) -> int:
    """Claim the version and run in it: in the only process, or the first one of torchrun's."""
    job = config.job or default_job(config, args.overrides)
    stamp = _stamp(config, args.overrides if args.multirun else (), ranks.count if ranks else 1)
    # a timing asked for again is taken again
    if isinstance(config, BenchStage) and config.what in ("step", "kernels"):
        stamp = f"{stamp}-{time.time_ns()}"
    command = config.STAGE
    wanted = config.version or previous_version(config, job)
    if command == "report":  # it only looks: at a version of any kind, which may be running
        return _look(command, args, Store(config.out).version(job, wanted).path)
    claimed = claim(
        config.out,
        job,
        kind=PIPELINE,
        command=command,
        stamp=stamp,
        version=wanted,
        details=_details(command, args, ranks),
    )
    try:
        return _run(command, args, claimed, ranks)
    except KeyboardInterrupt as stop:
        asked = claimed.version.stop_file.exists()
        claimed.give_up("stopped" if asked else "interrupted", str(stop) or "stopped by a signal")
        raise
    except BaseException as error:
        claimed.give_up("failed", f"{error}" or type(error).__name__)
        raise
    finally:
        claimed.release()


def _details(command: str, args: argparse.Namespace, ranks: Ranks | None) -> dict[str, Any]:
    """What the version keeps of this command: how to start it again, and what its processes carry."""
    own = uuid.uuid4().hex
    outer = os.environ.get(MARK)
    kept = [o for o in args.overrides if o.lstrip("+").partition("=")[0] not in PLACES]
    arguments = [command, *(["-m"] if args.multirun else []), *kept]
    if args.config_dir:
        arguments += ["--config-dir", str(Path(args.config_dir).resolve())]
    details: dict[str, Any] = {
        "module": "darts_core.cli",
        "arguments": arguments,
        "places": ["out={quoted_root}", "job={job}", "version={version}"],
        "directory": str(Path.cwd()),
        "overrides": list(args.overrides),
        "multirun": bool(args.multirun),
        "config_dir": str(Path(args.config_dir).resolve()) if args.config_dir else None,
        # a command that another job runs stays one of that job's processes
        "mark": f"{outer}/{own}" if outer else own,
    }
    if ranks is not None:
        details["resume_line"] = ranks.command_line(_command_line(command, args))
    return details


def _look(command: str, args: argparse.Namespace, version: Path) -> int:
    """Call Hydra on a version that is left as it is."""
    configure_logging(version)
    return _hand_over(command, _arguments(args, version))


def _follow(args: argparse.Namespace, config: Stage, ranks: Ranks) -> int:
    """Take part in the first process's search, in silence."""
    version = ranks.share(None)
    return 0 if version is None else _hand_over(config.STAGE, _arguments(args, version))


def _run(command: str, args: argparse.Namespace, claimed: Claim, ranks: Ranks | None) -> int:
    """Call Hydra on the claimed version, or say that there is nothing left to do."""
    resume_line = _command_line(command, args)
    if ranks is not None:
        resume_line = ranks.command_line(resume_line)
        ranks.share(None if claimed.finished else claimed.path.absolute())
    if claimed.finished:
        print(
            f"{claimed.path} is finished; nothing to do. Change a setting to start another version."
        )
        return 0
    configure_logging(claimed.path)
    log.info("%s %s", "resuming" if claimed.resumes else "writing to", claimed.path)
    os.environ["DARTS_RESUME_COMMAND"] = resume_line
    outer = os.environ.get(MARK)
    os.environ[MARK] = str(claimed.version.command(command)["mark"])
    try:
        _hand_over(command, _arguments(args, claimed.path))
    finally:
        os.environ.pop(MARK)
        if outer is not None:
            os.environ[MARK] = outer
    claimed.finish()
    summarize(claimed.version)
    return 0


def _arguments(args: argparse.Namespace, version: Path) -> list[str]:
    """The command's arguments for Hydra, with the place of its results settled."""
    places = [
        f"++out={_quote(str(version.parent.parent))}",
        f"++job={_quote(version.parent.name)}",
        f"++version={_quote(version.name)}",
    ]
    kept = [o for o in args.overrides if o.lstrip("+").partition("=")[0] not in PLACES]
    argv = [*(["-m"] if args.multirun else []), *kept, *places]
    if args.config_dir:
        argv = ["--config-dir", str(Path(args.config_dir).resolve()), *argv]
    return argv


def _hand_over(command: str, argv: list[str]) -> int:
    """Give `argv` to Hydra's own main function on our configuration tree."""
    import hydra

    register_schemas()
    # without it Hydra prints its own account of an error and exits 1
    os.environ["HYDRA_FULL_ERROR"] = "1"
    before = sys.argv
    sys.argv = [f"darts-core {command}", *argv]
    try:
        hydra.main(config_path=str(config_root()), config_name=command, version_base="1.3")(task)()
    except _Failure as caught:
        error = caught.error
    else:
        return 0
    finally:
        sys.argv = before
    # outside the handler, so that the error keeps the cause it was raised from
    raise error


class _Failure(BaseException):
    """Carries a stage's error past Hydra, which would print its own account of an Exception."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def task(node: Any) -> float | dict[str, Any] | None:
    """One Hydra run: the stage named by the configuration's name, in its folder of the version.

    Returns:
        The objective for sweepers: validation accuracy (0..1) where the stage has one; for a trial
        of our own sweeper all that the stage returns.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from darts_core.commands.compose import typed

    about = HydraConfig.get()
    command = str(about.job.config_name)
    config = typed(command, node)
    folder = Path(config.out) / config.job / config.version
    ranks = current_ranks()
    if ranks is None or ranks.first:
        configure_logging(folder)
    trial = current_trial()
    if trial is not None and command != "tune":  # tune's own trials share the version's files
        folder = trial.folder
    elif trial is None and about.mode == RunMode.MULTIRUN:
        folder = folder / str(about.job.num)
        write_yaml(folder / OVERRIDES, list(about.overrides.task))

    from darts_core.stages.pipeline import run_command

    if trial is not None:
        return {k: v for k, v in run_command(config, folder).items() if v is not None}
    try:
        result = run_command(config, folder)
    except Exception as error:
        if about.mode == RunMode.MULTIRUN:
            raise
        raise _Failure(error) from error
    accuracy = result.get("val_accuracy")
    return None if accuracy is None else float(accuracy)


def _stamp(config: Stage, swept: Sequence[str], processes: int = 1) -> str:
    """The hash of everything that decides the result; where it is written does not count."""
    content = {k: v for k, v in to_plain(config).items() if k not in UNHASHED}
    kept = [o for o in swept if o.lstrip("+").partition("=")[0] not in UNHASHED]
    described = {"command": config.STAGE, "config": content, "overrides": kept}
    return config_hash(described if processes == 1 else {**described, "processes": processes})


def _check_values(config: Stage) -> None:
    """Refuse a data path that is not there before a version is made for it."""
    if not isinstance(config, DataStage) or config.data.path is None:
        return
    if not Path(config.data.path).expanduser().exists():
        raise ConfigError(
            f"data.path={config.data.path!r} does not exist; give the file or folder of "
            f"{config.data.name}."
        )


def _command_line(command: str, args: argparse.Namespace) -> str:
    parts = ["darts-core", command, *(["-m"] if args.multirun else []), *args.overrides]
    if args.config_dir:
        parts += ["--config-dir", args.config_dir]
    return shlex.join(parts)


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
