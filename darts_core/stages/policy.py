"""`tune.policy=gradient|density`: search an augmentation policy instead of the recipe.

Leaves policy.yaml, which `augment=found augment.path=...` uses in any later command.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from darts_core.errors import ConfigError, unknown_name
from darts_core.runlog import RunFolder, read_json, write_json
from darts_core.stages.inputs import find_device, find_network, load_bundle, recipe, stage_config
from darts_core.stages.one_training import one_training
from darts_core.study.augment_search import METHODS, search_policy
from darts_core.study.budget import Budget
from darts_core.train.policy_objectives import bilevel_objective, density_objective

__all__ = ["search_augmentation"]

log = logging.getLogger("darts_core")

# settings of the density objective; what else stands in tune.options belongs to the search, but for the
# gradient objective's warm_up_epochs
_OBJECTIVE = ("folds", "draws")


def search_augmentation(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Search a policy for the network of `architecture=` by `tune.policy`; goes on where it stopped.

    It sees the splits params and alpha only. `tune.options` are those of `search_policy`, `folds`
    and `draws` of `density_objective`, and `warm_up_epochs` of `bilevel_objective`'s first training (half
    of `train.epochs`).

    Returns:
        method, policy, path, spent, ended, history, device_seconds (the search's own trainings
        without a policy included).
    """
    run = RunFolder.create(folder, stage_config(config, "tune"), tensorboard=False)
    if run.finished:
        return run.result()
    settings = config["tune"]
    method, options = settings["policy"], dict(settings["options"])
    if method not in METHODS:
        raise ConfigError(unknown_name("tune.policy", str(method), METHODS))
    device = find_device(config["device"])
    bundle = load_bundle(config, device).without_test()
    network = find_network(config, folder.parent, bundle)
    training = recipe(config, folder)
    limits = {key: settings[key] for key in ("device_seconds", "trainings", "training_seconds")}
    if limits["trainings"] is not None and limits["training_seconds"] is None:
        limits["training_seconds"] = one_training(config, folder)
    started = time.perf_counter()
    if method == "gradient":
        torch.manual_seed(config["seed"])
        epochs = int(options.pop("warm_up_epochs", training.epochs // 2))
        objective: Any = bilevel_objective(
            network.make(),
            bundle,
            batch_size=training.batch_size,
            seed=config["seed"],
            learning_rate=training.learning_rate,
            warm_up=replace(training, epochs=epochs) if epochs > 0 else None,
            folder=folder,
        )
        options.setdefault("device", str(device))
        whole = Budget(epochs=settings["epochs"], **limits)
    else:
        judged = {key: options.pop(key) for key in _OBJECTIVE if key in options}
        objective = density_objective(
            network.make, bundle, training, folder=folder, seed=config["seed"], **judged
        )
        options.setdefault("sampler", settings["sampler"])
        whole = Budget(trials=settings["trials"], **limits)
    prepared = _added(folder / "objective.json", time.perf_counter() - started)
    budget = _less(whole, prepared)
    found = search_policy(
        objective,
        method=method,
        folder=folder,
        budget=budget,
        channels=bundle.image_shape[0],
        seed=config["seed"],
        **options,
    )
    seconds = found.spent.device_seconds + prepared
    run.finish(**found.to_dict(), path=str(found.path), device_seconds=seconds, seed=config["seed"])
    return run.result()


def _added(path: Path, seconds: float) -> float:
    """`seconds` and those of earlier sittings: the networks trained for the search are kept between them."""
    before = float(read_json(path)["device_seconds"]) if path.is_file() else 0.0
    write_json(path, {"schema_version": 1, "device_seconds": before + seconds})
    return before + seconds


def _less(budget: Budget, prepared: float) -> Budget:
    """`budget` after the search's own trainings without a policy; they are part of the cost."""
    limit = budget.seconds_limit
    if limit is None:
        return budget
    if limit <= prepared:
        raise ConfigError(
            f"The policy search spent {prepared:.1f} device-seconds on its own trainings, and its budget "
            f"is {limit:.1f}; raise tune.trainings or tune.device_seconds, or lower folds or warm_up_epochs."
        )
    return replace(budget, device_seconds=limit - prepared, trainings=None, training_seconds=None)
