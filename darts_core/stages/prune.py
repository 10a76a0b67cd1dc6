"""Stage `prune`: a trained network, shrunk to a measured latency and fine-tuned."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from darts_core.prune import prune_to_budget
from darts_core.prune.store import Store
from darts_core.runlog import RunFolder
from darts_core.settings import to_plain
from darts_core.stages.inputs import find_device, load_bundle, open_model, recipe
from darts_core.stages.logging import make_loggers
from darts_core.stages.schema import PruneStage
from darts_core.supernet import count
from darts_core.train import evaluate, of_model
from darts_core.train.judged import as_judged, seconds_of_training
from darts_core.train.model_data import tell_other_optimizer

__all__ = ["prune"]

log = logging.getLogger("darts_core")


def prune(config: PruneStage, folder: Path) -> dict[str, Any]:
    """Prune the model of `model=` to `prune.budget`; goes on behind the last finished round.

    One that was stopped while its network was evaluated is not pruned again.

    Returns:
        latency_before_ms, latency_after_ms, budget_ms, speedup, val_<metric>, test_<metric>,
        metric, params, macs, device_seconds.
    """
    run = RunFolder.create(folder, config.described(), loggers=make_loggers(config))
    if run.finished:
        return run.result()
    device = find_device(config.device)
    bundle = load_bundle(config, device)
    model, meta, path = open_model(config, folder.parent, ("train",), bundle, device)
    bundle = of_model(bundle, meta, str(path or config.model))
    settings, options = config.prune, config.prune.options
    fine_tuning = recipe(
        config,
        folder,
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        min_learning_rate=0.0,
        warmup_epochs=0.0,
    )
    found = Store(folder, meta).finished(device)
    if found is None:
        if path is not None:
            as_judged(model, bundle, path.parent, to_plain(config.data))
            tell_other_optimizer(path.parent, fine_tuning, settings.key("learning_rate"))
        found = prune_to_budget(
            model,
            bundle.without_test(),
            budget=settings.budget or "50%",
            batch=settings.batch,
            device=device,
            fit_config=fine_tuning,
            folder=folder,
            meta=meta,
            seed=config.seed,
            importance=options.importance,
            rounds=options.rounds,
            structure=options.structure,
            distillation=options.distillation,
            least=options.least,
            round_to=options.round_to,
            runtime=options.runtime,
            seconds=options.seconds,
        )
    report = found.report()
    val = evaluate(found.model, bundle, "val")
    test = evaluate(found.model, bundle, "test")
    metric = bundle.task.metric
    log.info(
        "pruned: %.3f ms -> %.3f ms (budget %.3f), val %s %s, test %s",
        report["latency_before_ms"],
        report["latency_after_ms"],
        report["budget_ms"],
        metric.words,
        metric.text(val.value),
        metric.text(test.value),
    )
    size = count(found.model, bundle.input_shape)
    kept = ("latency_before_ms", "latency_after_ms", "budget_ms", "speedup", "replaced", "note")
    run.finish(
        **{key: report[key] for key in kept},
        **val.named("val"),
        **test.named("test"),
        metric=metric.to_dict(),
        params=size.params,
        macs=size.macs,
        device_seconds=found.spent_seconds,
        fine_tuning_seconds=report["device_seconds"],
        seed=config.seed,
        data_marks=bundle.marks,
        **seconds_of_training(None if path is None else path.parent),
    )
    return run.result()
