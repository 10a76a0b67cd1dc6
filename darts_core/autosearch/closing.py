"""What a trial leaves when it ends: the architecture its supernet found, the network it built.

A trial's own process does that itself. A script of the zero-code mode is a process of its own, so the
first network made in it arranges for it at the interpreter's end, also when the script is ended early.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import threading
import traceback
from typing import Any

from darts_core.autosearch.contract import Trial

__all__ = ["ARCHITECTURE", "CLOSING", "SCRIPT_VARIABLE", "close", "watch"]

SCRIPT_VARIABLE = "DARTS_SCRIPT"  # set in a script of the zero-code mode
ARCHITECTURE = "architecture.json"  # what the supernet of a trial found
CLOSING = "closing"  # a file in the trial's folder: the script has something to write at its end


def close(trial: Trial) -> None:
    """Write what a supernet in this trial found, and keep the network; the latter costs no trial."""
    if trial.folder is not None and trial.searchables:
        searched = trial.searchables[-1]
        found = {"value": searched.derive(), **searched.steps.state()}
        (trial.folder / ARCHITECTURE).write_text(json.dumps(found), encoding="utf-8")
    if not trial.networks:
        return
    try:
        # the last one that was built
        trial.networks[-1].save(trial)
    except Exception:
        traceback.print_exc()
        print(f"trial {trial.trial_id}: its network could not be kept", flush=True)


def watch(trial: Trial) -> None:
    """Arrange for `close` at the end of a script's process; elsewhere whoever runs the trial calls it."""
    if trial.folder is None or not os.environ.get(SCRIPT_VARIABLE) or trial.watched:
        return
    trial.watched = True
    (trial.folder / CLOSING).touch()
    owner = os.getpid()

    def ended(_number: int, _frame: Any) -> None:
        sys.exit(128 + signal.SIGTERM)

    def end() -> None:
        if os.getpid() == owner:
            # what asks a script to end while it ends must not cut its last words off
            if signal.getsignal(signal.SIGTERM) is ended:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            close(trial)

    atexit.register(end)
    # Python's own answer to SIGTERM would skip what stands above; a script's own handler is left alone
    free = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if free and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, ended)
