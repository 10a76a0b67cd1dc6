"""Stage `run`: the whole pipeline; each step is a stage of its own, so a killed run goes on where it was."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from darts_core.errors import ArchitectureError
from darts_core.report.read import read_version
from darts_core.report.results import headline, model_rows
from darts_core.runlog import write_json
from darts_core.stages.bench import bench
from darts_core.stages.doubt import doubtful
from darts_core.stages.export import export
from darts_core.stages.fronts import run_front
from darts_core.stages.prune import prune
from darts_core.stages.report import report
from darts_core.stages.rivals import (
    check_rivals,
    rival_baseline,
    train_like_the_network,
    train_rivals,
)
from darts_core.stages.schema import (
    BenchStage,
    ExportStage,
    Pipeline,
    PruneStage,
    ReportStage,
    SearchStage,
    ShrinkStage,
    TrainStage,
    TuneStage,
)
from darts_core.stages.search import search
from darts_core.stages.shrink import shrink
from darts_core.stages.train import train
from darts_core.stages.tune import tune

__all__ = ["run"]

log = logging.getLogger("darts_core")
# what is spent on our network beside the training that every network gets
_BEFORE = ("search", "searched", "tune", "prune", "shrink")


def run(config: Pipeline, version: Path) -> dict[str, Any]:
    """Search, tune, train, prune or shrink, export; tune and train a baseline as much; then compare.

    `searched/` is the found architecture under the recipe as configured, `train/` under the tuned
    one; `baseline/` holds the hand-designed network, tuned over as many trials.

    Returns:
        costs (stage -> multiples of one training), report (path), val_<metric> and test_<metric>.

    Raises:
        ArchitectureError: the search's guards doubt whatever it found, and `allow_doubtful` is false.
    """
    check_rivals(config, version)
    found = {"search": search(_search_part(config), version / "search")}
    _require_trusted(found["search"], version, allowed=config.allow_doubtful)
    found["searched"] = train(config.part(TrainStage), version / "searched")
    found["tune"] = tune(config.part(TuneStage), version / "tune")
    tuned = replace(config, train=replace(config.train, **found["tune"]["best"]))
    found["train"] = train(tuned.part(TrainStage), version / "train")
    if config.reduce == "prune":
        found["prune"] = prune(tuned.part(PruneStage), version / "prune")
    elif config.reduce == "shrink":
        found["shrink"] = shrink(tuned.part(ShrinkStage), version / "shrink")
    found["export"] = export(config.part(ExportStage), version / "export")
    seconds = sum(
        float(result["device_seconds"]) for name, result in found.items() if name in _BEFORE
    )
    found |= _baseline(config, version / "baseline", seconds)
    found |= dict(train_rivals(config, version, seconds=seconds))
    found["bench"] = bench(config.part(BenchStage), version / "bench")
    costs = _costs(found)
    write_json(version / "costs.json", {"schema_version": 1, "trainings": costs})
    _say_costs(costs)
    page = report(config.part(ReportStage), version / "report")
    run_front(version)
    told = read_version(version)
    # the last lines say in words what came of it
    log.info("%s. %s", *headline(told, model_rows(told)[0]))
    last = found[config.reduce] if config.reduce in found else found["train"]
    return {
        "costs": costs,
        **{key: value for key, value in last.items() if key.startswith(("val_", "test_"))},
        **page,
    }


def _search_part(config: Pipeline) -> SearchStage:
    """What the search is given: a budget that is a share is one of the rival's time."""
    latency = config.latency
    if latency.share is not None:
        rival, width = rival_baseline(config), config.bench.baseline_width
        latency = replace(latency, baseline=rival, baseline_width=width)
    return config.part(SearchStage, seeds=1, latency=latency)


def _require_trusted(result: Mapping[str, Any], version: Path, *, allowed: bool) -> None:
    """Nothing, unless the guards doubt what the search returned and nobody said to go on.

    Raises:
        ArchitectureError: says what they doubt.
    """
    doubt = doubtful(result)
    if not doubt:
        return
    if not allowed:
        raise ArchitectureError(
            f"The pipeline ends here: the architecture in {version / 'search'} is doubtful ({doubt}) "
            "Search longer or with other settings, or go on with it: allow_doubtful=true."
        )
    log.warning("going on with a doubtful architecture (allow_doubtful=true): %s", doubt)


def _baseline(config: Pipeline, folder: Path, seconds: float) -> dict[str, dict[str, Any]]:
    """The hand-designed network: same epochs, same space of trials, same splits."""
    width = config.bench.baseline_width
    found = train_like_the_network(
        config, rival_baseline(config), folder, seconds=seconds, width=width
    )
    return {f"baseline {step}": result for step, result in found.items()}


def _costs(found: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Device seconds of each stage over those of training the final architecture once.

    The finalists' part of the search is stated beside it.
    """
    unit = float(found["train"]["device_seconds"])
    parts = {**found, "finalists, of the search": found["search"].get("finalists", {})}
    return {
        name: round(float(result["device_seconds"]) / unit, 3)
        for name, result in parts.items()
        if "device_seconds" in result and unit > 0
    }


def _say_costs(costs: Mapping[str, float]) -> None:
    parts = [f"{name} {cost:.2f}" for name, cost in costs.items()]
    log.info("cost in trainings of the final architecture: %s", ", ".join(parts))
