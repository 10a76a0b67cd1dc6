"""Running a command that takes overrides: check everything, claim the version, run, note the end."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shlex
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from darts_core.commands.arguments import parse_arguments
from darts_core.commands.compose import Session, compose, forced, session
from darts_core.commands.growing import beginning, counts
from darts_core.commands.jobname import (
    default_job,
    job_and_version,
    looked_at,
    previous_version,
    refuse_taking_up,
)
from darts_core.commands.logs import configure_logging
from darts_core.commands.mistakes import refuse_several_places
from darts_core.commands.overrides import expand, key_of, parse, quoted, without_password
from darts_core.commands.ranks import Ranks, current_ranks, lost_process_told
from darts_core.errors import ConfigError, DartsError, unknown_name
from darts_core.report.elements import elements, parts_of
from darts_core.report.job_summary import summarize
from darts_core.report.multirun import write_multirun_report
from darts_core.report.read import read_version
from darts_core.runlog import config_hash
from darts_core.stages.measured_again import measured_again, measured_so, measures_version
from darts_core.stages.schema import (
    PLACES,
    UNHASHED,
    BenchStage,
    DataStage,
    NamedStage,
    Pipeline,
    Stage,
    TrainStage,
    deciding,
)
from darts_core.store.claim import Claim, claim
from darts_core.store.jobs import Store
from darts_core.store.procs import MARK
from darts_core.store.record import PIPELINE

__all__ = ["main"]

log = logging.getLogger("darts_core")


def main(command: str, argv: Sequence[str]) -> int:
    """Run `darts-core COMMAND ARGV...`; returns the exit status.

    Raises:
        DartsError: a setting is wrong or a stage fails in an expected way.
    """
    args = parse_arguments(command, argv)
    # before anything is composed, hashed, logged or written
    args.overrides = [without_password(text) for text in args.overrides]
    if args.shell_completion:
        from darts_core.commands.completion import shell_completion

        return shell_completion(args.overrides)
    with session(args.config_dir, name=command) as place:
        if args.cfg or args.info:
            from darts_core.commands.show import show_config, show_info

            (show_config if args.cfg else show_info)(command, args, place)
            return 0
        config = _checked(command, args, place)
        ranks = current_ranks()
        if ranks is None:
            return _lead(args, config, place, None)
        ranks.check(config, multirun=args.multirun)
        try:
            ranks.join(config)
            return _lead(args, config, place, ranks) if ranks.first else _follow(config, ranks)
        finally:
            ranks.leave()


def _checked(command: str, args: argparse.Namespace, place: Session) -> Stage:
    """The settings; of a multirun those of its first element, once all values are known to fit."""
    if args.multirun:
        _check_multirun(command, args.overrides)
        first, variants = expand(args.overrides)
        for variant in variants:
            _check_values(compose(command, variant, place))
    config = job_and_version(compose(command, first if args.multirun else args.overrides, place))
    _check_values(config)
    return config


def _check_multirun(command: str, overrides: Sequence[str]) -> None:
    """Refuse a multirun that has no meaning: of what only looks, or over the place of the results.

    Raises:
        ConfigError: it is one.
    """
    if command == "report":
        raise ConfigError(
            "`darts-core report` shows one version, of a multirun with all its elements; leave out -m."
        )
    for text in overrides:
        if parse(text).is_sweep_override():
            refuse_several_places(text, key_of(text))


def _lead(args: argparse.Namespace, config: Stage, place: Session, ranks: Ranks | None) -> int:
    """Claim the version and run in it: in the only process, or the first one of torchrun's."""
    job = config.job or default_job(config, args.overrides)

    def stamp_of(one: Stage, words: Sequence[str], *, launcher: bool = False) -> str:
        return _stamp(one, words, ranks.count if ranks else 1, launcher=launcher)

    stamp = stamp_of(config, args.overrides if args.multirun else ())
    # a timing asked for again is taken again: of models in their version, else in one of its own
    anew = measures_version(config, multirun=args.multirun)
    if anew or (isinstance(config, BenchStage) and config.what in ("step", "kernels")):
        stamp = f"{stamp}-{time.time_ns()}"
    command = config.STAGE
    wanted = config.version or previous_version(config, job)
    if args.multirun:
        refuse_taking_up(config, job, wanted, args.overrides)
    if command == "report":  # it only looks: at a version of any kind, which may be running
        found = looked_at(Store(config.out), job, wanted)
        configure_logging(found.version.path)
        _call(args, config, place, found.folder)
        return 0
    older = stamp_of(config, args.overrides, launcher=True) if args.multirun else stamp
    if older != stamp and _has(Store(config.out), job, command, older):
        stamp = older  # a version that an older program left goes on
    claimed = claim(
        config.out,
        job,
        kind=PIPELINE,
        command=command,
        stamp=stamp,
        version=wanted,
        details=_details(command, args, ranks),
        begins=measured_so if anew else beginning(config, args, place, stamp_of),
    )
    try:
        return _run(args, config, place, claimed, ranks)
    except KeyboardInterrupt as stop:
        asked = claimed.version.stop_file.exists()
        claimed.give_up("stopped" if asked else "interrupted", str(stop) or "stopped by a signal")
        raise
    except BaseException as error:
        # a disk that takes no state either must not hide what went wrong
        with contextlib.suppress(OSError):
            claimed.give_up("failed", f"{error}" or type(error).__name__)
        raise
    finally:
        claimed.release()


def _details(command: str, args: argparse.Namespace, ranks: Ranks | None) -> dict[str, Any]:
    """What the version keeps of this command: how to start it again, and what its processes carry."""
    own = uuid.uuid4().hex
    outer = os.environ.get(MARK)
    kept = [o for o in args.overrides if key_of(o) not in PLACES]
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


def _follow(config: Stage, ranks: Ranks) -> int:
    """Take part in the first process's search, in silence."""
    version = ranks.share(None)
    if version is not None:
        _run_stage(config, version)
    return 0


def _run(
    args: argparse.Namespace, config: Stage, place: Session, claimed: Claim, ranks: Ranks | None
) -> int:
    """Run in the claimed version, or say that there is nothing left to do."""
    resume_line = _command_line(config.STAGE, args)
    if ranks is not None:
        resume_line = ranks.command_line(resume_line)
        ranks.share(None if claimed.finished else claimed.path.absolute())
    if claimed.finished:
        print(
            f"{claimed.path} is finished; nothing to do. Change a setting to start another version."
            f"{_left_behind(config, claimed.path)}"
        )
        return 0
    configure_logging(claimed.path)
    log.info("%s %s", "resuming" if claimed.resumes else "writing to", claimed.path)
    os.environ["DARTS_RESUME_COMMAND"] = resume_line
    outer = os.environ.get(MARK)
    os.environ[MARK] = str(claimed.version.command(config.STAGE)["mark"])
    try:
        _call(args, config, place, claimed.path)
    finally:
        os.environ.pop(MARK)
        if outer is not None:
            os.environ[MARK] = outer
    claimed.finish()
    with contextlib.suppress(OSError):  # whoever lists the version works it out again
        summarize(claimed.version)
    return 0


def _left_behind(config: Stage, version: Path) -> str:
    """Where an export is asked for again: that its network was pruned or shrunk since; "" if it was not."""
    if config.STAGE != "export" or parts_of(version):
        return ""
    try:
        run = read_version(version)
    except DartsError:  # somebody has taken its folders away
        return ""
    if run.export_left_behind is None:
        return ""
    network = next(stage.folder for stage in run.networks if stage.finished)
    was, now = run.export_left_behind, network.name
    return (
        f" Its export is of the network in {was}/; {now}/ has left another one since, which "
        f"model={network} exports."
    )


def _call(args: argparse.Namespace, config: Stage, place: Session, version: Path) -> None:
    """The stage itself, or a multirun of it through Hydra's sweeper and launcher."""
    if args.multirun:
        _multirun(config.STAGE, args.overrides, place, version)
    elif measures_version(config):
        with measured_again(version):
            _run_stage(config, version)
    else:
        _run_stage(config, version)


def _run_stage(config: Stage, version: Path) -> None:
    from darts_core.stages.pipeline import run_command

    out, job = str(version.parent.parent), version.parent.name
    with lost_process_told():
        run_command(replace(config, out=out, job=job, version=version.name), version)


def _multirun(command: str, overrides: Sequence[str], place: Session, version: Path) -> None:
    """Every element in `version/<number>`, started by the launcher that `hydra/launcher=` names."""
    from hydra.core.global_hydra import GlobalHydra

    from darts_core.commands.element import element

    kept = [forced(command, text) for text in overrides if key_of(text) not in PLACES]
    home = [
        f"++out={quoted(str(version.parent.parent))}",
        f"++job={quoted(version.parent.name)}",
        f"++version={quoted(version.name)}",
    ]
    hydra: Any = GlobalHydra.instance().hydra
    try:
        hydra.multirun(
            config_name=command,
            task_function=element,
            overrides=[*place.overrides, *kept, *home, "hydra.mode=MULTIRUN"],
        )
    except Exception:  # of one element: the others have run, and are shown
        with contextlib.suppress(DartsError, OSError):
            _report_elements(version)
        raise
    _report_elements(version)


def _report_elements(version: Path) -> None:
    # trials of a sweeper are no elements: their study has a report of its own
    if elements(version):
        log.info("report: %s", write_multirun_report(version))


def _has(store: Store, job: str, command: str, stamp: str) -> bool:
    found = (record["commands"].get(command) or {} for _, record in store.records(job))
    return any(known.get("config_hash") == stamp for known in found)


def _stamp(
    config: Stage, swept: Sequence[str], processes: int = 1, *, launcher: bool = False
) -> str:
    """The hash of everything that decides the result; where it is written does not count."""
    content = {k: v for k, v in deciding(config).items() if k not in UNHASHED}
    kept = [o for o in swept if counts(o, launcher=launcher)]
    described = {"command": config.STAGE, "config": content, "overrides": kept}
    return config_hash(described if processes == 1 else {**described, "processes": processes})


def _check_values(config: Stage) -> None:
    """Refuse a path or a network that is not there before a version is made for it."""
    if isinstance(config, (BenchStage, Pipeline)) and config.bench.baseline is not None:
        from darts_core.models.baselines import BASELINES, is_baseline

        if not is_baseline(config.bench.baseline):
            raise ConfigError(unknown_name("bench.baseline", config.bench.baseline, BASELINES))
    if isinstance(config, (TrainStage, NamedStage)):
        from darts_core.stages.given import check_given

        check_given(config)
    if not isinstance(config, DataStage) or config.data.path is None:
        return
    # an empty one would be the current folder
    if not config.data.path or not Path(config.data.path).expanduser().exists():
        raise ConfigError(
            f"data.path={config.data.path!r} does not exist; give the file or folder of "
            f"{config.data.name}."
        )


def _command_line(command: str, args: argparse.Namespace) -> str:
    parts = ["darts-core", command, *(["-m"] if args.multirun else []), *args.overrides]
    if args.config_dir:
        parts += ["--config-dir", args.config_dir]
    return shlex.join(parts)
