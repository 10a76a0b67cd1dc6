"""Stage `train`: one fixed network, trained on params+alpha, watched on val, tested once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darts_core.models.by_name import inner
from darts_core.modes import in_evaluation
from darts_core.settings import Train, to_plain
from darts_core.stages.callbacks import asking, make_callbacks
from darts_core.stages.forecast import forecast
from darts_core.stages.inputs import (
    find_device,
    find_network,
    load_bundle,
    recipe,
)
from darts_core.stages.interrupt import check_stop, deferred_stop
from darts_core.stages.progress import progress_bar
from darts_core.stages.schema import TrainStage
from darts_core.stages.shared_run import open_run
from darts_core.supernet import count
from darts_core.train import evaluate, fit, save_model
from darts_core.train.model_data import tell_other_test
from darts_core.train.precision import autocast_on

__all__ = ["say_unread", "train"]

log = logging.getLogger("darts_core")
SPLITS = ("params", "alpha")


def train(config: TrainStage, folder: Path) -> dict[str, Any]:
    """Train the network of `architecture=` into `folder`; goes on from its checkpoint when there is one.

    Among the processes of a joined group the first one writes and evaluates; the others compute.

    Returns:
        val_<metric> and test_<metric> of the task, metric, params, macs, device_seconds, epochs; nothing in
        the other processes of a group.
    """
    group, run, finished = open_run(config, folder, config.part(TrainStage))
    if finished:
        return {} if run is None else run.result()
    callbacks = make_callbacks(config, folder)  # refused before anything is loaded
    device = find_device(config.device) if group is None else group.device
    bundle = load_bundle(config, device)
    network = find_network(config, folder.parent, bundle)
    settings = recipe(config, folder)
    if run is not None:
        if network.saved is not None:  # said here, not by each trial of a study
            tell_other_test(network.saved.parent, to_plain(config.data))
        forecast(
            network.make,
            bundle,
            batch_size=settings.batch_size,
            steps=bundle.steps(SPLITS, settings.batch_size) * settings.epochs,
            device=device,
            what=f"training {network.name}",
            processes=1 if group is None else group.processes,
            autocast=autocast_on(settings.precision, device),
            channels_last=settings.channels_last,
            # one that has begun keeps its layout; torch.compile chooses one by itself
            look=not (settings.compile or (folder / "checkpoint.pt").exists()),
        )
        if network.architecture is not None:
            network.architecture.to_yaml(folder / "architecture.yaml")
    torch.manual_seed(config.seed)
    model = network.make()
    if run is not None:
        say_unread(config.train, model, network.name)
    title = f"train {network.name}"
    with progress_bar(title, shown=run is not None) as progress, deferred_stop():
        fitted = fit(
            model,
            bundle.without_test(),
            settings,
            train_on=SPLITS,
            select_on="val",
            seed=config.seed,
            device=device,
            run=run,
            checkpoint=folder / "checkpoint.pt",
            on_epoch=lambda epoch, row: check_stop(group),
            should_end=(
                asking(callbacks, inner(model), bundle.task.metric, settings.epochs)
                if run is not None
                else None
            ),
            progress=progress,
            group=group,
        )
    if run is None:
        return {}
    test = evaluate(model, bundle, "test")
    size = count(in_evaluation(model), bundle.input_shape)
    save_model(folder / "model.pt", model, network.meta)
    metric = bundle.task.metric
    log.info(
        "trained: val %s %s, test %s",
        metric.words,
        metric.text(fitted.val),
        metric.text(test.value),
    )
    run.finish(
        **{f"val_{metric.name}": fitted.val},
        **test.named("test"),
        metric=metric.to_dict(),
        test_loss=test.loss,
        params=size.params,
        macs=size.macs,
        device_seconds=fitted.train_seconds,
        steps=fitted.steps,
        epochs=fitted.epochs,
        best_epoch=fitted.best_epoch,
        **({} if fitted.ended is None else {"stopped": fitted.ended}),
        seed=config.seed,
        device=str(device),
        data_marks=bundle.marks,
        **({} if group is None else {"processes": group.processes}),
    )
    callbacks.finish(run.result())
    return run.result()


def say_unread(settings: Train, model: nn.Module, name: str) -> None:
    """A line where drop-path was set, by the user or by a study, and the network has no paths to drop."""
    rate = settings.drop_path
    if rate in (0.0, Train().drop_path) or hasattr(model, "drop_path_prob"):
        return
    log.info("train.drop_path=%g changes nothing: %s has no paths to drop", rate, name)
