"""Run the cases: `battery_run.py PART PARTS FOLDER [EVERY [GROUPS]]` writes FOLDER/PART.json.

Each case is the real command in a process forked after the imports, with files, output, time and status of
its own.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels"), str(Path(__file__).resolve().parent)]

from battery_cases import Case, all_cases, good_files  # noqa: E402

# a refusal takes a second; work that was begun ends within this, or is a hang
SECONDS = 90
_MODULES = (
    "hydra", "torch", "darts_core.cli", "darts_core.stages.pipeline", "darts_core.stages.search",
    "darts_core.stages.train", "darts_core.stages.tune", "darts_core.stages.prune",
    "darts_core.stages.export", "darts_core.stages.bench", "darts_core.stages.report",
    "darts_core.commands.hydra_app", "darts_core.commands.jobs", "darts_core.commands.predict",
)  # fmt: skip


def judge(case: Case, status: int | None, output: str) -> str:
    """`refused`, `done`, or what is wrong: `defect`, `hang`, `accepted`, `no sentence`."""
    if status is None:
        return "hang"
    if status not in (0, 2) or "Traceback (most" in output or "this is a defect" in output:
        return "defect"
    if status == 0:
        return "accepted" if case.refuse else "done"
    said = [line for line in output.splitlines() if line.startswith("darts-core: ")]
    return "refused" if len(said) == 1 else "no sentence"


def run(case: Case, folder: Path, good: Path) -> dict[str, Any]:
    """One case in a process of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in case.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    before = _folders(folder)
    argv = [word.replace("{good}", str(good)).replace("{}", str(folder)) for word in case.argv]
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _in_child(argv, folder)
    status = _wait(child)
    output = (folder / "output").read_text(encoding="utf-8", errors="replace")
    verdict = judge(case, status, output)
    left = sorted(_folders(folder) - before) if verdict == "refused" else []
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "group": case.group, "name": case.name[:200], "verdict": verdict, "status": status, "left": left[:3],
        "seconds": round(time.monotonic() - started, 2), "output": output[-600:] if verdict not in
        ("refused", "done") else "",
    }  # fmt: skip


def _folders(folder: Path) -> set[str]:
    """Jobs and versions; the store's own lock files are none."""
    found = (p for p in (folder / "runs").rglob("*") if p.is_dir())
    return {str(p.relative_to(folder)) for p in found if not p.name.startswith(".")}


def _in_child(argv: list[str], folder: Path) -> None:
    status = 1
    with contextlib.suppress(BaseException):
        os.setsid()
        os.chdir(folder)
        descriptor = os.open(folder / "output", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        # whatever stood in their place (a test's capture) is the parent's
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1)
        limit = 12 * 2**30
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        from darts_core import cli

        status = cli.main(argv)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    os._exit(status)


def _wait(child: int) -> int | None:
    """The exit status; None when it took too long and was ended."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def main() -> None:
    """Run one part of the cases."""
    part, parts, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]).resolve()
    for name in _MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    good = folder / f"good-{part}"
    good_files(good)
    every = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    groups = re.compile(sys.argv[5] if len(sys.argv) > 5 else "")
    cases = [case for case in all_cases() if groups.search(case.group)][::every][part::parts]
    rows = []
    for case in cases:
        rows.append(run(case, folder / f"case-{part}", good))
        if rows[-1]["verdict"] not in ("refused", "done") or rows[-1]["left"]:
            print(json.dumps(rows[-1]), flush=True)
        (folder / f"{part}.json").write_text(json.dumps(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
