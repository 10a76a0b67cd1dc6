"""Trainings that jobs of a queue run: epochs from a checkpoint, each noting which job ran it."""

from __future__ import annotations

import json
import os
import time

EPOCHS = 3


def training(trial):
    state = trial.folder / "state.json"
    done = json.loads(state.read_text()) if state.is_file() else []
    for epoch in range(len(done), EPOCHS):
        # told to go on by the test, so that it meets the trial under way
        while trial.number == 0 and epoch == 1 and not (trial.folder / "go").exists():
            (trial.folder / "waits").touch()
            time.sleep(0.05)
        done.append([epoch, os.getppid(), os.environ.get("SLURM_JOB_ID")])
        state.write_text(json.dumps(done))
        trial.report(epoch, val_accuracy=trial.params["x"])
    return {"val_accuracy": trial.params["x"]}
