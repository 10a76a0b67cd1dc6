"""Everything that needs a GPU, in order, behind one command; call it until it says that nothing is left.

    python -m benchmarks.on_gpu --data train.parquet     # CIFAR-10 as parquet
    python -m benchmarks.on_gpu --rehearse               # the same list in toy size on the CPU
    python -m benchmarks.on_gpu --data FILE --bring OUT  # on a machine that starts bare each time

| job | command | what for |
|---|---|---|
| wheels | benchmarks.gpu_wheels --install | packages that the image lacks (`make gpu-wheels`) |
| compile | benchmarks.triton_cache --compile | binaries of all steps, in many processes, without the device |
| cells | pytest -m gpu, whole cells and nets | whether what follows is worth measuring |
| step | benchmarks/gpu_step.py --tune | tiles; the step on every path; every kernel against its floor |
| search | benchmarks/full_search.py | the paper's search, tf32 and bf16, 3 seeds; then short trainings |
| export | benchmarks/export_gpu.py | the fused export path against plain graphs |
| tests | pytest -m gpu | all kernels, strategies, checkpoints, artifacts |
| sanitizer | compute-sanitizer | the small bodies, where the tool is there; rehearsed in the interpreter |
| latency-* | darts-core latency check | rank correlation of the latency table, 200 random networks |
| prune | darts-core prune | the trained cell to half its measured latency |
| models | darts-core bench -m experiment=models_gpu | accuracy against latency |

The most valuable come first, and each says what it will cost: the minutes that it took so far, and how many
calls of nine minutes it is thought to take.

A job runs until it is done or time is up; it is then asked to save and stop, and the next call goes on
there. `--minutes` are those of the whole call: the last minute of it is for stopping and saving.
`FOLDER/jobs.json` says which are done; a failed one is tried again in the next call, after the others.
Status 0: all done; 3: call again; 1: something failed and nothing else is left.

The package need not be installed: jobs find it, and what `wheels` installs in FOLDER/site, by PYTHONPATH.
Tiles, binaries and results lie in FOLDER, too. What is in `--carried` is put into place first: wheels,
binaries that were compiled elsewhere (`make gpu-binaries`), and the state that `--bring` left in an earlier
call, after every job (`benchmarks.gpu_state`).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import gpu_state
from benchmarks.gpu_jobs import SITE, jobs
from benchmarks.resumable import UNFINISHED, run_until
from benchmarks.resumable_tests import LEFT

ROOT = Path(__file__).resolve().parent.parent
STOPPING, SAVING = 45.0, 15.0
"""Seconds at the end of a call for jobs to stop in, and to save in; at most a quarter of the call."""
EACH_MACHINE = ("wheels", "doctor")
"""Jobs that a machine which starts bare does anew."""
CALLS = {
    "compile": 1,
    "cells": 1,
    "step": 2,
    "search": 10,
    "export": 1,
    "tests": 4,
    "latency": 1,
    "models": 10,
}
"""Calls of nine minutes that a job is thought to take: estimated, until one has been counted."""


def cost(name: str, minutes: Sequence[float], left: float) -> str:
    """What a job has cost, may cost now, and is thought to cost; `left` in seconds."""
    words = [f"at most {max(0.0, left / 60):.1f} minutes of this call"]
    if minutes:
        words.append(f"{sum(minutes):.1f} so far in {len(minutes)}")
    calls = CALLS.get(name.split("-")[0])
    if calls:
        words.append(f"about {calls} in all (estimated)")
    return ", ".join(words)


def environment(out: Path) -> dict[str, str]:
    """What the jobs find: our sources and carried packages, and caches of their own in the folder."""
    paths = [str(ROOT), str(ROOT / "kernels"), str(out / SITE), os.environ.get("PYTHONPATH", "")]
    return {
        "TRITON_CACHE_DIR": str(out / "triton"),
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "XDG_CACHE_HOME": str(out / "cache"),
    }


class Call:
    """One call: what is known of the ones before, and what is left of its minutes."""

    def __init__(self, out: Path, minutes: float, bring: Path | None, *, bare: bool) -> None:
        self.out, self.bring = out, bring
        self.environment = environment(out)
        self.cache = Path(self.environment["TRITON_CACHE_DIR"])
        self.known = gpu_state.packed(out)
        share = min(1.0, 60 * minutes / 4 / (STOPPING + SAVING))
        over = time.monotonic() + 60 * minutes
        self.end = over - share * SAVING
        self.stop = self.end - share * STOPPING
        self.status: dict[str, str] = _read(out / "jobs.json")
        self.costs: dict[str, list[float]] = _read(out / "minutes.json")
        self.number = _read(out / "calls.json").get("calls", 0) + 1
        if bare:
            self.status = {k: v for k, v in self.status.items() if k not in EACH_MACHINE}
        self._keep()

    def run(self, name: str, command: Sequence[str]) -> None:
        """Run or go on with a job, and write down how it ended."""
        left = self.stop - time.monotonic()
        print(f"== {name}: {cost(name, self.costs.get(name, []), left)}", flush=True)
        begun = time.monotonic()
        self.status[name] = "begun"
        try:
            code = run_until(command, self.stop, self.end, cwd=ROOT, env=self.environment)
            ends = {0: "done", UNFINISHED: "begun", LEFT: "begun"}
            self.status[name] = ends.get(code, f"failed ({code})")
        finally:
            spent = round((time.monotonic() - begun) / 60, 2)
            self.costs.setdefault(name, []).append(spent)
            self._keep()
            self.save()

    def save(self) -> None:
        """Leave what the next call needs."""
        if self.bring is not None:
            said = gpu_state.save(self.out, self.bring, self.number, self.cache, self.known)
            print(f"saved: {said}", flush=True)

    def _keep(self) -> None:
        for name, content in (
            ("jobs", self.status), ("minutes", self.costs), ("calls", {"calls": self.number})
        ):  # fmt: skip
            temporary = self.out / f"{name}.new"
            temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
            temporary.replace(self.out / f"{name}.json")


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, help="parquet file with images and labels")
    parser.add_argument("--out", type=Path, default=Path("runs/on_gpu"), help="the jobs' folder")
    parser.add_argument("--results", type=Path, help="results files; by default OUT/results")
    parser.add_argument("--carried", type=Path, default=ROOT / "carried", help="what came along")
    parser.add_argument("--bring", type=Path, help="leave state and new binaries in this folder")
    parser.add_argument("--minutes", type=float, default=9.0, help="of this call; call again")
    parser.add_argument("--only", nargs="+", help="these jobs alone")
    parser.add_argument("--rehearse", action="store_true", help="toy size on the CPU")
    args = parser.parse_args()
    args.results = args.results or args.out / "results"
    for name in ("data", "out", "results", "carried", "bring"):
        path = getattr(args, name)
        setattr(args, name, path.resolve() if path is not None else None)
    return parser, args


def main() -> int:
    """Go on with the jobs; the exit status says whether to call again."""
    begun = time.monotonic()
    parser, args = _arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    known = jobs(args)
    if args.only and set(args.only) - set(known):
        parser.error(f"unknown jobs {sorted(set(args.only) - set(known))}; there are {list(known)}")
    wanted = [name for name in known if args.only is None or name in args.only]
    cache = Path(environment(args.out)["TRITON_CACHE_DIR"])
    bare = not (args.out / "jobs.json").is_file()
    print(gpu_state.take_up(args.carried, args.out, cache), flush=True)
    call = Call(args.out, args.minutes - (time.monotonic() - begun) / 60, args.bring, bare=bare)
    # what failed comes last: it may wait for what the others leave
    for name in sorted(wanted, key=lambda name: "failed" in call.status.get(name, "")):
        if call.status.get(name) == "done" or time.monotonic() > call.stop - 5:
            continue
        try:
            call.run(name, known[name])
        except KeyboardInterrupt:
            break
        if call.status[name] == "begun":
            break
    return _summary({name: call.status.get(name, "not begun") for name in wanted})


def _summary(status: dict[str, str]) -> int:
    for name, word in status.items():
        print(f"{name:24s} {word}")
    left = [name for name, word in status.items() if word != "done"]
    if not left:
        print("nothing is left")
        return 0
    if all("failed" in status[name] for name in left):
        return 1
    print("call again")
    return UNFINISHED


if __name__ == "__main__":
    # a stop from outside is one like any other: the job saves, and the state is kept
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    raise SystemExit(main())
