"""What the fault tests share: an objective that counts its epochs in a checkpoint, and random kills."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

from darts_core.study import run_study

SPACE = {"x": {"low": 0.0, "high": 1.0}}
EPOCHS = 4


def steps(trial):
    """Counts its epochs in a checkpoint file, as a training does; `x` alone decides the value."""
    checkpoint = trial.folder / "checkpoint.json"
    start = json.loads(checkpoint.read_text()) if checkpoint.exists() else 0
    with (trial.folder / "sittings").open("a") as stream:
        stream.write(f"{os.getpid()} {start}\n")
    # the kill may have come between a checkpoint and its report, so `fit` repeats the last one as well
    if start:
        trial.report(start - 1, val_accuracy=trial.params["x"] * start)
    for epoch in range(start, EPOCHS):
        time.sleep(0.02)
        temporary = checkpoint.with_suffix(".tmp")
        temporary.write_text(json.dumps(epoch + 1))
        temporary.replace(checkpoint)
        trial.report(epoch, val_accuracy=trial.params["x"] * (epoch + 1))
    return trial.params["x"]


def settings(runner, storage, pruner="none"):
    """Arguments of `run_study` for one runner; the values drawn do not depend on who ends first."""
    found = {"sampler": "random", "seed": 1, "pruner": pruner, "storage": storage}
    found |= {"epochs_per_trial": EPOCHS, "study_name": "kills"}
    return {**found, "workers": 1 if runner == "callable" else 2, "isolate": runner == "child"}


def _study(folder, trials, options):
    # a process group of its own, so that a test can kill the study and all it started
    os.setpgid(0, 0)
    run_study(steps, SPACE, folder=folder, trials=trials, **options)


def start_study(folder, trials, options):
    """The study in a process of its own."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_study, args=(folder, trials, options))
    process.start()
    return process


def descendants(pid):
    """Processes below `pid`, by /proc."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(text[text.rfind(")") + 2 :].split()[1])
    found, todo = [], [pid]
    while todo:
        here = todo.pop()
        below = [child for child, parent in parents.items() if parent == here]
        found += below
        todo += below
    return found


def living(pids):
    """Those of `pids` that run: neither gone nor zombies."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/stat").read_text()
            if text[text.rfind(")") + 2] not in "ZX":
                found.append(pid)
    return found


def left_after(pids, seconds=2.0):
    """Those of `pids` that still run after so many seconds."""
    deadline = time.monotonic() + seconds
    while living(pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return living(pids)


def kill_one(pid, below, rng):
    """kill -9 of a process below `pid`, of `pid` alone, or of all; who, and what must be gone soon."""
    what = rng.choice(["below", "below", "top", "all"]) if below else "top"
    victims = {"below": below[:0] or [rng.choice(below or [pid])], "top": [pid]}.get(
        what, [pid, *below]
    )
    for victim in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    return what, ([] if what == "below" else below)


def kill_and_continue(start, *, kills, seed, patience=20.0):
    """Start again and again what `start()` starts until it ends well, killing something `kills` times.

    Returns:
        What was killed. No process that a killed study had started may live on for more than two seconds.
    """
    rng = random.Random(seed)
    done = []
    process = start()
    deadline = time.monotonic() + 240 + patience * kills
    while True:
        assert time.monotonic() < deadline, f"no end after {done}"
        if len(done) < kills:
            process.join(timeout=rng.uniform(0.3, 1.5))
            if process.exitcode is None:
                below = descendants(process.pid)
                what, soon_gone = kill_one(process.pid, below, rng)
                done.append(what)
                assert not left_after(soon_gone), (what, len(done))
        process.join(timeout=None if len(done) >= kills else 0.2)
        if process.exitcode == 0:
            return done
        if process.exitcode is not None:
            process = start()


def check_books(folder, trials, options):
    """Every trial exactly once, with every epoch once, as in a study that nobody killed."""
    result = run_study(steps, SPACE, folder=folder, trials=trials, **options)
    assert [r.number for r in result.trials] == list(range(trials))
    assert {r.state for r in result.trials} == {"complete"}, [r.reason for r in result.trials]
    assert result.spent["epochs"] == trials * EPOCHS
    for record in result.trials:
        rows = (record.folder / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(row)["epoch"] for row in rows] == list(range(EPOCHS))
        assert not (record.folder / "lease.json").exists()
    return result
