"""Twenty searches with settings that collapse: what the guards let pass, and what the last epochs held.

    python -m benchmarks.guarded            # some ten minutes of one core

Small searches of the 8x8 digits by the real command: RobustDARTS S1 to S4 with a fast alpha, NAS-Bench-201
with 4 channels, a short second-order search, and 30 times the learning rate of alpha. A returned cell
counts as *collapsed* here by this file's own rule, not the guards': more than half of the first cell's
edges are skips (noise in S4), or no convolution lies on a path from its inputs to its output. It counts as
*unmarked* when `architecture.yaml` and `result.json` hold no doubt. Beside it stands the cell of the last
epoch, which a search without guards would return there. Finished searches are kept: the same command
goes on.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from darts_core import cli
from darts_core.architecture import Architecture, CellChoice
from darts_core.bench.results import write_results
from darts_core.latency import device_name
from darts_core.runlog import read_json, read_jsonl, read_yaml
from darts_core.settings.rates import LARGEST_RATE

ROOT = Path(__file__).resolve().parent.parent
DARTS = ["search.channels=4", "search.layers=6", "search.batch_size=32", "data.limit=200"]
NB201 = ["space=nasbench201", "search.channels=4", "search.layers=1"]
FAST = "search.alpha_learning_rate=0.1"
# (name, overrides, seeds): twenty in all; 1 is the seed of benchmarks/collapse whose skips take over
CASES: list[tuple[str, list[str], tuple[int, ...]]] = [
    ("S1, alpha 0.1", ["space=s1", *DARTS, FAST, "search.epochs=20"], (0, 1)),
    ("S2, alpha 0.1", ["space=s2", *DARTS, FAST, "search.epochs=20"], (0, 1, 3)),
    ("S3, alpha 0.1", ["space=s3", *DARTS, FAST, "search.epochs=20"], (0, 1)),
    ("S4, alpha 0.1", ["space=s4", *DARTS, FAST, "search.epochs=20"], (0, 1, 2)),
    ("NAS-Bench-201, C=4", [*NB201, "search.epochs=12"], (0, 1, 2)),
    ("NAS-Bench-201, second order, short", [*NB201, "strategy=unrolled", "search.epochs=6"], (0, 1, 2)),
    (
        "NAS-Bench-201, alpha x 30",
        [*NB201, "search.epochs=12", f"search.alpha_learning_rate={30 * LARGEST_RATE:g}"],
        (0, 1, 2, 3),
    ),
]  # fmt: skip
_IDLE = ("skip_connect", "noise")


def collapsed(architecture: Architecture) -> str:
    """Why the architecture counts as collapsed; empty when it does not."""
    cell = architecture.cells[0][1]
    idle = sum(op in _IDLE for _, _, op in cell.edges)
    if 2 * idle > len(cell.edges):
        return f"{idle} of {len(cell.edges)} edges skip"
    return "" if any("conv" in op for path in _paths(cell) for op in path) else "no convolution"


def _paths(cell: CellChoice) -> list[list[str]]:
    """The operations along every path from an input to an output that no `none` cuts."""
    found: list[list[str]] = []

    def walk(state: int, ops: list[str]) -> None:
        if state < cell.inputs:
            found.append(ops)
        for source, target, op in cell.edges:
            if target == state and op != "none":
                walk(source, [op, *ops])

    for output in cell.concat:
        walk(output, [])
    return found


def one(name: str, overrides: list[str], seed: int, out: Path) -> dict[str, Any]:
    """One search by the real command; its row."""
    words = "".join(c if c.isalnum() else "-" for c in name)
    job = f"{words}-seed{seed}-with"
    argv = ["search", "data=digits", *overrides, f"seed={seed}", f"out={out}", f"job={job}"]
    status = cli.main(argv)
    if status:
        raise SystemExit(f"{job} ended with status {status}")
    folder = out / job / "V001" / "search"
    result, notes = read_json(folder / "result.json"), read_yaml(folder / "architecture.yaml")
    found = Architecture.from_yaml(folder / "architecture.yaml")
    rows = read_jsonl(folder / "metrics.jsonl")
    last = Architecture.from_text(rows[-1]["architecture"])
    marked = bool(result["doubt"]) and bool(notes.get("notes", {}).get("doubt"))
    why = collapsed(found)
    return {
        "case": name,
        "seed": seed,
        "architecture": found.text(),
        "collapsed": why,
        "marked": marked,
        "unmarked_collapse": bool(why) and not marked,
        "last_cell": last.text(),
        "last_cell_collapsed": collapsed(last),
        "epochs": len(rows),
        "epoch_returned": result["epoch"],
        "stopped": result["stopped"],
        "doubt": [doubt["message"] for doubt in result["doubt"]],
        "reports": [f"{g['guard']} after epoch {g['epoch']}" for g in result["guards"]],
        "near_ties": sum(one["confidence"] < 0.05 for one in result.get("confidence", ())),
        "seconds": round(result["device_seconds"], 1),
        "overrides": argv[2:-2],
    }


def main() -> None:
    """Run what is missing and write the results file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/guarded"))
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    args = parser.parse_args()
    out, rows = args.out.resolve(), []
    for name, overrides, seeds in CASES:
        for seed in seeds:
            rows.append(one(name, overrides, seed, out))
    counts = {
        "searches": len(rows),
        "last_cell_collapsed": sum(bool(row["last_cell_collapsed"]) for row in rows),
        "returned_collapsed": sum(bool(row["collapsed"]) for row in rows),
        "returned_marked": sum(row["marked"] for row in rows),
        "returned_collapsed_and_unmarked": sum(row["unmarked_collapse"] for row in rows),
    }
    path = write_results(
        "guarded",
        rows,
        device=device_name("cpu"),
        folder=args.results,
        command="python -m benchmarks.guarded",
        notes={"data": "digits", "counts": counts, "load_at_end": list(os.getloadavg())},
        name=out.name,
    )
    print(counts, path)


if __name__ == "__main__":
    main()
