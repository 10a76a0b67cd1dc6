"""Stage `shrink`: a trained network's sub-networks, from one elastic training, as a measured front."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darts_core.distributed import Group
from darts_core.elastic.choose import budgets_of
from darts_core.elastic.device_clock import DeviceClock
from darts_core.elastic.fit import check_uncompiled
from darts_core.elastic.front import pick
from darts_core.elastic.points import given_network, remove_stale, write_points
from darts_core.elastic.shrink import Family, grow_family
from darts_core.errors import ExportError, NoFormatError
from darts_core.export.fold import trace
from darts_core.export.formats import FORMATS, check_formats
from darts_core.metric import Metric
from darts_core.modes import in_evaluation
from darts_core.prune.auxiliary import drop_auxiliary
from darts_core.prune.groups import copied
from darts_core.report.blocks import duration
from darts_core.report.family import family_front, family_headline, family_rows
from darts_core.report.png_front import save_front
from darts_core.report.tables import render
from darts_core.runlog import RunFolder, write_json
from darts_core.sample_inputs import draw_inputs
from darts_core.settings import Shrink, ShrinkOptions, to_plain
from darts_core.stages.export import export
from darts_core.stages.inputs import find_device, load_bundle, open_model, recipe
from darts_core.stages.interrupt import check_stop, deferred_stop, stop_wanted
from darts_core.stages.point_training import tuned_elsewhere
from darts_core.stages.progress import progress_bar
from darts_core.stages.schema import ExportStage, ShrinkStage
from darts_core.stages.shared_run import open_run
from darts_core.stages.shrink_seconds import Spent, spent_on
from darts_core.study.engines import elsewhere
from darts_core.train import of_model
from darts_core.train.config import TrainConfig
from darts_core.train.judged import as_judged, seconds_of_training
from darts_core.train.model_data import tell_other_optimizer

__all__ = ["check_shrink", "shrink"]

log = logging.getLogger("darts_core")
_PICK = "50%"
# between two notes of what was spent, while sub-networks are judged
_NOTED_SECONDS = 5.0
# what the elastic training, and the fine-tuning of its points, do without
_LEFT_OUT = {"min_learning_rate": 0.0, "warmup_epochs": 0.0, "drop_path": 0.0}


def shrink(config: ShrinkStage, folder: Path) -> dict[str, Any]:
    """Make the model of `model=` elastic, train it once, choose for every budget, cut out and export.

    Every step goes on where it was: epochs, the latency table, judged sub-networks, points. Of the processes
    of a joined group all train; the first one does everything else.

    Returns:
        points, judged, found_by, val_<metric>, test_<metric> and latency_after_ms of the point picked,
        latency_before_ms, speedup, metric, device_seconds, warnings (formats that a point's export left out,
        or points without one, and why); nothing in the other processes of a group.

    Raises:
        LatencyError: a budget, or what is picked, is none; or a budget is out of reach.
        TuneError: `shrink.options.ray` and `slurm` are both set, or a value of ray is wrong.
        ConfigError: a value of slurm is wrong, or `train.compile` is set.
        ExportError: an export format is unknown, or the network cannot be exported.
    """
    check_shrink(config)
    group, run, finished = open_run(config, folder)
    if finished:
        return {} if run is None else run.result()
    device = find_device(config.device) if group is None else group.device
    bundle = load_bundle(config, device)
    model, meta, path = open_model(config, folder.parent, ("train",), bundle, device)
    bundle = of_model(bundle, meta, str(path or config.model))
    metric = bundle.task.metric
    drop_auxiliary(model, meta)
    settings, options = config.shrink, config.shrink.options
    clock = DeviceClock(
        bundle.input_shape, device, batch=settings.batch, runtime=options.runtime,
        seconds=options.seconds,
    )  # fmt: skip
    given = in_evaluation(copied(model))
    if settings.export:
        _check_exportable(
            given, bundle.input_shape, max(len(bundle.vocabulary), 2), config.export.formats
        )
    trained = recipe(
        config, folder, epochs=settings.epochs, learning_rate=settings.learning_rate, **_LEFT_OUT
    )
    if run is not None:
        _say_left_out(config.train)
        _say_untuned(settings)
        if path is not None:
            as_judged(given, bundle, path.parent, to_plain(config.data))
            tell_other_optimizer(path.parent, trained, settings.key("learning_rate"))
    with spent_on(device, None if run is None else folder / "spent.json") as spent:
        with deferred_stop():
            family = grow_family(
                model, bundle.without_test(), settings, trained, clock, folder, seed=config.seed,
                run=run, on_epoch=lambda: _trained(spent, group), on_judged=lambda: _judged(spent),
                bar=lambda title: progress_bar(title, shown=run is not None), group=group,
            )  # fmt: skip
        if family is None or run is None:
            return {}
        check_stop()
        base, first = given_network(given, bundle, clock, folder)
        left_out: list[dict[str, str]] = []
        tuned = _fine_tuning(settings, trained)
        points = write_points(
            family, given, bundle, clock, first, folder, _plain(meta),
            wanted=settings.budgets, tuning=tuned, share=options.distillation, seed=config.seed,
            elsewhere=tuned_elsewhere(config, tuned, meta, given, folder),
            done=lambda at: left_out.extend(_finish_point(config, at, spent.keep)),
        )  # fmt: skip
    front = _front(config, family, clock, metric, base, points, folder)
    remove_stale(folder, points)
    allowed = _wanted(settings.pick or _PICK, base["latency_ms"], points, family.net.largest)
    taken = pick(front, latency_ms=allowed)
    _say(front, taken, folder)
    shutil.copyfile(folder / taken["folder"] / "model.pt", folder / "model.pt")
    took = seconds_of_training(None if path is None else path.parent)
    counted = {
        "seed": config.seed,
        **took,
        **({} if group is None else {"processes": group.processes}),
    }
    told = {"warnings": left_out} if left_out else {}
    _finish(
        run, family, metric, front, taken, device_seconds=spent.seconds, data_marks=bundle.marks,
        **counted, **told,
    )  # fmt: skip
    if took:
        log.info(
            "all of it took %s, %.1f times the training of the given network",
            duration(spent.seconds), spent.seconds / took["given_training_seconds"],
        )  # fmt: skip
    return run.result()


def _fine_tuning(settings: Shrink, trained: TrainConfig) -> TrainConfig | None:
    """The recipe of the points' fine-tuning; None where there is none.

    Steps as large as those of the elastic training throw away what it gave, and an epoch is too short to win
    it back; a longer fine-tuning has the time.
    """
    if not settings.fine_tuning:
        return None
    share = min(1.0, math.sqrt(settings.fine_tuning) / 3)
    rate = settings.options.fine_tuning_rate or share * settings.learning_rate
    return replace(trained, epochs=settings.fine_tuning, learning_rate=rate)


def check_shrink(config: ShrinkStage) -> None:
    """Refuse at once what would be refused behind the training: its version could not be gone on with."""
    settings, options = config.shrink, config.shrink.options
    for text in (*settings.budgets, settings.pick or _PICK):
        budgets_of(0.0, 1.0, [text], 1)
    elsewhere(options.ray, options.slurm)
    check_uncompiled(config.train)
    if settings.export:
        check_formats(config.export.formats)


def _check_exportable(
    model: nn.Module,
    input_shape: tuple[int, ...],
    vocabulary: int = 2,
    formats: Sequence[str] = ("pt2",),
) -> None:
    """Refuse before the training what no format can express after it."""
    try:
        trace(model, input_shape)
        # those of a lower precision are judged on val alone
        if all(FORMATS[name].precision == "fp32" for name in formats):
            _check_answers(model, input_shape, vocabulary)
    except ExportError as error:
        raise ExportError(
            f"{error} With shrink.export=false the points are cut out and measured without it."
        ) from error


@torch.no_grad()
def _check_answers(model: nn.Module, input_shape: tuple[int, ...], vocabulary: int) -> None:
    """Refuse what no fp32 export could be compared with: each is, on random inputs.

    Raises:
        ExportError: the network gives NaN, or infinity, for them.
    """
    like = next(model.parameters(), torch.zeros(()))
    generator = torch.Generator(like.device).manual_seed(0)  # the global one is the training's
    x = draw_inputs(
        input_shape, 2, device=like.device, dtype=like.dtype, generator=generator, vocabulary=vocabulary
    )  # fmt: skip
    found = model(x)
    # minus infinity rules an answer out
    if isinstance(found, torch.Tensor) and bool((found.isnan() | found.isposinf()).any()):
        raise ExportError(
            f"No export of {type(model).__name__} could be verified: it gives NaN or infinite outputs for "
            "random inputs, as where it takes a logarithm or a root of negative ones."
        )


def _say_left_out(train: TrainConfig) -> None:
    """A warning where somebody set what the recipe of the elastic training leaves out."""
    usual = TrainConfig()
    left = [
        f"{TrainConfig.key(name)}={getattr(train, name):g}"
        for name, taken in _LEFT_OUT.items()
        if getattr(train, name) not in (taken, getattr(usual, name))
    ]
    if left:
        log.warning(
            "%s: not used by shrink, whose elastic training and fine-tuning begin at the full learning rate, "
            "end at 0 and drop no paths",
            ", ".join(left),
        )


def _say_untuned(settings: Shrink) -> None:
    """A warning where somebody set how points are fine-tuned, and none is."""
    options, usual = settings.options, ShrinkOptions()
    names = ("fine_tuning_rate", "ray", "slurm")
    left = [options.key(name) for name in names if getattr(options, name) != getattr(usual, name)]
    if left and not settings.fine_tuning:
        log.warning(
            "%s: not used, as no point is fine-tuned; %s=EPOCHS does so",
            ", ".join(left), settings.key("fine_tuning"),
        )  # fmt: skip


def _trained(spent: Spent, group: Group | None) -> None:
    """An epoch is on disk: what was spent is noted, and a stop that was asked for may come."""
    spent.keep()
    check_stop(group)


def _judged(spent: Spent) -> None:
    """The same of a sub-network, which are many."""
    spent.keep(every=0.0 if stop_wanted() else _NOTED_SECONDS)
    check_stop()


def _finish_point(
    config: ShrinkStage, at: Path, noted: Callable[[], None] = lambda: None
) -> list[dict[str, str]]:
    """Export a point that is on disk and note what was spent; then a stop that was asked for may come.

    Returns:
        The formats that its export leaves out, or that it has none, as warnings of the stage.
    """
    exported = _export(config, at) if config.shrink.export else {}
    noted()
    check_stop()
    return [
        {**one, "name": f"points/{at.name} {one['name']}"} for one in exported.get("warnings", ())
    ]


def _finish(
    run: RunFolder,
    family: Family,
    metric: Metric,
    front: dict[str, Any],
    taken: dict[str, Any],
    **further: Any,
) -> None:
    """Write the stage's result."""
    before, points = front["base"]["latency_ms"], front["points"]
    run.finish(
        points=len(points),
        judged=family.chosen.judged,
        found_by=family.chosen.found_by,
        picked=taken["folder"],
        missed_budgets_ms=[p["budget_ms"] for p in points if p["within_budget"] is False],
        latency_before_ms=before,
        latency_after_ms=taken["latency_ms"],
        speedup=before / taken["latency_ms"],
        **{f"val_{metric.name}": taken["val_metric"], f"test_{metric.name}": taken["metric"]},
        metric=metric.to_dict(),
        params=taken["params"],
        macs=taken["macs"],
        training_seconds=family.train_seconds,
        choosing_seconds=family.chosen.seconds,
        **further,
    )


def _plain(meta: dict[str, Any]) -> dict[str, Any]:
    build = dict(meta.get("build") or {})
    return {**meta, "build": {**build, "auxiliary": False}} if build else meta


def _export(config: ShrinkStage, at: Path) -> dict[str, Any]:
    """The point's deployable forms, each verified, by the export stage; its result.

    A point that none of the formats can express goes without: an error would end for good what was trained
    for hours, as other formats are other settings. What is not installed here is one all the same.
    """
    # what it has begun there is of the same settings, as this stage's are; but the folder of all results may
    # have been moved since, and the point's path with it
    (at / "export" / "config.hash").unlink(missing_ok=True)
    part = config.part(ExportStage, model=str(at / "model.pt"), model_args={}, weights=None)
    try:
        return export(part, at / "export")
    except NoFormatError as error:
        log.warning("points/%s is left without an export: %s", at.name, error)
        shutil.rmtree(at / "export")  # which holds none, and would pass for one
        return {"warnings": [{"name": "export", "message": str(error)}]}


def _front(
    config: ShrinkStage,
    family: Family,
    clock: DeviceClock,
    metric: Metric,
    base: dict[str, Any],
    points: list[dict[str, Any]],
    folder: Path,
) -> dict[str, Any]:
    content = {
        "schema_version": 1,
        **clock.described(),
        "metric": metric.name,
        "direction": metric.direction,
        "share": metric.share,
        "seed": config.seed,
        "base": base,
        "points": points,
        "found_by": family.chosen.found_by,
        "judged": family.chosen.judged,
        "best_loss_by": family.chosen.best_by,
        "budgets_ms": family.chosen.budgets_ms,
        "checks": family.checks,
    }
    write_json(folder / "front.json", content)
    return content


def _say(front: dict[str, Any], taken: dict[str, Any], folder: Path) -> None:
    """The front as a picture and a table, and in words what is picked."""
    drawn = family_front(front, taken["folder"])
    if drawn is not None:
        log.info("front: %s", save_front([drawn], folder / "front.png", titles=False))
    rows = family_rows(front, taken["folder"])
    if not rows:
        log.warning("no network of the front has a test %s that is a number", front["metric"])
    for line in render(list(rows[0]), rows).splitlines() if rows else ():
        log.info("%s", line)
    told = family_headline(front, taken["folder"])
    if told is not None:
        log.info("picked %s: %s. %s", folder / taken["folder"], *told)


def _wanted(
    text: str, whole_ms: float, points: list[dict[str, Any]], largest: Mapping[str, int]
) -> float:
    """The latency that `shrink.pick` allows; the fastest point's where none is so fast, which is told."""
    limit = budgets_of(0.0, whole_ms, [text], 1)[0]
    if limit > whole_ms and not text.strip().lower().endswith(("%", "ms")):
        log.warning(
            "%s=%s is %.4g ms, more than the given network's %.4g ms, which asks for nothing; a share of its "
            "time is written 50%%",
            Shrink.key("pick"), text, limit, whole_ms,
        )  # fmt: skip
    # the whole network is the given one, whatever the clock says of it now
    same = [p["latency_ms"] for p in points if limit >= whole_ms and p["choices"] == largest]
    limit, fastest = max([limit, *same]), min(point["latency_ms"] for point in points)
    if fastest > limit:
        log.warning(
            "%s=%s: no point takes at most %.3f ms; the fastest is picked, which takes %.3f ms",
            Shrink.key("pick"), text, limit, fastest,
        )  # fmt: skip
    return max(limit, fastest)
