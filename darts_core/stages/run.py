"""Stage `run`: the whole pipeline; each step is a stage of its own, so a killed run goes on where it was."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from darts_core.errors import ArchitectureError
from darts_core.reading import read_text
from darts_core.report.read import read_version
from darts_core.report.reduced import read_reduced
from darts_core.report.results import headline, model_rows
from darts_core.runlog import config_hash, write_json
from darts_core.stages.bench import bench
from darts_core.stages.doubt import doubtful
from darts_core.stages.export import export
from darts_core.stages.fronts import run_front
from darts_core.stages.inputs import find_device, load_bundle
from darts_core.stages.later import check_later, check_on_data
from darts_core.stages.measured_again import measured_again
from darts_core.stages.reduce import reduced, ships, tuned_first, what_it_lost
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
    ReportStage,
    SearchStage,
    TrainStage,
    TuneStage,
)
from darts_core.stages.search import search
from darts_core.stages.search_setup import known_space
from darts_core.stages.train import train
from darts_core.stages.tune import tune

__all__ = ["run"]

log = logging.getLogger("darts_core")
# what is spent on our network beside the training that every network gets
_BEFORE = ("search", "searched", "tune", "prune", "shrink")
# seconds for which other work is waited for before what is only aimed at is timed beside it
_PATIENCE = 10.0


def run(config: Pipeline, version: Path) -> dict[str, Any]:
    """Search, prune or shrink, tune, train, export; tune and train a baseline as much; then compare.

    `searched/` is the found architecture under the recipe as configured. What is pruned or shrunk of it is
    tuned, and `train/` goes on from it under the tuned recipe; where nothing is, `train/` is the found
    architecture under that recipe. `baseline/` holds the hand-designed network, tuned over as many trials.

    Returns:
        costs (stage -> multiples of one training), aim (what the search aimed at and what is taken),
        not_shipped (why a network that was made faster was not shipped, if so), report (path),
        val_<metric> and test_<metric>, metric.

    Raises:
        ArchitectureError: the search's guards doubt whatever it found, and `allow_doubtful` is false.
        DartsError: a setting of a later stage is wrong; see `check_later` and `check_on_data`.
    """
    check_later(config, version)
    config = _on_its_data(config)
    check_rivals(config, version)
    found = {"search": search(_search_part(config), version / "search")}
    _require_trusted(found["search"], version, allowed=config.allow_doubtful)
    found["searched"] = train(config.part(TrainStage), version / "searched")
    older, model = tuned_first(version), None
    if not older:
        model, made = ships(config, found, version)
        found |= made
    found["tune"] = tune(config.part(TuneStage, model=model), version / "tune")
    tuned = replace(config, train=replace(config.train, **found["tune"]["best"]))
    found["train"] = train(tuned.part(TrainStage, model=model), version / "train")
    if older:
        found |= _reduced_last(tuned, found, version)
    found["export"] = export(config.part(ExportStage), version / "export")
    seconds = sum(
        float(result["device_seconds"]) for name, result in found.items() if name in _BEFORE
    )
    found |= _baseline(config, version, seconds)
    found |= dict(train_rivals(config, version, seconds=seconds))
    found["bench"] = _measured(config.part(BenchStage), version / "bench")
    costs = _costs(found)
    write_json(version / "costs.json", {"schema_version": 1, "trainings": costs})
    _say_costs(costs)
    page = report(config.part(ReportStage), version / "report")
    run_front(version)
    told = read_version(version)
    _say_left_out(found["export"])
    # the last lines say in words what came of it
    log.info("%s. %s", *headline(told, model_rows(told)[0]))
    last = found[config.reduce] if older and config.reduce in found else found["train"]
    kept = read_reduced(version)
    left = {"not_shipped": kept.said} if kept is not None and kept.said else {}
    aim = {"aim": found["search"]["aim"]} if "aim" in found["search"] else {}
    return {
        "costs": costs,
        **aim,
        **left,
        **{k: v for k, v in last.items() if k == "metric" or k.startswith(("val_", "test_"))},
        **page,
    }


def _on_its_data(config: Pipeline) -> Pipeline:
    """The settings with a space's name where `space=auto` leaves it to the data, which take the rest."""
    bundle = load_bundle(config, find_device(config.device)).without_test()
    config = replace(config, space=known_space(config.space, bundle))
    check_on_data(config, bundle)
    return config


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


def _reduced_last(
    config: Pipeline, found: Mapping[str, Mapping[str, Any]], version: Path
) -> dict[str, Any]:
    """The tuned network reduced after all, as an older program began it: shipped, with a warning."""
    made = reduced(config, found["search"], version)
    lost = what_it_lost(found["train"], made.get(config.reduce, {}), config.reduce, config.may_lose)
    if lost:
        log.warning("%s; the whole network stays in train/", lost)
    return made


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


def _baseline(config: Pipeline, version: Path, seconds: float) -> dict[str, dict[str, Any]]:
    """The hand-designed network: same epochs, same space of trials, same splits."""
    width = config.bench.baseline_width
    found = train_like_the_network(
        config,
        rival_baseline(config),
        version / "baseline",
        seconds=seconds,
        beside=version / "tune",
        width=width,
    )
    return {f"baseline {step}": result for step, result in found.items()}


def _measured(config: BenchStage, folder: Path) -> dict[str, Any]:
    """The comparison; anew where `bench` by itself measured while the run was interrupted."""
    known = folder / "config.hash"
    if known.is_file() and read_text(known).strip() != config_hash(config.described()):
        log.info("%s was measured with other settings, and is measured again", folder)
        with measured_again(folder.parent):
            return bench(config, folder)
    return bench(config, folder)


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


def _say_left_out(exported: Mapping[str, Any]) -> None:
    """Once more the formats that are left out: the export said so long before the end."""
    for one in exported.get("warnings", ()):
        log.warning("the format %s is left out: %s", one["name"], one["message"])


def _say_costs(costs: Mapping[str, float]) -> None:
    parts = [f"{name} {cost:.2f}" for name, cost in costs.items()]
    log.info("cost in trainings of the final architecture: %s", ", ".join(parts))
