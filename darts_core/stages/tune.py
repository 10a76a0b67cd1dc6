"""Stage `tune`: a study over the recipe of one network; leaves best.yaml and every trial's folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darts_core.checkpoint import check_data
from darts_core.credentials import refuse_password
from darts_core.data import DataBundle
from darts_core.errors import ConfigError, unknown_name
from darts_core.runlog import RunFolder, config_hash, read_mapping, write_json
from darts_core.settings import Train, TuneOptions
from darts_core.stages.callbacks import make_callbacks
from darts_core.stages.inputs import find_device, find_network
from darts_core.stages.logging import make_loggers
from darts_core.stages.one_training import one_training
from darts_core.stages.policy import search_augmentation
from darts_core.stages.recipe_space import choices_first, recipe_space
from darts_core.stages.schema import TuneStage
from darts_core.stages.trial import SPLITS, RecipeTrial, returned, trial_bundle
from darts_core.study import StudyResult, current_trial, parse_space, run_study
from darts_core.study.space import space_to_dict
from darts_core.tasks import Task

__all__ = ["check_metrics", "tune"]

log = logging.getLogger("darts_core")


def tune(config: TuneStage, folder: Path, *, beside: Path | None = None) -> dict[str, Any]:
    """Tune the recipe of the network of `architecture=`; goes on where a study was stopped.

    With `tune.policy` it searches an augmentation policy instead (see `stages.policy`).
    Under a sweeper, which calls this once a trial, it trains that one trial and returns its metrics.

    Args:
        config: of the stage.
        folder: of the study.
        beside: folder of the study of the network that this one's is compared with, which varies the same.

    Returns:
        best (settings), best_value (of the metric), trials, spent, device_seconds.
    """
    refuse_password(config.tune.warm_start, "tune.warm_start")
    objective = RecipeTrial(config, folder.parent)
    trial = current_trial()
    # below the trial's own folder it is the study of a pipeline: a sweep of `run` has one in each trial
    if trial is not None and not folder.is_relative_to(trial.folder):
        return objective(trial)
    if config.tune.policy is not None:
        return search_augmentation(config, folder.parent / "policy")
    run = RunFolder.create(folder, config.described(), loggers=make_loggers(config))
    if run.finished:
        return run.result()
    make_callbacks(config, folder)  # refused here, not in each trial
    settings, options = config.tune, config.tune.options
    bundle = trial_bundle(config, find_device(config.device))
    task = bundle.task
    metric, direction = _judged(config, task)
    check_metrics(options, task)
    space = _varied(settings.space, len(bundle.split(SPLITS)), folder, beside)
    # else it was said of the network that this one is compared with, which decides the space
    if beside is None:
        _say_uncounted(options)
        _say_unread(config, space, folder, bundle)
    _on_the_same_data(folder, bundle)
    training_seconds = settings.training_seconds or one_training(config, folder)
    found = run_study(
        objective,
        space,
        folder=folder,
        trials=settings.trials,
        epochs=settings.epochs,
        device_seconds=settings.device_seconds,
        trainings=settings.trainings,
        training_seconds=training_seconds,
        epochs_per_trial=config.train.epochs,
        epochs_setting="epochs",
        workers=settings.workers,
        sampler=settings.sampler,
        pruner=settings.pruner,
        seed=config.seed,
        baseline=_own(config.train, space),
        enqueue=settings.enqueue,
        warm_start=settings.warm_start,
        isolate=options.isolate,
        slots=options.slots,
        ray=options.ray,
        slurm=options.slurm,
        metric=metric,
        direction=direction,
        objectives=options.objectives,
        constraints=options.constraints,
        storage=options.storage,
        study_name=_study_name(config, folder),
        subject=_subject(config, folder, bundle),
        artifacts=options.artifacts,
        max_failure_share=options.max_failure_share,
        max_restarts=options.max_restarts,
        stale_seconds=options.stale_seconds,
    )
    _show(found, run.tensorboard)
    run.finish(
        **found.to_dict(),
        **_of_best(found, task),
        metric=task.metric.to_dict(),
        seed=config.seed,
    )
    return run.result()


def _show(found: StudyResult, board: Any) -> None:
    """Write the trials to TensorBoard's page of settings, where there is one; no number stands for none."""
    for record in found.trials if board is not None else ():
        if record.value is None:
            continue
        shown = {k: v for k, v in record.params.items() if isinstance(v, (int, float, str, bool))}
        outcome = zip(found.objectives, record.values, strict=False)
        board.add_hparams(
            shown,
            {f"hparam/{name}": value for name, value in outcome},
            run_name=f"trial{record.number:04d}",
        )


def _that_fit(space: Mapping[str, Any], samples: int) -> Mapping[str, Any]:
    """`space` without batch sizes of more samples than there are to train on: their trials would fail."""
    node = space.get("batch_size")
    if isinstance(node, (list, tuple)):
        node = {"choices": node}
    if not isinstance(node, Mapping):
        return space
    choices = node.get("choices")
    if not isinstance(choices, (list, tuple)):
        return {**space, "batch_size": _cut(node, samples)}
    large = [size for size in choices if isinstance(size, int) and size > samples]
    kept = [size for size in choices if size not in large]
    if not large or not kept:
        return space
    log.info(
        "of tune.space.batch_size %s are left out: there are %d samples to train on", large, samples
    )
    return {**space, "batch_size": {**node, "choices": kept}}


def _cut(node: Mapping[str, Any], samples: int) -> Mapping[str, Any]:
    """A range of batch sizes that ends with the samples there are; as it is where it begins beyond them."""
    low, high = node.get("low"), node.get("high")
    if not (isinstance(low, (int, float)) and isinstance(high, (int, float))):
        return node
    if high <= samples or low >= samples:
        return node
    log.info("tune.space.batch_size ends at %d, the samples that there are to train on", samples)
    # of the same type: two whole ends make a range of whole numbers
    return {**node, "high": type(high)(samples)}


def _varied(
    given: Mapping[str, Any], samples: int, folder: Path, beside: Path | None = None
) -> Mapping[str, Any]:
    """What the study in `folder` varies; one that an older program began goes on as that read its space.

    One that begins now varies what the study `beside` it does, whoever began that.
    """
    description = folder / "study.json"
    if beside is not None and not description.is_file():
        description = beside / "study.json"
    if description.is_file():
        known, older = read_mapping(description).get("space"), choices_first(given)
        for space in (_that_fit(older, samples), older):
            if known == space_to_dict(parse_space(space)):
                return space
    return _that_fit(recipe_space(given), samples)


def _on_the_same_data(folder: Path, bundle: DataBundle) -> None:
    """Note what the study in `folder` begins on; values of trials on other data compare with nothing.

    Raises:
        ResumeError: its data have changed since. An older program's study says nothing of it.
    """
    path = folder / "data.json"
    if not (folder / "study.json").is_file():
        # none has begun, though a command that was stopped may have come as far as this
        write_json(path, {"schema_version": 1, "mark": bundle.mark})
    elif path.is_file():
        check_data(path, read_mapping(path).get("mark"), bundle.mark)


def _say_unread(
    config: TuneStage, space: Mapping[str, Any], folder: Path, bundle: DataBundle
) -> None:
    """Say which sizes are varied though the network is not made by them: trials would differ in name only."""
    varied = [name for name in ("channels", "layers", "auxiliary") if name in space]
    if not varied:
        return
    network = find_network(config, folder.parent, bundle)
    read: tuple[str, ...] = ()
    # a saved one is as it is; a hand-designed one has a width, one of the user's own no such setting
    if network.saved is None:
        read = ("channels",) if "baseline" in network.meta else (*network.meta.get("build", ()),)
    unread = [name for name in varied if name not in read]
    if unread:
        log.warning(
            "tune.space varies %s, which changes nothing: %s is not made by it; leave it out of tune.space",
            ", ".join(unread),
            network.name,
        )


def _say_uncounted(options: TuneOptions) -> None:
    """Say that objectives go before a metric or direction, where one is given beside them."""
    beside = {"metric": options.metric, "direction": options.direction}
    given = [f"tune.options.{name}={value}" for name, value in beside.items() if value is not None]
    if options.objectives and given:
        log.warning(
            "%s does not count beside tune.options.objectives, by which the trials are judged",
            " ".join(given),
        )


def _judged(config: TuneStage, task: Task) -> tuple[str, str]:
    """(metric, direction) of the study: as given, else the task's on val; less of what a network costs."""
    options, own = config.tune.options, f"val_{task.metric.name}"
    metric = options.metric or own
    usual = task.metric.direction if metric == own else "minimize"
    return metric, options.direction or usual


def _study_name(config: TuneStage, folder: Path) -> str | None:
    """The study's name in a database: as given, and of one among several in a version its place, too.

    A pipeline tunes its baseline and rivals as well, a multirun each of its elements: under one name the
    second would find the first one's trials done, and take their results for its own.
    """
    options, description = config.tune.options, folder / "study.json"
    version = Path(config.out, config.job or "", config.version or "").resolve()
    own = folder.resolve()
    named = config.job is not None and config.version is not None and own.is_relative_to(version)
    if options.storage is None or not named or own.parent == version:
        return options.study_name
    if description.is_file() and "study_name" not in read_mapping(description):
        return options.study_name  # begun by an older program, under the name that it gave
    base = options.study_name or f"{config.job}/{config.version}"
    return "/".join((base, *own.relative_to(version).parts))


def _subject(config: TuneStage, folder: Path, bundle: DataBundle) -> str | None:
    """The network and its data, by which a study in a database tells that a second command tunes others.

    Without what two hosts may name or compute otherwise: files, and statistics of the data.
    """
    if config.tune.options.storage is None:
        return None
    network = find_network(config, folder.parent, bundle)
    decides = {k: v for k, v in network.meta.items() if k not in ("mean", "std")}
    name = "a saved network" if network.saved is not None else network.name
    return f"{name} on {bundle.name} ({config_hash(decides)})"


def check_metrics(options: TuneOptions, task: Task) -> None:
    """Refuse a name that no trial returns: each would be trained to its end and then fail.

    Raises:
        ConfigError: with the names that there are.
    """
    known = returned(task)
    given = {
        "metric": () if options.metric is None else (options.metric,),
        "objectives": options.objectives or (),
        "constraints": options.constraints or (),
    }
    for key, names in given.items():
        for name in names:
            if name not in known:
                raise ConfigError(unknown_name(f"metric in tune.options.{key}", str(name), known))


def _of_best(found: StudyResult, task: Task) -> dict[str, float]:
    """The best trial's first objective and, whatever that is, its value of the task's metric on val."""
    first, own = next(iter(found.objectives)), f"val_{task.metric.name}"
    metrics = found.best.metrics
    return {**({own: metrics[own]} if own in metrics else {}), first: found.best_value}


def _own(train: Train, space: Mapping[str, Any]) -> dict[str, Any]:
    """The user's own settings of what is tuned: the baseline."""
    params: dict[str, Any] = {}
    for name, dimension in parse_space(space).items():
        value = getattr(train, name)
        if dimension.low is not None and isinstance(value, int) and not dimension.integer:
            value = float(value)
        if dimension.active(params):
            params[name] = value
    return params
