"""The demo over several seeds: accuracies with their spread, times per seed, speed-up by pruning.

    python -m benchmarks.demo_seeds --seeds 0 1 2        # about 2 minutes a seed on 2 quiet cores

Runs `darts-core run experiment=demo` for each seed (a finished or interrupted seed goes on where it was)
and writes one results file: a row a model and runtime with the accuracies of all seeds. Each seed finds
another architecture, so sizes and times are those of the first seed; the notes hold every seed's.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from darts_core import cli
from darts_core.bench.results import write_results
from darts_core.report import ModelRow
from darts_core.report.read import read_rows
from darts_core.runlog import read_json


def run_seed(seed: int, out: Path) -> tuple[list[ModelRow], dict[str, Any]]:
    """The rows of one seed's demo, and what pruning and each stage cost it."""
    status = cli.main(["run", "experiment=demo", f"seed={seed}", f"job=seed{seed}", f"out={out}"])
    if status:
        raise SystemExit(status)
    version = out / f"seed{seed}" / "V001"
    prune = read_json(version / "prune" / "result.json")
    kept = ("latency_before_ms", "latency_after_ms", "budget_ms", "speedup", "note")
    facts = {
        "seed": seed,
        "pruning": {key: prune[key] for key in kept},
        "cost_in_trainings": read_json(version / "costs.json")["trainings"],
        "architecture": read_json(version / "search" / "result.json")["text"],
    }
    return read_rows(version / "bench" / "results.json"), facts


def joined(runs: Sequence[list[ModelRow]]) -> list[ModelRow]:
    """The first seed's rows with the accuracies of all seeds."""
    rows = []
    for row in runs[0]:
        same = [
            other
            for rows_of_seed in runs
            for other in rows_of_seed
            if (other.name, other.kind, other.runtime) == (row.name, row.kind, row.runtime)
        ]
        accuracies = tuple(value for other in same for value in other.accuracies)
        rows.append(replace(row, accuracies=accuracies))
    return rows


def main() -> None:
    """Parse the command line, run the seeds, write the results file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/demo_seeds"), help="run folders")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    runs, facts = zip(*(run_seed(seed, args.runs) for seed in args.seeds), strict=True)
    seeds = [
        {**fact, "rows": [row.to_dict() for row in rows]}
        for rows, fact in zip(runs, facts, strict=True)
    ]
    rows = joined(runs)
    device = next(iter(rows[0].latency.values())).device
    seeds_text = " ".join(map(str, args.seeds))
    path = write_results(
        "demo",
        rows,
        device=device,
        folder=args.out,
        command=f"python -m benchmarks.demo_seeds --seeds {seeds_text}",
        notes={"data": "scikit-learn digits", "seeds": seeds},
    )
    for row in rows:
        std = row.accuracy_std
        spread = f" +- {100 * std:.2f}" if std is not None else ""
        print(f"{row.kind:10s} {row.runtime:8s} {100 * (row.accuracy_mean or 0):.2f}{spread}")
    speedups = ", ".join(f"{fact['pruning']['speedup']:.2f}" for fact in facts)
    print(f"speed-up by pruning: {speedups}")
    print(path)


if __name__ == "__main__":
    main()
