"""Small changes to how alpha moves or is read: more found on the planted field, fewer skips on S2?

    OMP_NUM_THREADS=1 python -m benchmarks.alpha_methods     # goes on where it was killed

First order with softmax, as it is and with one change each: the decay of beta-DARTS (as shipped), a penalty
on the weights' entropy that rises over the search, operations dropped at random with a chance that falls to
nothing; and, from the same search, the architecture of the weights averaged over the epochs in which alpha
moved. The planted field is that of `benchmarks.planted_field` on fresh seeds, S2 that of
`benchmarks.collapse` without guards. No setting was tried beside those written here.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import collapse, planted_field
from darts_core.architecture import Architecture
from darts_core.bench.results import write_results
from darts_core.data import load_data
from darts_core.latency import device_name
from darts_core.penalties import AlphaPenalty, Beta
from darts_core.relax import Dropout, Softmax
from darts_core.runlog import read_json, write_json
from darts_core.search import SearchConfig, SearchResult, search
from darts_core.search.guards import count_skips
from darts_core.spaces import SearchSpace, get_space
from darts_core.spaces.toy import PLANTED
from darts_core.strategies import FirstOrder
from darts_core.supernet import Supernet

PLANTED_SEEDS, COLLAPSE_SEEDS = tuple(range(40, 50)), (collapse.PINNED, 0, 2, 3)


class Entropy(AlphaPenalty):
    """`end * progress` times the mean entropy of the weights: choices are free at first, then sharpened."""

    def __init__(self, end: float = 0.5) -> None:
        self.end = end

    def of_alphas(self, alphas: Mapping[str, Tensor], progress: Tensor | float) -> Tensor:
        """The penalty."""
        entropies = []
        for alpha_EK in alphas.values():
            log_EK = torch.log_softmax(alpha_EK, dim=-1)
            entropies.append(-(log_EK.exp() * log_EK).nan_to_num(0.0).sum(-1))
        return self.end * progress * torch.cat(entropies).mean()


# name -> relaxation, penalties
METHODS: dict[str, tuple[type[Softmax], tuple[type[AlphaPenalty], ...]]] = {
    "first order": (Softmax, ()),
    "beta penalty": (Softmax, (Beta,)),
    "entropy penalty": (Softmax, (Entropy,)),
    "operation dropout": (Dropout, ()),
}


def averaged(space: SearchSpace, found: SearchResult, warmup: int) -> Architecture:
    """The architecture of the weights, averaged over the epochs in which alpha moved."""
    rows = [row["alphas"] for row in found.history[warmup:]]
    return space.discretize(
        {kind: np.mean([row[kind] for row in rows], axis=0) for kind in rows[0]}
    )


def searched(
    method: str, space: str, bundle: Any, settings: Mapping[str, Any], seed: int, **sizes: int
) -> tuple[SearchResult, Architecture]:
    """One search; its result and the averaged architecture."""
    relaxation, penalties = METHODS[method]
    torch.manual_seed(seed)
    supernet = Supernet(get_space(space), relaxation=relaxation(), **sizes)
    supernet.use_path("auto")
    found = search(
        supernet, FirstOrder(), bundle, SearchConfig(**settings), seed=seed,
        penalties=[penalty() for penalty in penalties],
    )  # fmt: skip
    return found, averaged(get_space(space), found, settings.get("alpha_warmup_epochs", 0))


def planted(method: str, seed: int) -> dict[str, Any]:
    """Right edges of 2, of the last and of the averaged weights."""
    found, mean = searched(
        method, "toy", planted_field.planted_bundle(), planted_field.CONFIG, seed,
        channels=planted_field.CHANNELS, layers=1, num_classes=4,
    )  # fmt: skip
    return {"last": _right(found.architecture), "averaged": _right(mean)}


def _right(architecture: Architecture) -> int:
    ops = [op for _, _, op in architecture.cell("cell").edges]
    return sum(a == b for a, b in zip(ops, PLANTED, strict=True))


def collapsed(method: str, seed: int) -> dict[str, Any]:
    """Skips on the 8 edges of the normal cell, of the last and of the averaged weights."""
    bundle = load_data("digits", limit=200, val_fraction=0.1).without_test()
    found, mean = searched(
        method, "s2", bundle, {**collapse.CONFIG, "evaluate": False}, seed,
        channels=4, layers=6, num_classes=10, in_channels=1,
    )  # fmt: skip
    return {"last": count_skips(found.architecture)[0], "averaged": count_skips(mean)[0]}


TESTS = {"planted field": (planted, PLANTED_SEEDS), "S2": (collapsed, COLLAPSE_SEEDS)}


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a method and way of reading: successes on the planted field, mean skips on S2."""
    found = []
    for method in METHODS:
        for read in ("last", "averaged"):
            own = [row for row in rows if row["method"] == method]
            if not own:
                continue
            right = [row[read] for row in own if row["test"] == "planted field"]
            skips = [row[read] for row in own if row["test"] == "S2"]
            found.append({
                "method": method, "weights": read,
                "planted_found": sum(r == len(PLANTED) for r in right), "planted_n": len(right),
                "skips_of_8": skips, "skips_mean": float(np.mean(skips)) if skips else None,
            })  # fmt: skip
    return found


def main() -> None:
    """Run what is missing, write the results file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--tests", nargs="+", choices=list(TESTS), default=list(TESTS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--runs", type=Path, default=Path("runs/alpha_methods"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    path = args.runs / "rows.json"
    rows: list[dict[str, Any]] = read_json(path)["rows"] if path.is_file() else []
    known = {(row["test"], row["method"], row["seed"]) for row in rows}
    for test in args.tests:
        judge, seeds = TESTS[test]
        for method in args.methods:
            for seed in seeds:
                if (test, method, seed) not in known:
                    rows.append(
                        {"test": test, "method": method, "seed": seed, **judge(method, seed)}
                    )
                    args.runs.mkdir(parents=True, exist_ok=True)
                    write_json(path, {"schema_version": 1, "rows": rows})
    table = summary(rows)
    out = write_results(
        "alpha-methods", [*table, *rows], device=device_name(torch.device("cpu")), folder=args.out,
        notes={"planted": planted_field.CONFIG, "collapse": collapse.CONFIG},
    )  # fmt: skip
    for row in table:
        print(f"{row['method']:18s} {row['weights']:9s} {row['planted_found']} of {row['planted_n']}  "
              f"skips {row['skips_of_8']}")  # fmt: skip
    print(out)


if __name__ == "__main__":
    main()
