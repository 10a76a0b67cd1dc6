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
# seconds for which other work is waited for before what is only aimed at is timed beside it
_PATIENCE = 10.0
# of the trained network's time, left where what is aimed at is far off
_MOST_PRUNED = 0.5
# of a metric that is a share: what nobody would give for time without being told
_MUCH = 0.1


def run(config: Pipeline, version: Path) -> dict[str, Any]:
    """Search, tune, train, prune or shrink, export; tune and train a baseline as much; then compare.

    `searched/` is the found architecture under the recipe as configured, `train/` under the tuned
    one; `baseline/` holds the hand-designed network, tuned over as many trials.

    Returns:
        costs (stage -> multiples of one training), aim (what the search aimed at and what is taken), report
        (path), val_<metric> and test_<metric>.

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
    found |= _reduced(tuned, found["search"], version)
    _say_what_it_lost(found, config.reduce)
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
    aim = {"aim": found["search"]["aim"]} if "aim" in found["search"] else {}
    return {
        "costs": costs,
        **aim,
        **{key: value for key, value in last.items() if key.startswith(("val_", "test_"))},
        **page,
    }


def _search_part(config: Pipeline) -> SearchStage:
    """What the search is given; where `latency` says nothing of cost, it aims at `aim`.

    A budget is one of the network that will be built, a share one of its own baseline's time.
    """
    node, recipe = config.latency, config.train
    if not node.charges and config.aim is not None:
        patience = min(node.wait_seconds, _PATIENCE)
        node = replace(node, share=config.aim, firm=False, wait_seconds=patience)
    if node.charges:
        channels, layers = node.channels or recipe.channels, node.layers or recipe.layers
        node = replace(node, channels=channels, layers=layers)
    if node.share is not None:
        rival, width = rival_baseline(config), config.bench.baseline_width
        node = replace(node, baseline=rival, baseline_width=width)
    return config.part(SearchStage, seeds=1, latency=node)


def _reduced(config: Pipeline, search: Mapping[str, Any], version: Path) -> dict[str, Any]:
    """The trained network pruned or shrunk, {stage: result}: no further than the search aimed at.

    Nothing is pruned where the network found meets that already; where it is far off, pruning halves its
    time. What is set in `prune.budget` or `shrink.pick` is done in any case.
    """
    aim = search.get("aim") or {}
    budget, taken = aim.get("budget_ms"), aim.get("found_ms")
    if config.reduce == "shrink":
        pick = config.shrink.pick or (None if budget is None else f"{budget:.6g} ms")
        config = replace(config, shrink=replace(config.shrink, pick=pick))
        return {"shrink": shrink(config.part(ShrinkStage), version / "shrink")}
    if config.reduce != "prune":
        return {}
    if config.prune.budget is None and budget is not None and taken is not None:
        if aim["met"]:
            log.info(
                "nothing is pruned: the network found takes %.3g ms, %.3g ms are aimed at",
                taken,
                budget,
            )
            return {}
        wanted = f"{max(budget, _MOST_PRUNED * taken):.6g} ms"
        config = replace(config, prune=replace(config.prune, budget=wanted))
    return {"prune": prune(config.part(PruneStage), version / "prune")}


def _say_what_it_lost(found: Mapping[str, Mapping[str, Any]], reduced: str) -> None:
    """Warn where a network that was made faster hardly does its task any more (val, a share of all)."""
    after = found.get(reduced, {})
    metric = after.get("metric", {})
    key = f"val_{metric.get('name')}"
    if not metric.get("share") or key not in after or key not in found["train"]:
        return
    lost = float(found["train"][key]) - float(after[key])
    if lost > _MUCH:
        log.warning(
            "%s took %.1f points of val %s: the network is too small for it; the whole one stays in train/, "
            "and prune.budget= or aim= may ask for less",
            reduced,
            100 * lost,
            metric["name"],
        )


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
