"""What a fault left in the books, a row of a results file: `make test-cluster FAULTS=benchmarks/results`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def row(
    fault: str, where: str, results: Iterable[Path], trials: int, trained: Mapping[Any, int]
) -> dict[str, Any]:
    """One fault's figures.

    Args:
        fault: what happened.
        where: the engine.
        results: the files of results, of all hosts.
        trials: of the study.
        trained: how often each epoch of each trial was trained, as far as the trainings themselves know.
    """
    found = [json.loads(path.read_text(encoding="utf-8")) for path in results]
    ended = Counter(result["number"] for result in found)
    return {
        "fault": fault,
        "where": where,
        "trials": trials,
        "complete": sum(result["state"] == "complete" for result in found),
        "lost": sum(ended[number] == 0 for number in range(trials)),
        "run_twice": sum(count > 1 for count in ended.values()),
        "sittings": sum(result["attempts"] for result in found),
        "epochs": len(trained),
        "epochs_trained_again": sum(trained.values()) - len(trained),
    }


def study_row(
    fault: str, where: str, result: Any, epochs: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """The same of a study's result and the epochs that stand in each trial's checkpoint."""
    trained = Counter((number, epoch) for number, those in enumerate(epochs) for epoch in those)
    paths = [trial.folder / "result.json" for trial in result.trials]
    return row(fault, where, paths, len(result.trials), trained)


def facts(result: Any) -> list[tuple[Any, ...]]:
    """Of each trial of a study what no fault may change."""
    return [(r.number, r.state, r.params, r.epochs, r.value) for r in result.trials]
