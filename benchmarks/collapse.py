"""A search that collapses to skips, with guards that only report and with guards that stop it.

    python -m benchmarks.collapse            # about two minutes of one core

First order on RobustDARTS S2 (skip or separable convolution; C=4, 6 cells) with 200 of the 8x8 digits;
alpha learns fast. Written down are the skips and the guards' measurements of every epoch, and both
final architectures. Whether skips take over depends on the seed: `PINNED` is one where they do; the
others are shown beside it.
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path
from typing import Any

import torch

from darts_core.data import load_data
from darts_core.runlog import environment, read_json, write_json, write_text
from darts_core.search import SearchConfig, search
from darts_core.search.guards import AlphaEigenvalue, GradientSimilarity, SkipCount, count_skips
from darts_core.spaces import get_space
from darts_core.strategies import FirstOrder
from darts_core.supernet import Supernet

CONFIG: dict[str, Any] = {
    "epochs": 20,
    "batch_size": 32,
    "learning_rate": 0.025,
    "alpha_learning_rate": 0.1,
    "evaluate": True,
}
PINNED = 1
"""The seed whose search ends with 7 of 8 edges being skips, unless a guard stops it."""


def run(guarded: bool, seed: int, epochs: int) -> dict[str, Any]:
    """One search; its architecture, skips and measurements by epoch, and what the guards said."""
    torch.manual_seed(seed)
    bundle = load_data("digits", limit=200, val_fraction=0.1).without_test()
    supernet = Supernet(get_space("s2"), channels=4, layers=6, num_classes=10, in_channels=1)
    supernet.use_path("auto")
    # measured in both runs; without the guard nothing is stopped
    guards = [
        SkipCount(stop=guarded),
        AlphaEigenvalue(stop=guarded),
        GradientSimilarity(stop=False),
    ]
    config = SearchConfig(**{**CONFIG, "epochs": epochs})
    found = search(supernet, FirstOrder(), bundle, config, seed=seed, guards=guards)
    skips, edges = count_skips(found.architecture)
    names = (
        "epoch",
        "val_accuracy",
        "guard/skips",
        "guard/eigenvalue",
        "guard/gradient_similarity",
    )
    return {
        "guarded": guarded,
        "seed": seed,
        "architecture": found.architecture.text(),
        "skips": skips,
        "edges": edges,
        "stopped": found.stopped,
        "reports": [
            {"guard": f.guard, "epoch": f.epoch, "message": f.message} for f in found.findings
        ],
        "epochs": [{name: row.get(name) for name in names} for row in found.history],
        "seconds": round(found.seconds, 1),
    }


def main() -> None:
    """Run both and write `benchmarks/results/collapse_cpu_<date>.{json,md}`; rows already there are kept.

    Raises:
        SystemExit: the rows there are of another number of epochs.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[PINNED, 0, 2, 3])
    parser.add_argument("--epochs", type=int, default=CONFIG["epochs"])
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results")
    arguments = parser.parse_args()
    stem = arguments.out / f"collapse_cpu_{datetime.date.today().isoformat()}"
    kept = stem.with_suffix(".json")
    known = read_json(kept) if kept.exists() else {"rows": []}
    rows: list[dict[str, Any]] = known["rows"]
    if rows and known["config"]["epochs"] != arguments.epochs:
        raise SystemExit(
            f"{kept} holds searches of {known['config']['epochs']} epochs, not {arguments.epochs}: name "
            "another folder with --out."
        )
    done = {(row["seed"], row["guarded"]) for row in rows}
    for seed in arguments.seeds:
        for guarded in (False, True):
            if (seed, guarded) not in done:
                rows.append(run(guarded, seed, arguments.epochs))
                write(stem, rows, arguments.epochs)
    print(table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a row a search."""
    lines = [
        "| seed | guards | skips of the normal cell, epoch by epoch | first report | final skips |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        first = row["reports"][0] if row["reports"] else None
        said = f"after epoch {first['epoch']}: {first['message']}" if first else "none"
        guards = "stop" if row["guarded"] else "report only"
        skips = " ".join(str(int(epoch["guard/skips"])) for epoch in row["epochs"])
        seed = f"{row['seed']} (pinned)" if row["seed"] == PINNED else row["seed"]
        lines.append(f"| {seed} | {guards} | {skips} | {said} | {row['skips']} of {row['edges']} |")
    return "\n".join(lines) + "\n"


def write(stem: Path, rows: list[dict[str, Any]], epochs: int) -> None:
    """Both result files, after every search."""
    rows.sort(key=lambda row: (row["seed"] != PINNED, row["seed"], row["guarded"]))
    write_json(
        stem.with_suffix(".json"),
        {
            "theme": "collapse",
            "environment": environment(),
            "config": {**CONFIG, "epochs": epochs},
            "pinned_seed": PINNED,
            "rows": rows,
        },
    )
    title = "# Collapse to skips with reporting and with stopping guards\n\n"
    write_text(stem.with_suffix(".md"), title + table(rows))


if __name__ == "__main__":
    main()
