"""The command that runs everything on a GPU: what is done stays done, the rest goes on."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import on_gpu, resumable_tests

ROOT = Path(__file__).resolve().parents[2]


def call(monkeypatch, folder, jobs, *words):
    """(exit status, record) of one call with made-up jobs."""
    commands = {name: [sys.executable, "-c", code] for name, code in jobs.items()}
    monkeypatch.setenv("TRITON_CACHE_DIR", str(folder / "no binaries"))
    monkeypatch.setattr(on_gpu, "jobs", lambda _: commands)
    monkeypatch.setattr(sys, "argv", ["on_gpu", "--out", str(folder), *words])
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


def test_a_job_is_asked_to_stop_in_time(tmp_path, monkeypatch):
    code = f"""
import pathlib, signal, time
def stop(*_):
    pathlib.Path({str(tmp_path / "saved")!r}).touch()
    raise SystemExit(0)
signal.signal(signal.SIGTERM, stop)
time.sleep(60)
"""
    until = time.monotonic() - 3  # as if most of the minutes were over
    assert on_gpu.run([sys.executable, "-c", code], until) == on_gpu.UNFINISHED
    assert (tmp_path / "saved").exists()


def test_unknown_jobs_are_refused(tmp_path, monkeypatch):
    with pytest.raises(SystemExit) as error:
        call(monkeypatch, tmp_path, {"one": "pass"}, "--only", "two")
    assert error.value.code == 2


def test_every_job_has_its_rehearsal(tmp_path):
    import argparse

    args = argparse.Namespace(
        out=tmp_path, data=tmp_path / "x.parquet", results=tmp_path, rehearse=False
    )
    # a tool of the GPU's own, where it is there
    real = set(on_gpu.jobs(args)) - {"sanitizer"}
    args.rehearse = True
    toy = set(on_gpu.jobs(args))
    assert {name.split("-")[0] for name in real} == {name.split("-")[0] for name in toy}


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
