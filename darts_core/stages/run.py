"""Stage `run`: the whole pipeline; each step is a stage of its own, so a killed run goes on where it was."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from darts_core.errors import ArchitectureError, ConfigError, unknown_name
from darts_core.export.formats import check_formats
from darts_core.prune.budget import check_budget
from darts_core.report.read import read_version
from darts_core.report.reduced import read_reduced
from darts_core.report.results import headline, model_rows
from darts_core.runlog import write_json
from darts_core.stages.bench import bench
from darts_core.stages.doubt import doubtful
from darts_core.stages.export import export
from darts_core.stages.fronts import run_front
from darts_core.stages.inputs import find_device, load_bundle
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
    ShrinkStage,
    TrainStage,
    TuneStage,
)
from darts_core.stages.search import search
from darts_core.stages.search_setup import AUTO, known_space
from darts_core.stages.shrink import check_shrink
from darts_core.stages.train import train
from darts_core.stages.tune import tune
from darts_core.study import parse_space
from darts_core.study.engines import elsewhere

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
        val_<metric> and test_<metric>.

    Raises:
        ArchitectureError: the search's guards doubt whatever it found, and `allow_doubtful` is false.
        DartsError: a setting of a later stage is wrong; see `_check_later`.
    """
    _check_later(config)
    config = _in_a_space(config)
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
    found |= _baseline(config, version / "baseline", seconds)
    found |= dict(train_rivals(config, version, seconds=seconds))
    found["bench"] = bench(config.part(BenchStage), version / "bench")
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
        **{key: value for key, value in last.items() if key.startswith(("val_", "test_"))},
        **page,
    }


def _check_later(config: Pipeline) -> None:
    """Refuse at once what a later stage would refuse: with another setting the search would begin anew.

    Raises:
        ConfigError: the study is one of a policy or of settings that a training lacks; a value of slurm is
            wrong.
        ExportError: an export format is unknown.
        LatencyError: a budget of shrink, or what it picks, is none.
        PruneError: the budget of pruning is none.
        TuneError: `tune.space` is none, ray and slurm are both set, or a value of ray is wrong.
    """
    _check_study(config)
    if config.reduce == "shrink":
        check_shrink(config.part(ShrinkStage))
    if config.reduce == "prune" and config.prune.budget is not None:
        check_budget(config.prune.budget)
    check_formats(config.export.formats)


def _check_study(config: Pipeline) -> None:
    """Refuse a study that is none of the recipe."""
    study, known = config.tune, [item.name for item in fields(config.train)]
    if study.policy is not None:
        raise ConfigError(
            f"tune.policy={study.policy} searches an augmentation policy, while `run` tunes the recipe. "
            "Leave it out here, search the policy with `darts-core tune`, and give `run` what is found: "
            "augment=found augment.path=FILE."
        )
    elsewhere(study.options.ray, study.options.slurm)
    parse_space(study.space)
    for name in study.space:
        if name not in known:
            raise ConfigError(unknown_name("setting in tune.space", str(name), known))


def _in_a_space(config: Pipeline) -> Pipeline:
    """The settings with a space's name where `space=auto` leaves it to the data."""
    if config.space.name != AUTO:
        return config
    bundle = load_bundle(config, find_device(config.device))
    return replace(config, space=known_space(config.space, bundle))


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


def _say_left_out(exported: Mapping[str, Any]) -> None:
    """Once more the formats that are left out: the export said so long before the end."""
    for one in exported.get("warnings", ()):
        log.warning("the format %s is left out: %s", one["name"], one["message"])


def _say_costs(costs: Mapping[str, float]) -> None:
    parts = [f"{name} {cost:.2f}" for name, cost in costs.items()]
    log.info("cost in trainings of the final architecture: %s", ", ".join(parts))
