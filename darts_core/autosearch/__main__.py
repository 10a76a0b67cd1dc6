"""The engine as a program: `python -m darts_core.autosearch check|dry-run|run|algorithms`.

`check` and `dry-run` read a request as JSON from standard input. Mistakes end with status 2 and one
sentence on standard error.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

from darts_core.errors import sentence_of
from darts_core.runlog import utf8_streams

__all__ = ["main"]


def _plan(request: dict[str, Any]) -> Any:
    """The plan of a job that is yet to be made; one that was begun goes on without these checks."""
    from pathlib import Path

    from darts_core.autosearch.engine import plan_of

    plan = plan_of(request, request.get("config_paths") or [], Path(request.get("code") or ""))
    for step in plan.steps:
        if step.algorithm == "grid_search":
            step.check_grid()
        step.check_finite()
    # in a nested search the last file's objectives judge every trial
    for step in plan.steps[-1:] if plan.mode == "nested" else plan.steps:
        step.check_printed()
    return plan


def _check(request: dict[str, Any]) -> int:
    from darts_core.autosearch.command_line import (
        boot_file_of,
        own_arguments,
        settings_to_mention,
    )
    from darts_core.autosearch.forecast import forecast_text, plan_notes
    from darts_core.study.engines import elsewhere

    plan = _plan(request)
    _check_devices(request.get("devices") or ())
    place = elsewhere(request.get("ray"), request.get("slurm"))
    answer = {
        "zero_code": bool(plan.steps[0].metrics),
        "boot_file": boot_file_of([s.command for s in plan.steps], request.get("boot_file") or ""),
        "own_arguments": own_arguments(plan, request.get("arguments") or {}),
        "settings": settings_to_mention(plan),
        "trials": plan.trial_count(),
        "forecast": forecast_text(plan),
        "notes": plan_notes(plan, request.get("devices") or ["cpu"], place),
        "summary": plan.summary(),
    }
    print(json.dumps(answer, default=str))
    return 0


def _check_devices(devices: Sequence[str]) -> None:
    """Raise for a GPU that is not there."""
    wanted = [device for device in devices if device.startswith("cuda")]
    if not wanted:
        return
    import torch

    from darts_core.errors import ConfigError

    there = torch.cuda.device_count()
    for device in wanted:
        if int(device.partition(":")[2] or 0) >= there:
            known = ", ".join(["cpu", *(f"cuda:{i}" for i in range(there))])
            raise ConfigError(f"--devices {device}: there is no such GPU here; use one of {known}.")


def _algorithms() -> int:
    from darts_core.autosearch.catalogue import ALGORITHMS, SCHEDULERS

    for title, plugins in (("search_algorithm", ALGORITHMS), ("scheduler", SCHEDULERS)):
        print(f"{title}:")
        for plugin in plugins.values():
            print(f"  {plugin.name:24} {plugin.description}")
            for name, option in plugin.options.items():
                print(f"      {name} = {option.default}  {option.help}")
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(argv: list[str]) -> int:
    """Run one command of the engine; returns the exit status."""
    utf8_streams()  # as whoever started it reads what it prints, and job.log, whatever the locale
    try:
        if argv[:1] == ["check"]:
            return _check(json.load(sys.stdin))
        if argv[:1] == ["dry-run"]:
            from darts_core.autosearch.forecast import dry_run

            request = json.load(sys.stdin)
            print(dry_run(_plan(request), request))
            return 0
        if argv[:1] == ["take-home"] and len(argv) == 3:
            from pathlib import Path

            from darts_core.autosearch.take_home import checked

            print("\n".join(checked(Path(argv[1]), Path(argv[2]))))
            return 0
        if argv[:1] == ["algorithms"]:
            return _algorithms()
        if argv[:1] == ["run"] and len(argv) == 4:
            from darts_core.autosearch.engine import run_version
            from darts_core.store.jobs import Store

            logging.basicConfig(
                level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout
            )
            signal.signal(signal.SIGTERM, _interrupt)
            store = Store(argv[1])
            return run_version(store, store.version(argv[2], argv[3]), detached=True)
    except Exception as error:
        told = sentence_of(error)
        if told is None:
            raise
        print(f"darts-core: {told}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print("usage: python -m darts_core.autosearch check|dry-run|algorithms|run ROOT JOB VERSION")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
