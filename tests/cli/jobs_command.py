"""`darts-core jobs` as it is typed, and a small job to try it on."""

import contextlib
import io
import json
import os
import subprocess
import sys
import time

from darts_core import cli

# these start and end processes, from one of their own; the others read and write the store alone
_OF_PROCESSES = ("create", "resume", "new-version", "stop")

CODE = """
import os, time
from darts_core import autosearch

def train():
    x = autosearch.config["x"]
    steps = int(autosearch.config.get("steps", 2))
    for step in range(steps):
        autosearch.reporter(accuracy=1 - (x - 0.3) ** 2)
        time.sleep(0.02)
    print("trained with", x)
    open(os.path.join(autosearch.output_dir, "m.bin"), "w").write(str(x))
    autosearch.report(1 - (x - 0.3) ** 2, latency=10 * x, model_path="m.bin",
                      additional_data={"params": 3})
"""
JOB = """
general: {confirm_seeds: 1}
search_space:
  - params:
      - {type: discrete_param, name: x, values: [0.1, 0.3, 0.9], default: 0.9}
search_algorithm: {type: grid_search, reward_attr: accuracy, mode: max}
"""


def jobs(place, *words, status=0):
    """What `darts-core jobs` prints in the folder `place`: on stderr where it fails, else on stdout."""
    own = words[0] in _OF_PROCESSES or words[:2] == ("params", "use")
    found, out, err = (jobs_process if own else _jobs_here)(place, *words)
    assert found == status, (found, out, err)
    return err if status else out


def _jobs_here(place, *words):
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(place),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            found = cli.main(["jobs", *words])
        except SystemExit as done:  # of argparse
            found = done.code
    return found, out.getvalue(), err.getvalue()


def jobs_process(place, *words):
    """(status, stdout, stderr) of the command as a process."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from darts_core.cli import main; raise SystemExit(main())",
            "jobs",
            *words,
        ],
        cwd=place,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    return done.returncode, done.stdout, done.stderr


def create(place, name, *more, status=0):
    return jobs(
        place, "create", "--name", name, "--code", "code", "--boot-file", "boot.py",
        "--config", "job.yaml", *more, status=status,
    )  # fmt: skip


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def running_trial(place, name):
    trials = place / "runs" / name / "V001" / "autosearch" / "trials"
    wait_for(lambda: any(p.stat().st_size for p in trials.glob("*/reports.jsonl")))
    return next(trials.glob("*/reports.jsonl")).parent


def with_state(version, state, process):
    """Write a state of its newest command into a version's record, as a dead or foreign process left it."""
    record = version.record()
    record["commands"][version.newest()].update(state=state, process=process)
    (version.path / "version.json").write_text(json.dumps(record))
