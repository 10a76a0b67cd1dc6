"""`tune.policy=gradient|density`: search an augmentation policy instead of the recipe.

Leaves policy.yaml, which `augment=found augment.path=...` uses in any later command.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from darts_core.errors import ConfigError, unknown_name
from darts_core.runlog import RunFolder
from darts_core.stages.inputs import find_device, find_network, load_bundle, recipe, stage_config
from darts_core.train.policy_objectives import bilevel_objective, density_objective
from darts_core.tune.augment_search import METHODS, search_policy
from darts_core.tune.budget import Budget

__all__ = ["search_augmentation"]

log = logging.getLogger("darts_core")

# settings of the density objective; what else stands in tune.options belongs to the search
_OBJECTIVE = ("folds", "draws")


def search_augmentation(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Search a policy for the network of `architecture=` by `tune.policy`; goes on where it stopped.

    It sees the splits params and alpha only. `tune.options` are those of `search_policy`, and
    `folds` and `draws` of `density_objective`.

    Returns:
        method, policy, path, spent, ended, history, device_seconds (the density search's own
        trainings included).
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
    started = time.perf_counter()
    if method == "gradient":
        torch.manual_seed(config["seed"])
        objective: Any = bilevel_objective(
            network.make(),
            bundle,
            batch_size=training.batch_size,
            seed=config["seed"],
            learning_rate=training.learning_rate,
        )
        budget = Budget(epochs=settings["epochs"], device_seconds=settings["device_seconds"])
        options.setdefault("device", str(device))
    else:
        judged = {key: options.pop(key) for key in _OBJECTIVE if key in options}
        objective = density_objective(
            network.make, bundle, training, folder=folder, seed=config["seed"], **judged
        )
        budget = Budget(trials=settings["trials"], device_seconds=settings["device_seconds"])
        options.setdefault("sampler", settings["sampler"])
    prepared = time.perf_counter() - started
    found = search_policy(
        objective,
        method=method,
        folder=folder,
        budget=budget,
        channels=bundle.image_shape[0],
        seed=config["seed"],
        **options,
    )
    seconds = found.spent.device_seconds + (prepared if method == "density" else 0.0)
    run.finish(**found.to_dict(), path=str(found.path), device_seconds=seconds, seed=config["seed"])
    return run.result()
