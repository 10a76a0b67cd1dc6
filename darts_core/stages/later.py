"""What `run` refuses at once because a later stage would: its search would begin anew with other settings."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from darts_core.credentials import refuse_password
from darts_core.data import DataBundle
from darts_core.errors import ConfigError, LatencyError
from darts_core.export.formats import check_formats
from darts_core.prune.budget import check_budget
from darts_core.settings import TrainConfig
from darts_core.spaces import get_space
from darts_core.stages.inputs import check_fits, plain_network, refuse_named
from darts_core.stages.recipe_space import recipe_space
from darts_core.stages.schema import Pipeline, ShrinkStage
from darts_core.stages.shrink import check_shrink
from darts_core.stages.train import SPLITS
from darts_core.stages.tune import check_metrics
from darts_core.study.artifacts import artifacts_of
from darts_core.study.budget import Budget
from darts_core.study.engines import elsewhere
from darts_core.study.spec import StudySpec
from darts_core.study.storage import open_storage
from darts_core.study.warm_start import check_source
from darts_core.train.trainer import Trainer

__all__ = ["check_later", "check_on_data"]

log = logging.getLogger("darts_core")


def check_later(config: Pipeline, version: Path) -> None:
    """Refuse what is wrong with the settings of a later stage by themselves.

    Args:
        config: of the pipeline.
        version: its folder.

    Raises:
        ConfigError: the study is one of a policy, or of settings or values that a training does not take; a
            value of slurm is wrong; `train.compile` is set beside `reduce=shrink`.
        ExportError: an export format is unknown.
        LatencyError: a budget of shrink, or what it picks, is none.
        PruneError: the budget of pruning is none.
        TuneError: the study could not begin: its space, sampler, pruner, objectives, constraints, settings to
            try first, folder to start from or budget; the server of its database or the place of its
            artifacts cannot be opened; ray and slurm are both set, or a value of ray is wrong.
    """
    _check_study(config, version / "tune")
    if config.reduce == "shrink":
        check_shrink(config.part(ShrinkStage))
    if config.reduce == "prune" and config.prune.budget is not None:
        check_budget(config.prune.budget)
    check_formats(config.export.formats)


def _check_study(config: Pipeline, folder: Path) -> None:
    """Refuse a study that is none of the recipe, or that could not begin in `folder`."""
    study = config.tune
    if study.policy is not None:
        raise ConfigError(
            f"tune.policy={study.policy} searches an augmentation policy, while `run` tunes the recipe. "
            "Leave it out here, search the policy with `darts-core tune`, and give `run` what is found: "
            "augment=found augment.path=FILE."
        )
    options = study.options
    elsewhere(options.ray, options.slurm)
    refuse_password(study.warm_start, "tune.warm_start")
    if (folder / "study.json").is_file():
        return  # it has begun: an older program may have let more pass, and the stage goes on with that
    limits = (study.trials, study.epochs, study.device_seconds, study.trainings)
    spec = StudySpec.make(
        recipe_space(study.space),
        # of a budget in trainings it is the number that can be wrong
        Budget(*limits, training_seconds=1.0, epochs_per_trial=config.train.epochs),
        folder="tune",
        sampler=study.sampler,
        pruner=study.pruner,
        direction=options.direction or "maximize",
        objectives=options.objectives,
        constraints=options.constraints,
        enqueue=study.enqueue,
    )
    spec.check_options()
    if study.warm_start is not None:
        check_source(study.warm_start)
    # a database in a file is made with its study, in a folder that may be this version's own
    if options.storage is not None and not options.storage.startswith("sqlite:///"):
        open_storage(folder, options.storage)
    artifacts_of(options.artifacts, spec.study_name)


def check_on_data(config: Pipeline, bundle: DataBundle) -> None:
    """Refuse what a training of the space's networks on these data, or a study of it, would refuse.

    Args:
        config: with the space's name.
        bundle: of the settings' data, on the device where networks are trained.

    Raises:
        ConfigError: a setting of `train` is for another space, other inputs or another task, the study judges
            by what no trial returns, or the space is for other data or another task.
        DataError: the batch is larger than the training splits.
        LatencyError: what is pruned or shrunk would be timed as this device times nothing.
    """
    refuse_named(bundle)
    _check_timed(config, bundle.device)
    check_metrics(config.tune.options, bundle.task)
    if config.may_lose != Pipeline.may_lose and not bundle.task.metric.share:
        log.warning(
            "may_lose=%g: not used, as %s is no share (0 to 1): what is pruned or shrunk is shipped, "
            "whatever it lost of that",
            config.may_lose,
            bundle.task.metric.words,
        )
    space = get_space(config.space.name, config.space.ops)
    check_fits(space, bundle)
    alike = {kind: np.full(shape, 1 / shape[1]) for kind, shape in space.alpha_shapes().items()}
    # of neither is anything refused; what they warn of is said when it is trained
    recipe = config.train.part(TrainConfig, compile=False, precision="fp32")
    with torch.random.fork_rng(devices=[]):
        network = plain_network(space.discretize(alike), config.train, bundle)
        Trainer(network.make(), bundle, recipe, SPLITS, config.seed, bundle.device)


def _check_timed(config: Pipeline, device: torch.device) -> None:
    """Refuse as what pruning or shrinking times a CUDA graph on a CPU, and ONNX Runtime on a GPU."""
    if config.reduce not in ("prune", "shrink"):
        return
    options = config.prune.options if config.reduce == "prune" else config.shrink.options
    if options.runtime == "graph" and device.type != "cuda":
        raise LatencyError(
            f"{options.key('runtime')}=graph needs a cuda device, and the device is {device}; use eager or "
            "onnx, or leave it out."
        )
    if options.runtime == "onnx" and device.type != "cpu":
        raise LatencyError(
            f"{options.key('runtime')}=onnx is timed on a CPU, and the device is {device}; use graph, or "
            "leave it out."
        )
