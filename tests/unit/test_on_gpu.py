"""The command that runs everything on a GPU: what is done stays done, the rest goes on."""

import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import (
    gpu_jobs,
    gpu_state,
    gpu_step,
    on_gpu,
    resumable,
    resumable_tests,
    triton_cache,
)
from darts_core.bench.step import StepCase
from darts_core.settings import BenchOptions

ROOT = Path(__file__).resolve().parents[2]


def call(monkeypatch, folder, jobs, *words):
    """(exit status, record) of one call with made-up jobs."""
    commands = {name: [sys.executable, "-c", code] for name, code in jobs.items()}
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    monkeypatch.setattr(on_gpu, "jobs", lambda _: commands)
    given = ["on_gpu", "--out", str(folder), "--carried", str(folder / "carried")]
    monkeypatch.setattr(sys, "argv", [*given, *words])
    status = on_gpu.main()
    return status, json.loads((folder / "jobs.json").read_text())


def test_done_jobs_are_not_run_again_and_failed_ones_come_last(tmp_path, monkeypatch, capfd):
    jobs = {
        "one": "print('one runs')",
        "two": "raise SystemExit(1)",
        "three": "raise SystemExit(3)",
        "four": "print('four runs')",
    }
    status, record = call(monkeypatch, tmp_path, jobs)
    assert (status, record["one"], record["two"], record["three"]) == (
        on_gpu.UNFINISHED, "done", "failed (1)", "begun",
    )  # fmt: skip
    # an unfinished job holds the device: what comes after it waits for the next call
    assert "four" not in record
    jobs["three"] = f"raise SystemExit({resumable_tests.LEFT})"
    status, record = call(monkeypatch, tmp_path, jobs)
    assert record["three"] == "begun"
    jobs["three"] = "pass"
    status, record = call(monkeypatch, tmp_path, jobs)
    assert (status, record["four"], record["two"]) == (1, "done", "failed (1)")
    jobs["two"] = "pass"
    assert call(monkeypatch, tmp_path, jobs)[0] == 0
    out = capfd.readouterr().out
    assert out.count("one runs") == out.count("four runs") == 1
    assert "nothing is left" in out


WITH_A_CHILD = """
import pathlib, signal, subprocess, sys, time
place, word = pathlib.Path(sys.argv[1]), sys.argv[2]
def stop(*_):
    with open(place / word, "a") as file:
        file.write("stopped ")
    if word != "deaf":
        raise SystemExit(0)
signal.signal(signal.SIGTERM, stop)
if word == "parent":  # as a benchmark starts a command
    code = (place / "code").read_text()
    child = subprocess.Popen([sys.executable, "-c", code, place, sys.argv[3]])
    (place / "pid").write_text(str(child.pid))
    child.wait()
(place / "ready").touch()
while True:
    time.sleep(0.05)
"""


def stopped(monkeypatch, place, child, seconds):
    """Exit status of a job with a child that is asked to stop as soon as the child runs."""
    real = subprocess.Popen.wait

    def wait(process, timeout=None):
        while not (place / "ready").exists():
            time.sleep(0.05)
        monkeypatch.setattr(subprocess.Popen, "wait", real)
        raise subprocess.TimeoutExpired("job", 0)

    (place / "code").write_text(WITH_A_CHILD)
    monkeypatch.setattr(subprocess.Popen, "wait", wait)
    words = [sys.executable, "-c", WITH_A_CHILD, str(place), "parent", child]
    later = time.monotonic() + 600
    monkeypatch.setattr(resumable, "GRACE", seconds)
    return resumable.run_until(words, later, later, cwd=place)


def alive(pid):
    """Whether a process runs; one that is dead and not yet waited for does not."""
    stat = Path("/proc", pid, "stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_job_that_is_stopped_saves_once_and_so_does_what_it_started(tmp_path, monkeypatch):
    assert stopped(monkeypatch, tmp_path, "child", 300) == resumable.UNFINISHED
    assert (tmp_path / "parent").read_text() == (tmp_path / "child").read_text() == "stopped "
    assert not alive((tmp_path / "pid").read_text())


def test_who_does_not_stop_is_killed_with_what_it_started(tmp_path, monkeypatch):
    assert stopped(monkeypatch, tmp_path, "deaf", 1) == resumable.UNFINISHED
    pid = (tmp_path / "pid").read_text()
    while alive(pid):  # a kill is not waited for by who is not the parent
        time.sleep(0.05)


def test_a_job_that_knows_its_minutes_is_told_when_to_stop(tmp_path):
    command = [
        sys.executable,
        "-c",
        "import sys; print(sys.argv[1], file=open('said', 'w'))",
        "{minutes}",
    ]
    begun = time.monotonic()
    assert resumable.run_until(command, begun + 240, begun + 300, cwd=tmp_path) == 0
    assert float((tmp_path / "said").read_text()) == pytest.approx(4, abs=0.1)


class Clock:
    """Time that passes where the test says so."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.mark.parametrize("minutes", [9.0, 1.0])
def test_a_call_ends_within_its_minutes_with_everything_saved(tmp_path, monkeypatch, minutes):
    """The slowest jobs that are allowed, and the slowest saving that is planned for."""
    clock, saved = Clock(), []

    def run_until(command, stop, end, **_):
        assert clock.now < stop < end
        clock.now = end
        return resumable.UNFINISHED

    def save(out, *_):
        saved.append(json.loads((out / "jobs.json").read_text()))
        clock.now += on_gpu.SAVING * min(1, minutes / 4)
        return ""

    monkeypatch.setattr(on_gpu, "time", clock)
    monkeypatch.setattr(on_gpu, "run_until", run_until)
    monkeypatch.setattr(gpu_state, "save", save)
    words = ["--bring", str(tmp_path / "brought"), "--minutes", str(minutes)]
    status, _ = call(monkeypatch, tmp_path, {"one": "", "two": ""}, *words)
    assert (status, saved) == (on_gpu.UNFINISHED, [{"one": "begun"}])
    assert clock.now <= 1000 + 60 * minutes


def test_a_bare_machine_goes_on_where_another_stopped(tmp_path, monkeypatch, capfd):
    """Results, checkpoints and tiles are there again; what belongs to a machine is done anew."""
    brought, first, second = tmp_path / "brought", tmp_path / "first", tmp_path / "second"
    write = (
        "import os, pathlib; p = pathlib.Path({!r}, 'made'); p.parent.mkdir(exist_ok=True); p.{}"
    )
    jobs = {
        "wheels": "print('wheels run')",
        "one": write.format(str(first / "results"), "write_text('x')"),
        "two": "raise SystemExit(3)",
    }
    monkeypatch.setattr(gpu_state, "VOLUME", 40)
    assert call(monkeypatch, first, jobs, "--bring", str(brought))[0] == on_gpu.UNFINISHED
    # the package and what wheels brought are found, and each job has the folder's caches
    found = on_gpu.environment(first)
    assert str(first / "site") in found["PYTHONPATH"].split(os.pathsep)
    assert len(list(brought.iterdir())) > 1
    (brought / "state-000-1of2.tar.gz").touch()  # of an older call, and not whole
    jobs["two"] = write.format(str(second / "results"), "read_text()")
    words = ["--carried", str(brought), "--bring", str(tmp_path / "more")]
    assert call(monkeypatch, second, jobs, *words)[0] == 0
    out = capfd.readouterr().out
    assert "state of 1 earlier calls" in out
    assert (out.count("wheels run"), out.count("== one")) == (2, 1)
    assert {path.name[:9] for path in (tmp_path / "more").iterdir()} == {"state-002"}


def test_what_a_finished_stage_has_no_use_for_stays(tmp_path):
    """Checkpoints are what fills the volumes: that of a stage that is done is left."""
    for stage, files in (("begun", ()), ("done", ("result.json", "model.pt"))):
        (tmp_path / "out" / stage).mkdir(parents=True)
        for name in ("checkpoint.pt", *files):
            (tmp_path / "out" / stage / name).write_text("x")
    gpu_state.save(tmp_path / "out", tmp_path / "out" / "bring", 1, tmp_path / "none", [])
    (volume,) = (tmp_path / "out" / "bring").iterdir()
    with tarfile.open(volume) as archive:
        assert sorted(archive.getnames()) == [
            "begun/checkpoint.pt",
            "done/model.pt",
            "done/result.json",
        ]


def test_binaries_are_packed_once(tmp_path, monkeypatch):
    def binary(cache, name):
        (cache / name).mkdir(parents=True)
        (cache / name / "k.cubin").write_text("x")
        (cache / name / "k.json").write_text("{}")
        paths = {n: str(cache / name / n) for n in ("k.cubin", "k.json")}
        (cache / name / "__grp__k.json").write_text(json.dumps({"child_paths": paths}))

    out, cache = tmp_path / "out", tmp_path / "out" / "triton"
    out.mkdir()
    binary(tmp_path / "elsewhere", "A")
    triton_cache.pack(tmp_path / "elsewhere", tmp_path / "triton-cache.tar.xz")
    assert "1 binaries put" in gpu_state.take_up(tmp_path, out, cache)
    binary(cache, "B")
    known = gpu_state.packed(out)
    gpu_state.save(out, tmp_path / "bring", 1, cache, known)
    binary(cache, "C")
    gpu_state.save(out, tmp_path / "bring", 1, cache, known)
    names = {path.name: path for path in (tmp_path / "bring").glob("triton*")}
    assert list(names) == ["triton-cache-001.tar.xz"]
    assert triton_cache.unpack(names["triton-cache-001.tar.xz"], tmp_path / "new") == 2
    assert triton_cache.entries(tmp_path / "new") == {"B", "C"}
    # the next call has nothing to add; another Triton's binaries are named and left
    gpu_state.save(out, tmp_path / "again", 2, cache, gpu_state.packed(out))
    assert not list((tmp_path / "again").glob("triton*"))
    monkeypatch.setattr(triton_cache, "digest", lambda: "another")
    assert "of another Triton" in gpu_state.take_up(tmp_path, out, tmp_path / "none")
    assert not triton_cache.entries(tmp_path / "none")


@pytest.mark.parametrize("scale", [gpu_step.Scale(), gpu_step.TOY], ids=["gpu", "toy"])
def test_every_part_of_the_step_is_made_of_known_options(scale):
    """A wrong word would show on the GPU alone, after minutes."""
    for name in gpu_step.parts_of(scale):
        options = BenchOptions(**gpu_step.options_of(scale, name))
        case = StepCase.__new__(StepCase)
        case.gpu = scale is not gpu_step.TOY
        case.options = {"variants": options.variants}
        assert case.variants()


def test_a_part_that_fails_is_not_waited_for(tmp_path, monkeypatch):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import pathlib, sys; sys.exit(1) if 'bad' in sys.argv[1] else pathlib.Path(sys.argv[1]).touch()"
    )
    monkeypatch.setattr(gpu_step, "__file__", str(worker))
    tasks = [([str(path)], path) for path in (bad, good)]
    for together in (True, False):
        assert gpu_step.spawn(tasks, time.monotonic() + 300, together=together) == {"bad.json"}
    assert good.exists()


def test_unknown_jobs_are_refused(tmp_path, monkeypatch):
    with pytest.raises(SystemExit) as error:
        call(monkeypatch, tmp_path, {"one": "pass"}, "--only", "two")
    assert error.value.code == 2


def test_every_job_has_its_rehearsal(tmp_path, monkeypatch):
    import argparse

    args = argparse.Namespace(
        out=tmp_path,
        data=tmp_path / "x.parquet",
        results=tmp_path,
        carried=tmp_path,
        rehearse=False,
    )
    monkeypatch.setattr(gpu_jobs.shutil, "which", lambda name: name)  # the sanitizer is there
    real = list(gpu_jobs.jobs(args))
    args.rehearse = True
    toy = list(gpu_jobs.jobs(args))
    # in the same order
    assert list(dict.fromkeys(n.split("-")[0] for n in real)) == [n.split("-")[0] for n in toy]


@pytest.mark.parametrize("outcome", ["skipped", "passed"])
def test_a_run_that_skipped_every_test_does_not_count_as_passed(
    tmp_path, monkeypatch, capsys, outcome
):
    monkeypatch.setattr(resumable_tests, "fingerprint", lambda: "a device")
    state = resumable_tests._Resumable(tmp_path, 60.0, worker=False)
    # a mark skips before the call, `pytest.skip` within it
    for when, found in (("setup", "skipped"), ("call", outcome)):
        state.pytest_runtest_logreport(
            pytest.TestReport("t.py::a", ("t.py", 0, "a"), {}, found, None, when)
        )
    session = SimpleNamespace(testsfailed=0, exitstatus=pytest.ExitCode.OK)
    state.pytest_sessionfinish(session)
    assert session.exitstatus == (5 if outcome == "skipped" else 0)
    assert ("every test was skipped" in capsys.readouterr().out) == (outcome == "skipped")


@pytest.mark.full
def test_passed_tests_are_left_out_until_a_source_changes(tmp_path):
    (tmp_path / "test_it.py").write_text("""
import time
def test_a():
    time.sleep(0.2)
def test_b():
    assert not __import__("pathlib").Path("broken").exists()
""")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.resumable_tests", "--resume",
             str(tmp_path / "list"), "-p", "no:cacheprovider", "--rootdir", str(tmp_path),
             "-c", "/dev/null", str(tmp_path / "test_it.py")]  # fmt: skip

    def run(minutes, *more):
        return subprocess.run(
            [*words, "--minutes", str(minutes), *more], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}"},
        )  # fmt: skip

    (tmp_path / "broken").touch()
    first = run(0.001)
    assert (first.returncode, "time is up" in first.stdout) == (resumable_tests.LEFT, True)
    second = run(1)
    assert second.returncode == 1, second.stdout
    assert "1 failed, 1 deselected" in second.stdout
    (tmp_path / "broken").unlink()
    assert run(1).returncode == 0
    assert "nothing is left: 2" in run(1).stdout
    passed = tmp_path / "list" / "passed.txt"
    passed.write_text("another device\n" + passed.read_text())
    assert "2 passed" in run(1, "-n", "2").stdout
    assert "nothing is left: 2" in run(1).stdout
