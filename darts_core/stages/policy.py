"""`tune.policy=gradient|density`: search an augmentation policy instead of the recipe.

Leaves policy.yaml, which `augment=found augment.path=...` uses in any later command.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from darts_core.augment import AUGMENTATIONS
from darts_core.errors import ConfigError
from darts_core.runlog import RunFolder, read_json, write_json
from darts_core.settings import Tune, TuneOptions
from darts_core.stages.inputs import find_device, find_network, load_bundle, recipe
from darts_core.stages.logging import make_loggers
from darts_core.stages.one_training import one_training
from darts_core.stages.schema import TuneStage
from darts_core.stages.targets import import_plugins
from darts_core.study.augment_search import search_policy
from darts_core.study.budget import Budget
from darts_core.train.policy_objectives import bilevel_objective, density_objective

__all__ = ["search_augmentation"]

log = logging.getLogger("darts_core")

# options of `search_policy` that both methods take, and those of one; the objectives take the others
_BOTH = ("operations", "ranges", "length", "keep")
_SEARCH = {
    "gradient": ("steps_per_epoch", "learning_rate", "temperature"),
    "density": ("sub_policies",),
}
_OBJECTIVE = {"gradient": ("warm_up_epochs",), "density": ("folds", "draws")}
# settings of a study over the recipe, for which each method has no use
_OF_A_STUDY = ("enqueue", "warm_start")
_UNREAD = {"gradient": (*_OF_A_STUDY, "workers", "sampler"), "density": _OF_A_STUDY}
# and those that an experiment sets along with the data and the training
_OF_EXPERIMENTS = ("space", "pruner")


@dataclass(frozen=True)
class _WithPlugins:
    """An objective for worker processes, in which the operations of the user's modules register, too.

    Attributes:
        device: of its networks and images, which decides what GPUs a worker is shown.
    """

    objective: Callable[..., Any]
    plugins: tuple[str, ...]
    device: str

    def __call__(self, policy: Any) -> Any:
        """The objective's value of a policy."""
        import_plugins(self.plugins)
        return self.objective(policy)


def search_augmentation(config: TuneStage, folder: Path) -> dict[str, Any]:
    """Search a policy for the network of `architecture=` by `tune.policy`; goes on where it stopped.

    It sees the splits params and alpha only. `tune.options` are those of `search_policy`, `folds`
    and `draws` of `density_objective`, and `warm_up_epochs` of `bilevel_objective`'s first training (half
    of `train.epochs`).

    Returns:
        method, policy, path, spent, ended, history, device_seconds (the search's own trainings
        without a policy included).
    """
    settings = config.tune
    method = settings.policy or "gradient"
    # what is wrong with the settings is said before a folder is made or a network trained
    options, limits = _options(settings, method), _limits(settings, method)
    if not (folder / "config.hash").is_file():  # what an older program began goes on as it is
        _refuse_unread(config, method)
    run = RunFolder.create(folder, config.described(), loggers=make_loggers(config))
    if run.finished:
        return run.result()
    device = find_device(config.device)
    bundle = load_bundle(config, device).without_test()
    if bundle.kind != "image" or bundle.unit != 255 or bundle.task.name != "classification":
        raise ConfigError(
            "An augmentation policy is searched for images of bytes and their classes; "
            f"{bundle.name} holds other data (task={bundle.task.name}). Leave tune.policy out."
        )
    if config.task.options.get("class_weights"):
        log.warning(
            "task.class_weights=%s: a policy is judged by a loss that counts all samples alike",
            config.task.options["class_weights"],
        )
    network = find_network(config, folder.parent, bundle)
    training = recipe(config, folder)
    if limits["trainings"] is not None and limits["training_seconds"] is None:
        limits["training_seconds"] = one_training(config, folder)
    whole = Budget(**limits)
    started = time.perf_counter()
    if method == "gradient":
        torch.manual_seed(config.seed)
        chosen = settings.options.warm_up_epochs
        epochs = training.epochs // 2 if chosen is None else chosen
        objective: Any = bilevel_objective(
            network.make(),
            bundle,
            batch_size=training.batch_size,
            seed=config.seed,
            learning_rate=training.learning_rate,
            warm_up=replace(training, epochs=epochs) if epochs > 0 else None,
            folder=folder,
        )
        options["device"] = str(device)
    else:
        judge = density_objective(
            network.make, bundle, training, folder=folder, seed=config.seed,
            folds=settings.options.folds, draws=settings.options.draws,
        )  # fmt: skip
        objective = _WithPlugins(judge, tuple(config.plugins), config.device)
        options |= {"sampler": settings.sampler, "workers": settings.workers}
    prepared = _added(folder / "objective.json", time.perf_counter() - started)
    budget = _less(whole, prepared)
    found = search_policy(
        objective,
        method=method,
        folder=folder,
        budget=budget,
        channels=bundle.image_shape[0],
        seed=config.seed,
        **options,
    )
    seconds = found.spent.device_seconds + prepared
    for number, row in enumerate(found.history):
        # epochs count from 0 there, as those of other stages
        run.loggers.metrics(number, {k: v for k, v in row.items() if k != "epoch"})
    run.finish(**found.to_dict(), path=str(found.path), device_seconds=seconds, seed=config.seed)
    return run.result()


def _refuse_unread(config: TuneStage, method: str) -> None:
    """Refuse what is set otherwise than as usual and read by a study over the recipe alone.

    What an `experiment=` sets is named in a warning: its other settings are of use.

    Raises:
        ConfigError: names it.
    """
    found, passed_over = (
        [f"tune.{name}" for name in names if getattr(config.tune, name) != getattr(Tune(), name)]
        for names in (_UNREAD[method], _OF_EXPERIMENTS)
    )
    if passed_over:
        log.warning("tune.policy=%s does not read %s", method, ", ".join(passed_over))
    found += [
        f"callbacks={name}" for name, node in config.callbacks.items() if isinstance(node, Mapping)
    ]
    if found:
        raise ConfigError(
            f"tune.policy={method} searches an augmentation policy and does not read {', '.join(found)}: "
            "that is for a study over the recipe. Leave it out, or leave tune.policy out."
        )


def _options(settings: Tune, method: str) -> dict[str, Any]:
    """What `search_policy` takes for `method`; None stands for its own default.

    Raises:
        ConfigError: an option is changed that this method does not read, an operation is unknown, or its
            range is none.
    """
    usual, given = TuneOptions(), settings.options
    read = (*_BOTH, *_SEARCH[method], *_OBJECTIVE[method])
    changed = [f.name for f in fields(given) if getattr(given, f.name) != getattr(usual, f.name)]
    for name in changed:
        if name not in read:
            raise ConfigError(
                f"tune.options.{name}={getattr(given, name)} is not read by tune.policy={method}, "
                f"which takes {', '.join(read)}."
            )
    _check_operations(given)
    values = {name: getattr(given, name) for name in (*_BOTH, *_SEARCH[method])}
    return {name: value for name, value in values.items() if value is not None}


def _check_operations(given: TuneOptions) -> None:
    for name in (*(given.operations or ()), *(given.ranges or {})):
        AUGMENTATIONS[str(name)]  # an unknown one is refused with those that there are
    for name, ends in (given.ranges or {}).items():
        pair = ends if isinstance(ends, (list, tuple)) else ()
        numbers = [end for end in pair if isinstance(end, (int, float)) and math.isfinite(end)]
        if len(pair) != 2 or len(numbers) != 2:
            raise ConfigError(
                f"tune.options.ranges.{name}={ends!r} is no range; give two numbers, e.g. [0, 30]."
            )


def _limits(settings: Tune, method: str) -> dict[str, Any]:
    """What the whole search may use, its own trainings without a policy included, as `Budget` takes it.

    Raises:
        ConfigError: nothing bounds the search, or what is given does not.
    """
    own = {"gradient": "epochs", "density": "trials"}[method]
    limits = {key: getattr(settings, key) for key in (own, "device_seconds", "trainings")}
    remedy = f"give tune.{own}, tune.device_seconds or tune.trainings."
    # the usual number of trials cannot be told from one that was given
    if method == "density" and settings.epochs is not None:
        raise ConfigError(
            f"tune.epochs={settings.epochs} is not read by tune.policy=density; {remedy}"
        )
    if all(value is None for value in limits.values()):
        raise ConfigError(f"The search tune.policy={method} has no budget; {remedy}")
    return {**limits, "training_seconds": settings.training_seconds}


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
