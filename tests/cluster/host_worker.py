"""What a host runs of a study, in a folder of its own; its trainings note each epoch where the test looks.

    python host_worker.py WHAT URL FOLDER KEPT NOTES NAME TRIALS STALE_SECONDS

`study` works on it, `lock` takes its lock and keeps it.
"""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import sys
import time
from pathlib import Path

from darts_core.study import run_study
from darts_core.study.budget import Budget
from darts_core.study.spec import StudySpec
from darts_core.study.study import open_study

EPOCHS = 3
SPACE = {"x": {"low": 0.0, "high": 1.0}}


def note(line: str) -> None:
    """A line that the test sees."""
    with Path(os.environ["DARTS_TEST_NOTES"]).open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")


def training(trial):
    """Epochs from a checkpoint; a host waits before the second one as long as the test holds it."""
    state, host = trial.folder / "state.json", socket.gethostname()
    done = json.loads(state.read_text()) if state.is_file() else []
    for epoch in range(len(done), EPOCHS):
        hold = Path(os.environ["DARTS_TEST_NOTES"]).with_name(f"hold-{host}")
        if epoch == 1 and hold.exists():
            note(f"{trial.number} waits {host}")
            while hold.exists():
                time.sleep(0.05)
        done.append([epoch, host])
        state.write_text(json.dumps(done))
        note(f"{trial.number} {epoch} {host}")
        trial.report(epoch, val_accuracy=trial.params["x"])
    return trial.params["x"]


def main() -> None:
    """See the module."""
    logging.basicConfig(level=logging.INFO)
    if "LD_PRELOAD" in os.environ:
        # libfaketime shifts what Python's sleep waits for, though it is another clock's time
        time.sleep = lambda seconds: select.select([], [], [], seconds)
    what, url, folder, kept, notes, name, trials, stale = sys.argv[1:]
    os.environ["DARTS_TEST_NOTES"] = notes
    options = {"sampler": "random", "pruner": "none", "seed": 5, "storage": url, "study_name": name}
    options |= {"folder": folder, "artifacts": kept, "stale_seconds": float(stale)}
    if what == "study":
        run_study(training, SPACE, trials=int(trials), epochs_per_trial=EPOCHS, **options)
        return
    ledger = open_study(
        StudySpec.make(SPACE, Budget(trials=int(trials), epochs_per_trial=EPOCHS), **options)
    )
    with ledger.books.held():
        note(f"lock held {socket.gethostname()}")
        time.sleep(3600)


if __name__ == "__main__":
    main()
