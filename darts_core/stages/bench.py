"""Stage `bench`: accuracy against latency of the models of a version, one table and one picture."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from darts_core.bench.models import bench_case, saved_case, saved_runs
from darts_core.bench.runtimes import check_runtimes
from darts_core.bench.table import print_models
from darts_core.bench.timed import Untimed, with_times
from darts_core.data import DataBundle
from darts_core.errors import ConfigError, ExportError
from darts_core.models.baselines import default_baseline
from darts_core.report import ModelRow, front_png
from darts_core.report.reduced import read_reduced
from darts_core.runlog import RunFolder, environment, write_json
from darts_core.settings import default_of, to_plain
from darts_core.stages.compare import compare, join_rows, keep_results
from darts_core.stages.inputs import find_device, load_bundle
from darts_core.stages.logging import make_loggers
from darts_core.stages.models import Entry, entries_of, measurable, trained_kind, untimed_row
from darts_core.stages.schema import BenchStage
from darts_core.stages.timing import stopwatch

__all__ = ["bench"]

log = logging.getLogger("darts_core")
_MODULES = {"tabular": "tabular_compare"}
_SIZES = ("space", "channels", "layers", "batch_size", "size", "relaxation", "seconds", "results")
# of bench.options, what each comparison reads; "version": that of the models which a version holds
_READ: Mapping[str, tuple[str, ...]] = {
    "models": ("seeds", "precisions", "batch_sizes", "width", "name", "kind", "results"),
    "version": ("precisions", "batch_sizes", "results"),
    "step": (*_SIZES, "variants", "cases"),
    "kernels": (*_SIZES, "precisions"),
    "tabular": ("table", "column", "select", "runs", "budget", "population", "tournament", "seeds"),
}


def bench(config: BenchStage, folder: Path) -> dict[str, Any]:
    """Compare the models of `model=`, or those that the version holds; other `what=` go to `bench/`.

    Returns:
        rows (as in results.json), device_seconds.
    """
    run = RunFolder.create(folder, config.described(), loggers=make_loggers(config))
    if run.finished:
        return run.result()
    if config.model is None and (config.weights is not None or config.model_args):
        raise ConfigError("weights= and model_args= go with model=; give it.")
    _say_unread(config)
    if config.what != "models":
        name = _MODULES.get(config.what, config.what)
        module = importlib.import_module(f"darts_core.bench.{name}")
        found = module.run(config.bench.options, folder, device=config.device, seed=config.seed)
        run.finish(**found)
        return run.result()
    device = find_device(config.device)
    bundle = load_bundle(config, device)
    one = config.model is not None
    with stopwatch(device) as watch:
        rows = (
            compare(config, folder, bundle, device)
            if one
            else _version_rows(config, folder, bundle, device)
        )
    content = {
        "schema_version": 1,
        "theme": "models",
        "environment": environment(),
        "rows": [row.to_dict() for row in rows],
    }
    write_json(folder / "results.json", content)
    _picture(rows, folder / "front.png")
    if one:
        join_rows(folder, config)
    else:
        print_models(rows, title=f"{rows[0].metric.words} and latency on {rows[0].device}")
        keep_results(rows, config, _called(folder.parent), version=str(folder.parent))
    run.finish(rows=content["rows"], device_seconds=watch.seconds)
    return run.result()


def _say_unread(config: BenchStage) -> None:
    """A warning where somebody set what this comparison does not read."""
    models, options = config.what == "models", config.bench.options
    kind = "version" if models and config.model is None else config.what
    given = [] if models else [n for n in ("model", "runtime") if getattr(config, n) is not None]
    given += [
        options.key(item.name)
        for item in fields(options)
        if item.name not in _READ[kind] and getattr(options, item.name) != default_of(item)
    ]
    if given:
        which = "without model=" if kind == "version" else f"what={kind}"
        log.warning(
            "%s: not read by bench %s, which reads %s of bench.options",
            ", ".join(given),
            which,
            ", ".join(_READ[kind]),
        )


def _version_rows(
    config: BenchStage, folder: Path, bundle: DataBundle, device: torch.device
) -> list[ModelRow]:
    """One row for each model that the version holds, every exported form that can run here included.

    The baseline and the network before it was pruned are exported to the same forms, so that each form is
    compared with the like; one that a network cannot be written in is named in the log. `runtime=` runs all
    models in that one way.

    Raises:
        ConfigError: the version holds no model, or none runs as `runtime=` says; or that cannot run here.
        ExportError: nothing of an export that stands alone can run here, or its files were changed.
    """
    asked, options = config.runtime, config.bench.options
    if asked is not None:
        check_runtimes([asked], device)
    baseline = config.bench.baseline or default_baseline(bundle.kind)
    entries = measurable(entries_of(folder.parent, baseline), device)
    rows = with_times(
        _untimed_rows(config, folder, bundle, device, entries),
        device=device,
        batch_sizes=options.batch_sizes,
        seconds=config.bench.seconds,
    )
    if not rows:
        raise ConfigError(
            f"{folder.parent} holds no model that runs as runtime={asked!r}; name one of "
            f"{', '.join(dict.fromkeys(entry.runtime for entry in entries))}, or leave it out."
        )
    return rows


def _untimed_rows(
    config: BenchStage,
    folder: Path,
    bundle: DataBundle,
    device: torch.device,
    entries: Sequence[Entry],
) -> Iterator[Untimed]:
    """The rows of the entries before they are timed, each made ready when it is asked for."""
    asked, precisions = config.runtime, tuple(config.bench.options.precisions or ("fp32",))
    forms = [entry.runtime for entry in entries if entry.kind == "exported"]
    first = read_reduced(folder.parent)
    whole = "searched" if first is not None and first.shipped else trained_kind(folder.parent)
    # as a network lies in memory, its stage has judged it
    plain = asked in (None, "eager") and precisions == ("fp32",)
    data = to_plain(config.data)
    for entry in entries:
        exported = entry.kind == "exported"
        if exported and asked not in (None, entry.runtime):
            continue
        own = untimed_row(entry, bundle, device, data)
        if exported or plain:
            yield own
        if exported:
            continue
        compared = forms if entry.kind in ("baseline", whole, "rival") else []
        wanted = [asked] if asked is not None else ["eager", *compared]
        runtimes = [name for name in wanted if not (plain and name == "eager")]
        if not runtimes:
            continue
        case = saved_case(entry.folder, name=entry.name, kind=entry.kind)
        tested = own.row.accuracies[0]  # of the eager row: read once, and the same in all
        runs = saved_runs(case, bundle, device=device, data=data, tested=tested)
        try:
            for one in bench_case(
                case, runs, bundle, runtimes=runtimes, device=device, folder=folder / "files",
                precisions=precisions,
            ):  # fmt: skip
                # the stage's own seconds are not all that was spent
                extra = {k: v for k, v in one.row.extra.items() if k != "device_seconds"}
                yield replace(one, row=replace(one.row, extra={**extra, **own.row.extra}))
        except ExportError as error:  # the other models' rows stand
            log.warning("%s is left out in %s: %s", entry.name, ", ".join(runtimes), error)


def _called(place: Path) -> str:
    """Job and version, and the element or seed where `place` is one, as the name of a results file."""
    root = next((p for p in (place, place.parent) if (p / "version.json").is_file()), place)
    return "-".join((root.parent.name, *place.relative_to(root.parent).parts))


def _picture(rows: list[ModelRow], path: Path) -> None:
    """The front as a PNG; where no row can be drawn (all flagged), a line says why instead."""
    try:
        front_png(rows, path)
    except ConfigError as error:
        log.warning("no picture: %s", error)
