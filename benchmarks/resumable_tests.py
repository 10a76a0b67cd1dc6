"""A pytest plugin for devices that are there for minutes at a time: what passed is not run again.

    python -m pytest -p benchmarks.resumable_tests --resume FOLDER --minutes 9 -m gpu tests

FOLDER/passed.txt lists the tests that passed on this device with these sources; another device or a changed
file begins a new list. After `--minutes` the run ends with the tests that are running and has status 6; call
it again. Status 0 says that all have passed, 1 that one failed, 5 that none could run, as where there is no
device. With pytest-xdist, `-n 4` has four compile at once.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEFT = 6
"""Exit status when tests are left."""
SOURCES = ("darts_core", "kernels", "tests", "conf")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two options."""
    parser.addoption("--resume", type=Path, default=Path("runs/tests"), help="where the list lies")
    parser.addoption("--minutes", type=float, default=9.0, help="stop after so many")


def pytest_configure(config: pytest.Config) -> None:
    """Take part as an object with a state."""
    folder, minutes = config.getoption("--resume"), config.getoption("--minutes")
    state = _Resumable(folder, 60 * minutes, worker=hasattr(config, "workerinput"))
    config.pluginmanager.register(state, "resumable tests")


def fingerprint() -> str:
    """What a pass is worth: the device, the versions and the sources."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    found = hashlib.sha256(f"{device} {torch.__version__}".encode())
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".yaml", ".json"):
                found.update(path.read_bytes())
    return found.hexdigest()


class _Resumable:
    def __init__(self, folder: Path, seconds: float, *, worker: bool) -> None:
        self.path, self.end = folder / "passed.txt", time.monotonic() + seconds
        # with pytest-xdist the workers collect and run, and the process that started them decides
        self.worker = worker
        self.session: pytest.Session | None = None
        self.late = self.ran = False
        mark = fingerprint()
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        if lines[:1] != [mark] and not worker:
            folder.mkdir(parents=True, exist_ok=True)
            self.path.write_text(mark + "\n", encoding="utf-8")
            lines = [mark]
        self.passed = set(lines[1:])

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Keep what can be stopped."""
        self.session = session

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Leave out what has passed."""
        done = [item for item in items if item.nodeid in self.passed]
        items[:] = [item for item in items if item.nodeid not in self.passed]
        if done:
            config.hook.pytest_deselected(items=done)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a pass at once: the device may be gone with the next test. Stop when time is up."""
        if self.worker:
            return
        self.ran |= report.when == "call" and not report.skipped
        if report.when == "call" and report.passed:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(report.nodeid + "\n")
        if report.when == "teardown" and time.monotonic() > self.end and self.session is not None:
            self.late = True
            self.session.shouldstop = "time is up"

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Say whether to call again."""
        if self.worker:
            return
        if session.testsfailed:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        elif self.late:
            session.exitstatus = LEFT
            print("\ntime is up: call again for the tests that are left")
        elif session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self.passed:
            session.exitstatus = pytest.ExitCode.OK
            print(f"\nnothing is left: {len(self.passed)} tests have passed")
        elif session.exitstatus == pytest.ExitCode.OK and not self.ran and not self.passed:
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
            print("\nevery test was skipped: nothing has been tested")
