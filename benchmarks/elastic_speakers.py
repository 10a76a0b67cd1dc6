"""A front of the spoken digits' network with each speaker left out in turn, one results file for all.

    python -m benchmarks.elastic_speakers --front 0.5 --fine-tuning 10 --name spoken-digits-half-six-speakers

`benchmarks.elastic`'s steps `base`, `shrink`, `whole` and `shares` for every speaker (depthwise-separable 1-D
network of width 64 on log-mel features; val is another whole speaker), and the means over the speakers: one
alone says little, as who is left out moves the accuracy by more than what is compared. A run that was
stopped goes on; other settings need a folder of their own (`--runs`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.elastic import mean_of, shares, summary, whole
from benchmarks.elastic_case import Case, kept
from benchmarks.resumable import same_settings
from benchmarks.spoken_digits import features
from darts_core.bench.results import command_line, write_results
from darts_core.latency import device_name

COMPARED = ("half_minus_base", "whole_minus_base", "cost_in_trainings")


def over_speakers(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is compared -> its mean over the speakers that have it, the standard error, their number."""
    found: dict[str, Any] = {}
    for name in COMPARED:
        if values := [row[name] for row in rows if name in row]:
            found[name] = mean_of(values)
    return found


def speaker_row(case: Case, who: str) -> dict[str, Any]:
    """The row of one speaker, made first where it is missing."""
    case.base()
    case.shrink()
    kept(case.folder / "whole.json", lambda: whole(case))
    kept(case.folder / "shares.json", lambda: shares(case))
    return {"left_out": who, **summary(case)}


def main(words: list[str] | None = None) -> None:
    """Parse the command line, run every speaker, write the results file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--recordings", type=Path, default=Path("spoken_digits.npz"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--speakers", nargs="+", default=[], help="all, where none is named")
    parser.add_argument("--epochs", type=int, default=20, help="of the given network")
    parser.add_argument("--elastic-epochs", type=int, default=10)
    parser.add_argument("--fine-tuning", type=int, default=1, help="epochs of each point")
    parser.add_argument("--front", type=float, nargs="+", default=[0.5])
    parser.add_argument("--elastic-recipe", nargs="+", default=[], help="beside its epochs")
    parser.add_argument("--name", default="spoken-digits", help="in the results file's name")
    parser.add_argument("--runs", type=Path, default=Path("runs/elastic-speakers"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args(words)
    args.runs.mkdir(parents=True, exist_ok=True)
    data = features(args.recordings, args.runs)
    speakers = args.speakers or [str(name) for name in np.load(data)["groups"]]
    same_settings(
        args.runs,
        {"front": args.front, "epochs": args.epochs, "elastic_epochs": args.elastic_epochs,
         "fine_tuning": args.fine_tuning, "elastic_recipe": args.elastic_recipe},
    )  # fmt: skip
    rows = []
    for who in speakers:
        left_out = ("data=npz", f"data.path={data.resolve()}", "data.split_by=group",
                    f"data.leave_out={who}", "data.val_fraction=0.2")  # fmt: skip
        case = Case(
            args.seed, args.runs / who, left_out, "dscnn", 64, args.epochs, args.elastic_epochs,
            tuple(args.front), fine_tuning=args.fine_tuning, elastic_recipe=tuple(args.elastic_recipe),
        )  # fmt: skip
        rows.append(speaker_row(case, who))
    notes = {
        "data": ["data=npz", "data.split_by=group", "data.val_fraction=0.2"], "architecture": "dscnn",
        "width": 64, "epochs": args.epochs, "elastic_epochs": args.elastic_epochs,
        "fine_tuning": args.fine_tuning, "elastic_recipe": args.elastic_recipe,
        "over_speakers": over_speakers(rows),
    }  # fmt: skip
    made_at = write_results(
        "elastic", rows, device=device_name(torch.device("cpu")), folder=args.out, notes=notes,
        name=args.name, command=command_line(without=("--runs", "--out", "--recordings")),
    )  # fmt: skip
    print(made_at)


if __name__ == "__main__":
    main()
