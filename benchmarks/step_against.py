"""The search step against another commit's: both take turns in processes of their own.

    git worktree add ../old COMMIT
    OMP_NUM_THREADS=1 taskset -c 1 python -m benchmarks.step_against --old ../old --rounds 30

The steps are those of `darts-core bench what=step`, built by each checkout's own code. Every round lets the
process of either checkout make a step of every variant, the one that begins alternating, and every few rounds
both are started anew, as how a process lies in memory is worth some per cent. Stated is, per variant, the
median of the new code's steps over the median of the old code's, and the quartiles of the rounds' own ratios:
by the time of the processor, which other work on the core disturbs least, and by the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from darts_core.bench.results import command_line, write_results
from darts_core.runlog import processor_name

CASES = ("darts", "nasbench201", "pc_darts", "gdas")

# runs inside either checkout: nothing of this file's own imports may be assumed there
_WORKER = """
import json, sys, time
import torch
torch.set_num_threads(1)
from darts_core.bench.step import CASES, StepCase
from darts_core.settings import BenchOptions
import darts_core
steps = {}
for case in json.loads(sys.argv[1]):
    made = StepCase(BenchOptions(), torch.device("cpu"), **CASES[case])
    for name in json.loads(sys.argv[2]):
        steps[f"{case}, {name}"] = made.step(name)
        steps[f"{case}, {name}"]()
print(json.dumps([darts_core.__file__, list(steps)]), flush=True)
for line in sys.stdin:
    step = steps[line.strip()]
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    print(json.dumps([time.process_time() - cpu, time.perf_counter() - wall]), flush=True)
"""


class Worker:
    """A process of one checkout that makes a step when it is told to."""

    def __init__(self, root: Path, cases: list[str], variants: list[str]) -> None:
        env = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'kernels'}"}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _WORKER, *map(json.dumps, (cases, variants))],
            cwd=root, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            encoding="utf-8",
        )  # fmt: skip
        where, self.variants = self._read()
        if not Path(where).is_relative_to(root):
            raise RuntimeError(f"the worker of {root} imported {where}")

    def _read(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def seconds(self, variant: str) -> tuple[float, float]:
        """Seconds of the processor and by the clock of one step."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{variant}\n")
        self._process.stdin.flush()
        cpu, wall = self._read()
        return cpu, wall

    def end(self) -> None:
        """Wait for the end of the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def commit(root: Path) -> str:
    """The commit of a checkout."""
    words = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    return subprocess.run(
        words, capture_output=True, text=True, encoding="utf-8", check=True
    ).stdout.strip()


def row(variant: str, taken: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """The ratio new / old of one variant, by the processor and by the clock."""
    found: dict[str, Any] = {"name": variant, "n": len(taken["old"])}
    for place, kind in enumerate(("processor", "clock")):
        old, new = ([times[place] for times in taken[side]] for side in ("old", "new"))
        low, _, high = statistics.quantiles([b / a for a, b in zip(old, new, strict=True)])
        found[kind] = {
            "ratio": round(statistics.median(new) / statistics.median(old), 4),
            "quartiles_of_ratios": [round(low, 4), round(high, 4)],
            "old_ms": round(1000 * statistics.median(old), 2),
            "new_ms": round(1000 * statistics.median(new), 2),
        }
    return found


def main() -> None:
    """Take turns, print and store the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old", type=Path, required=True, help="a checkout of the other commit")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--restart", type=int, default=5, help="rounds between new processes")
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--variants", nargs="+", default=["batched", "batched second order"])
    parser.add_argument("--out", default="benchmarks/results")
    given = parser.parse_args()
    if given.rounds < 2:
        parser.error("quartiles need --rounds 2 or more")
    roots = {"old": given.old.resolve(), "new": Path(__file__).resolve().parents[1]}
    taken: dict[str, dict[str, list[tuple[float, float]]]] = {}
    workers: dict[str, Worker] = {}
    for number in range(given.rounds):
        if number % given.restart == 0:
            for worker in workers.values():
                worker.end()
            workers = {
                side: Worker(root, given.cases, given.variants) for side, root in roots.items()
            }
        for variant in workers["new"].variants:
            kept = taken.setdefault(variant, {"old": [], "new": []})
            for side in ("old", "new") if number % 2 == 0 else ("new", "old"):
                kept[side].append(workers[side].seconds(variant))
        print(f"round {number + 1} of {given.rounds}", flush=True)
    for worker in workers.values():
        worker.end()
    rows = [row(variant, kept) for variant, kept in taken.items()]
    for found in rows:
        print(found["name"], found["processor"], found["clock"])
    ratios = [found["processor"]["ratio"] for found in rows]
    summary = {"median": statistics.median(ratios), "largest": max(ratios)}
    print(summary)
    path = write_results(
        "step-against",
        rows,
        device=f"{processor_name()}, one of {os.cpu_count()} cores",
        folder=given.out,
        command=f"{command_line(without=('--old', '--out'))} --old CHECKOUT",
        notes={
            "old_commit": commit(roots["old"]), "new_commit": commit(roots["new"]),
            "rounds": given.rounds, "restart": given.restart, "ratio_by_processor": summary,
        },
    )  # fmt: skip
    print(path)


if __name__ == "__main__":
    main()
