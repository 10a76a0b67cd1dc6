"""Stage `search`: a supernet and its alphas on the params and alpha splits; leaves architecture.yaml."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from darts_core.bench.tabular import TabularBenchmark, open_table
from darts_core.errors import ArchitectureError
from darts_core.runlog import RunFolder
from darts_core.search import SearchConfig, SearchResult
from darts_core.search import search as run_search
from darts_core.spaces import get_space
from darts_core.stages.board import AlphaBoard
from darts_core.stages.cost import penalties
from darts_core.stages.forecast import forecast
from darts_core.stages.inputs import find_device, load_bundle, policy_name, stage_config
from darts_core.stages.interrupt import deferred_stop, stop_wanted
from darts_core.stages.progress import progress_bar
from darts_core.stages.settings import instantiate
from darts_core.supernet import Supernet, create_supernet

__all__ = ["search"]

log = logging.getLogger("darts_core")


def search(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Search into `folder`; goes on from its checkpoint when there is one.

    Returns:
        architecture (its dictionary), device_seconds, val_accuracy of the supernet, guards, seed.
    """
    run = RunFolder.create(folder, stage_config(config, "search"))
    if run.finished:
        return run.result()
    device = find_device(config["device"])
    bundle = load_bundle(config, device).without_test()
    table = _table(config["search"])
    settings = _settings(config["search"])
    space = get_space(config["space"]["name"], config["space"]["ops"])
    plugins = config["plugins"]

    def make() -> Supernet:
        node = config["search"]
        supernet = create_supernet(
            space,
            channels=node["channels"],
            layers=node["layers"],
            num_classes=bundle.num_classes,
            in_channels=bundle.image_shape[0],
            relaxation=instantiate(config["relax"], plugins),
            image_size=bundle.image_shape[1],
        ).to(device)
        # models with choices in ordinary modules have one path only
        if isinstance(supernet, Supernet):
            supernet.use_path(node["path"], node["kernel_precision"])
        return supernet

    forecast(
        make,
        bundle.image_shape,
        bundle.num_classes,
        batch_size=settings.batch_size,
        steps=settings.epochs * bundle.steps("params", settings.batch_size),
        passes=_passes(config["strategy"]),
        device=device,
        what=f"search in {space.name}",
    )
    torch.manual_seed(config["seed"])
    supernet = make()
    guards = [instantiate(node, plugins) for node in config["search"]["guards"].values() if node]
    # pictures of cells: a space of choices has none
    board = AlphaBoard(run, space.ops, settings.epochs) if space.ops else None
    with progress_bar("search") as progress, deferred_stop():
        found = run_search(
            supernet,
            instantiate(config["strategy"], plugins),
            bundle,
            settings,
            seed=config["seed"],
            run=run,
            checkpoint=folder / "checkpoint.pt",
            augment=_augment(config, folder),
            guards=guards,
            penalties=penalties(config, space, bundle.image_shape, bundle.num_classes, device),
            on_epoch=board,
            progress=progress,
            should_stop=stop_wanted,
        )
    if stop_wanted():
        raise KeyboardInterrupt("A checkpoint is saved.")
    if board is not None:
        board.result(found.architecture)
    facts = {"ops": list(space.ops), "device": str(device), **_rank(table, found, config["search"])}
    return _finish(run, found, config, **facts)


def _table(node: Mapping[str, Any]) -> TabularBenchmark | None:
    """The table that the result is looked up in; opened before any work, so that a wrong path costs none."""
    if not node.get("tabular"):
        return None
    table = open_table(node["tabular"])
    table.column(node.get("tabular_data"))
    return table


def _rank(
    table: TabularBenchmark | None, found: SearchResult, node: Mapping[str, Any]
) -> dict[str, Any]:
    """Accuracy, regret and rank in the table; a line in the log when it does not hold the architecture."""
    if table is None:
        return {}
    try:
        row = table.lookup(found.architecture, node.get("tabular_data"))
    except ArchitectureError as error:
        log.warning("not looked up: %s", error)
        return {}
    log.info("rank %d of %d in %s, regret %.4f", row.rank, row.total, table.name, row.regret)
    return {"tabular": {"table": table.name, **row.to_dict()}}


def _finish(
    run: RunFolder, found: SearchResult, config: Mapping[str, Any], **facts: Any
) -> dict[str, Any]:
    guards = [asdict(finding) for finding in found.findings]
    extra = {"guards": guards} if guards else {}
    found.architecture.to_yaml(run.path / "architecture.yaml", seed=config["seed"], **extra)
    log.info("found %s", found.architecture.text())
    run.finish(
        architecture=found.architecture.to_dict(),
        text=found.architecture.text(),
        val_accuracy=found.val_accuracy,
        device_seconds=found.seconds,
        steps=found.steps,
        guards=guards,
        stopped=found.stopped,
        seed=config["seed"],
        **facts,
    )
    return run.result()


def _settings(node: Mapping[str, Any]) -> SearchConfig:
    known = {f.name for f in fields(SearchConfig)}
    return SearchConfig(**{key: value for key, value in node.items() if key in known})


def _passes(strategy: Mapping[str, Any]) -> float:
    """Forward-and-backward passes a step costs: two, and three more for the unrolled gradient."""
    return 5.0 if str(strategy.get("_target_", "")).endswith(".Unrolled") else 2.0


def _augment(config: Mapping[str, Any], folder: Path) -> Any:
    node, policy = config["search"], policy_name(config, folder)
    if not (node["crop_padding"] or node["flip"] or node["cutout"] or policy):
        return None
    from darts_core.augment import Augment

    return Augment(
        crop_padding=node["crop_padding"], flip=node["flip"], cutout=node["cutout"], policy=policy
    )
