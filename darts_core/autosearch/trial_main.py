"""The program of one trial: `python -m darts_core.autosearch.trial_main FOLDER`.

It loads the boot file and calls `train()` and then `eval()`, or, in zero-code mode, runs the boot file
as a script and reads metrics from what it prints. Standard library only, see contract.py.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from darts_core.autosearch import compat, seeding
from darts_core.autosearch.closing import close
from darts_core.autosearch.contract import TRIAL_VARIABLE, StopTrial, Trial, current
from darts_core.autosearch.zero_code import FROM_OUTSIDE, run_script
from darts_core.errors import ConfigError, DartsError

__all__ = ["main"]

EXIT_FAILED, EXIT_CONTRACT = 1, 3

if os.environ.get(TRIAL_VARIABLE):
    # also in children that multiprocessing starts: they import this module before the user's
    compat.install()


def _load(boot: Path, code: Path) -> ModuleType:
    """The boot file as a module under its own name (so that its functions can be pickled)."""
    for folder in (code, boot.parent):
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
        sys.path.insert(0, str(folder))
    name = boot.stem if boot.stem not in sys.modules else f"boot_{boot.stem}"
    spec = importlib.util.spec_from_file_location(name, boot)
    if spec is None or spec.loader is None:
        raise ConfigError(f"The boot file {boot.name} cannot be loaded; name a .py file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _call_user_code(trial: Trial) -> None:
    record = trial.record
    boot, code = Path(record["boot_file"]), Path(record["code_dir"])
    seeding.install(trial.seed)
    module = _load(boot, code)
    # a file that draws while it is loaded must not move what train() draws
    seeding.seed_imported(trial.seed)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(int(record.get("threads", 1)))
    entry = record.get("entry", "train")
    train = getattr(module, entry, None)
    if not callable(train):
        raise ConfigError(
            f"The boot file {boot.name} has no function {entry}(); define it, without arguments, or give "
            "general.metrics with regular expressions to run the file as a script."
        )
    _called(train)
    evaluate = getattr(module, record.get("evaluate", "eval"), None)
    if callable(evaluate) and _needs_nothing(evaluate):
        _called(evaluate)


def _called(function: Callable[[], Any]) -> None:
    """Call a function of the user's; one that ends by `sys.exit(0)`, as a script does, has ended well."""
    try:
        function()
    except SystemExit as ended:
        if ended.code not in (None, 0):
            raise


def _needs_nothing(function: Callable[..., Any]) -> bool:
    """Whether a function can be called without arguments: an `eval(model)` is no `eval()` of ours."""
    try:
        inspect.signature(function).bind()
    except TypeError:
        return False
    except ValueError:  # a builtin that tells nothing about itself
        return True
    return True


def main(argv: list[str] | None = None) -> int:
    """Run the trial in the folder named on the command line; the exit status tells how it ended."""
    arguments = sys.argv[1:] if argv is None else argv
    os.environ[TRIAL_VARIABLE] = arguments[0]
    compat.install()
    trial = current()
    record = trial.record
    sys.argv = [record["boot_file"], *record["arguments"]]
    try:
        if record.get("metrics"):
            return run_script(trial)
        _call_user_code(trial)
        close(trial)
    except StopTrial as stop:
        close(trial)
        print(f"trial {trial.trial_id}: {stop}", flush=True)
        Path(arguments[0], "stopped.json").write_text(
            json.dumps({"reason": str(stop)}), encoding="utf-8"
        )
        return 0
    except DartsError as error:
        traceback.print_exc()
        print(f"trial {trial.trial_id}: {error}", file=sys.stderr, flush=True)
        return EXIT_CONTRACT
    except Exception:
        traceback.print_exc()
        return EXIT_FAILED
    return 0


def _as_the_script(status: int) -> int:
    """The exit status; where a script was killed from outside, this process ends by the same signal.

    Whoever judges the trial tells by it a kill, after which the trial is begun again, from a failure.
    """
    if -status in FROM_OUTSIDE:
        sys.stdout.flush()
        with contextlib.suppress(OSError):  # nobody handles SIGKILL
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    # the real module is `darts_core.autosearch.trial_main`, so children find it by that name
    sys.exit(_as_the_script(main()))
