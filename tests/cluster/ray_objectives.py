"""Trainings that nodes run: three epochs from a checkpoint, each noting which process ran it."""

from __future__ import annotations

import json
import os
import time


def training(trial):
    state = trial.folder / "state.json"
    done = json.loads(state.read_text()) if state.is_file() else []
    for epoch in range(len(done), 3):
        # the parent is the node's worker
        done.append([epoch, os.getppid()])
        state.write_text(json.dumps(done))
        trial.report(epoch, val_accuracy=trial.params["x"])
        if trial.number < 2:
            time.sleep(1.5)
    return {"val_accuracy": trial.params["x"]}


# a trial's own process costs seconds on a busy machine
training.reuse_process = True
