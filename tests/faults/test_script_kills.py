"""A job over a user's script under random kills of scripts, job, both: nothing is lost or run twice."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from kills import left_after

from darts_core.study.results import read_rows

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kills processes by /proc")

SCRIPT = """
import json, os, time
from darts_core import autosearch

def train():
    x = autosearch.config["x"]
    checkpoint = os.path.join(autosearch.checkpoint_dir, "epoch.json")
    start = json.load(open(checkpoint)) if os.path.exists(checkpoint) else 0
    with open(os.path.join(autosearch.checkpoint_dir, "sittings"), "a") as stream:
        stream.write(f"{start}\\n")
    for epoch in range(start, 4):
        time.sleep(0.1)
        with open(checkpoint + ".tmp", "w") as stream:
            json.dump(epoch + 1, stream)
        os.replace(checkpoint + ".tmp", checkpoint)
        autosearch.reporter(acc=x * (epoch + 1))
    autosearch.report(x)
"""

JOB = """
general: {{confirm_seeds: 0}}
search_space:
  - params:
      - {{type: continuous_param, name: x, start: 0.0, stop: 1.0, default: 0.5}}
search_algorithm: {{type: random_search, reward_attr: acc, mode: max, num_samples: {trials},
                   max_concurrent: 2, seed: 3}}
"""


class Job:
    """One job, its processes told apart by a mark of the test's own in their environment."""

    def __init__(self, folder: Path, trials: int) -> None:
        self.folder, self.mark = folder, uuid.uuid4().hex
        (folder / "code").mkdir(parents=True)
        (folder / "code/boot.py").write_text(SCRIPT)
        (folder / "job.yaml").write_text(JOB.format(trials=trials))
        self.version = folder / "runs" / "k" / "V001"

    def command(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "darts_core.cli", "jobs", *arguments, "--root", "runs"],
            cwd=self.folder,
            env={**os.environ, "KILL_TEST": self.mark},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    def create(self) -> None:
        self.command("create", "--name", "k", "--code", "code", "--boot-file", "boot.py",
                     "--config", "job.yaml")  # fmt: skip

    def processes(self) -> dict[int, str]:
        """Ids and command lines of what the job has started; its keepers end what is left, so not these."""
        found, wanted = {}, f"KILL_TEST={self.mark}".encode()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if line and "keeper" not in line:
                        found[int(entry.name)] = line
        return found

    def state(self) -> str:
        listed = json.loads(self.command("list", "--json"))
        rows = listed["rows"] if isinstance(listed, dict) else listed
        return next(str(row["state"]) for row in rows if row["job"] == "k")


def kill_and_resume(job: Job, *, kills: int, seed: int) -> list[str]:
    rng, done = random.Random(seed), []
    job.create()
    deadline = time.monotonic() + 240 + 20 * kills
    while (state := job.state()) != "succeeded":
        assert time.monotonic() < deadline, (state, done)
        if state in ("interrupted", "failed"):
            assert state == "interrupted", (job.version / "job.log").read_text()[-2000:]
            job.command("resume", "k")
        if len(done) < kills:
            time.sleep(rng.uniform(0.1, 1.0))
            running = job.processes()
            engines = [pid for pid, line in running.items() if "trial_main" not in line]
            scripts = [pid for pid in running if pid not in engines]
            what = rng.choice(["script", "job", "all"])
            victims = {"script": scripts[:1], "job": engines, "all": list(running)}[what]
            for pid in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            done += [what] if victims else []
            if what != "script":
                assert not left_after(scripts), what
        else:
            time.sleep(0.3)
    return done


def facts(version: Path) -> list[tuple[int, float, str, float, int]]:
    rows = [r for r in read_rows(version) if r["phase"] == "search"]
    return [
        (r["number"], round(r["config"]["x"], 12), r["state"], r["values"]["acc"], r["training_iteration"])
        for r in rows
    ]  # fmt: skip


def check(job: Job, other: Job, trials: int) -> None:
    found = facts(job.version)
    assert [f[0] for f in found] == list(range(trials + 1))
    assert {f[2] for f in found} == {"done"}, [r["reason"] for r in read_rows(job.version)]
    other.create()
    while other.state() not in ("succeeded", "failed"):
        time.sleep(0.3)
    # the last sitting of a trial that was cut off reports what was left
    assert [f[:4] for f in found] == [f[:4] for f in facts(other.version)]
    for row in read_rows(job.version):
        sittings = Path(row["folder"]) / "checkpoint" / "sittings"
        starts = [int(line) for line in sittings.read_text().split()]
        assert starts == sorted(starts)
        assert not (Path(row["folder"]) / "lease.json").exists()


def test_five_kills_of_a_job_lose_and_repeat_nothing(tmp_path):
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    job = Job(tmp_path / "a", 6)
    assert kill_and_resume(job, kills=5, seed=seed)
    check(job, Job(tmp_path / "b", 6), 6)


@pytest.mark.full
def test_a_hundred_kills_of_a_job_lose_and_repeat_nothing(tmp_path):
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    job = Job(tmp_path / "a", 400)  # more than a fast machine ends between the kills
    done = kill_and_resume(job, kills=100, seed=seed)
    print(f"{len(done)} kills")
    assert len(done) == 100
    check(job, Job(tmp_path / "b", 400), 400)
