"""Accuracy against latency: every model over several seeds, in every runtime, as rows of one table.

The accuracy is of the test split, read once a trained network; selection has used val. Every seed's
network is timed alike, so the times of the first one stand for all. Low-precision files are evaluated
themselves: what a row states is what that row's file does.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darts_core.bench.results import slug
from darts_core.bench.runtimes import Prepared, evaluate_prepared, prepare
from darts_core.bench.timed import Untimed
from darts_core.checkpoint import check_data
from darts_core.errors import ConfigError, ExportError
from darts_core.report.rows import ModelRow, finite
from darts_core.runlog import RunFolder, code_mark, config_hash, read_mapping
from darts_core.settings.train import as_before
from darts_core.supernet import count
from darts_core.train import TrainConfig, evaluate, fit, load_model, of_model, save_model
from darts_core.train.judged import tested_before
from darts_core.train.model_data import tell_other_test

__all__ = [
    "ModelCase",
    "SeedRun",
    "bench_case",
    "saved_case",
    "saved_runs",
    "seed_settings",
    "train_seeds",
]

log = logging.getLogger("darts_core")
_SPLITS = ("params", "alpha")


@dataclass(frozen=True)
class ModelCase:
    """A model of the comparison: how to make a fresh one, or the files of trained ones.

    Attributes:
        name: in the table.
        kind: baseline, searched, tuned, pruned, exported ...
        make: a fresh network; its parameters are drawn from torch's global generator.
        meta: what `save_model` needs to rebuild it.
        trained: files of trained networks, one a seed; then nothing is trained.
    """

    name: str
    kind: str = ""
    make: Callable[[], nn.Module] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    trained: tuple[Path, ...] = ()


@dataclass(frozen=True)
class SeedRun:
    """One trained network: its file and the task's metric, and what it cost in device seconds, if known."""

    seed: int
    path: Path
    test: float
    val: float | None = None
    device_seconds: float | None = None


def saved_case(path: str | Path, *, name: str = "", kind: str = "") -> ModelCase:
    """The case of a trained model's file, or of a folder that holds model.pt or `seed*/model.pt`.

    Raises:
        ConfigError: there is no model.
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted(path.glob("seed*/model.pt"))
    if path.is_dir() and not files:
        files = [
            file for file in (path / "model.pt", path / "train" / "model.pt") if file.is_file()
        ]
    if not files:
        raise ConfigError(
            f"{path} is neither a saved model nor a folder with model.pt or seed*/model.pt; train "
            "one with `darts-core train`."
        )
    return ModelCase(name or path.resolve().name, kind, trained=tuple(files))


def _train_one(
    case: ModelCase,
    bundle: Any,
    config: TrainConfig,
    seed: int,
    device: torch.device,
    folder: Path,
    settings: Mapping[str, Any],
) -> SeedRun:
    """One seed, resumed from its checkpoint or taken as it is when finished."""
    run, name = RunFolder.create(folder, settings, tensorboard=False), bundle.task.metric.name
    # before the training, in which the files may be edited
    mark, code = config_hash(bundle.marks), code_mark()
    if not run.finished:
        if case.make is None:
            raise ConfigError(f"The model {case.name!r} has neither a maker nor trained files.")
        torch.manual_seed(seed)
        model = case.make()
        fitted = fit(
            model,
            bundle.without_test(),
            config,
            train_on=_SPLITS,
            select_on="val" if bundle.size("val") else None,
            seed=seed,
            device=device,
            run=run,
            checkpoint=folder / "checkpoint.pt",
        )
        test = evaluate(model, bundle, "test")
        save_model(folder / "model.pt", model, case.meta)
        run.finish(
            **test.named("test"),
            **{f"val_{name}": fitted.val},
            device_seconds=fitted.train_seconds,
            seed=seed,
            data_mark=mark,
            code_mark=code,
        )
        (folder / "checkpoint.pt").unlink(missing_ok=True)
    result = run.result()
    check_data(folder / "result.json", result.get("data_mark"), mark)
    return SeedRun(
        seed,
        folder / "model.pt",
        float(result[f"test_{name}"]),
        finite(result.get(f"val_{name}")),
        finite(result.get("device_seconds")) or 0.0,
    )


def seed_settings(case: ModelCase, bundle: Any, config: TrainConfig, seed: int) -> dict[str, Any]:
    """What the folder of a seed is stamped by."""
    return {"case": case.name, "meta": dict(case.meta), "train": as_before(vars(config)),
            "data": bundle.name, "seed": seed}  # fmt: skip


def train_seeds(
    case: ModelCase,
    bundle: Any,
    config: TrainConfig,
    *,
    seeds: Sequence[int],
    device: torch.device,
    folder: str | Path,
) -> list[SeedRun]:
    """Train `case` once a seed into `folder/seed<k>/`; finished seeds are read, a cut one goes on.

    Networks of a case that names trained files are only evaluated.

    Raises:
        ResumeError: the folder holds runs of another recipe, or of other data.
        ConfigError: no seed is given, or the case can neither be made nor loaded.
    """
    if case.trained:
        return saved_runs(case, bundle, device=device)
    if not seeds:
        raise ConfigError(f"The model {case.name!r} needs at least one seed to be trained with.")
    runs = []
    for seed in seeds:
        place = Path(folder) / f"seed{seed}"
        settings = seed_settings(case, bundle, config, seed)
        runs.append(_train_one(case, bundle, config, seed, device, place, settings))
        log.info("%s, seed %d: test %.4f", case.name, seed, runs[-1].test)
    return runs


def saved_runs(
    case: ModelCase,
    bundle: Any,
    *,
    device: torch.device,
    data: Mapping[str, Any] | None = None,
    tested: float | None = None,
) -> list[SeedRun]:
    """The trained files of `case`, each with the test accuracy that its stage found (or measured here).

    Args:
        case: that names trained files.
        bundle: the data.
        device: where they are evaluated.
        data: the settings of `bundle`; what a stage found on other data, or without them, does not count.
        tested: the metric on test of a single file, where the caller knows it.
    """
    return [
        _saved_run(path, i, bundle, device, data, tested) for i, path in enumerate(case.trained)
    ]


def _saved_run(
    path: Path,
    index: int,
    bundle: Any,
    device: torch.device,
    data: Mapping[str, Any] | None,
    value: float | None,
) -> SeedRun:
    """A trained file with the test accuracy that its own stage found, else measured here once."""
    known = path.parent / "result.json"
    result = read_mapping(known) if known.is_file() else {}
    name = bundle.task.metric.name
    if value is None:
        value = tested_before(path.parent, name, data, bundle)
    if value is None:
        tell_other_test(path.parent, data)
        model, meta = load_model(path, device=device)
        value = evaluate(model, of_model(bundle, meta, str(path)), "test").value
    seed = finite(result.get("seed"))
    return SeedRun(
        index if seed is None else int(seed),
        path,
        value,
        finite(result.get(f"val_{name}")),
        finite(result.get("device_seconds")),
    )


def bench_case(
    case: ModelCase,
    runs: Sequence[SeedRun],
    bundle: Any,
    *,
    runtimes: Sequence[str],
    device: torch.device,
    folder: str | Path,
    precisions: Sequence[str] = ("fp32",),
) -> Iterator[Untimed]:
    """One row a runtime and precision: size and accuracy over the seeds; `with_times` times them.

    Each is made ready when it is asked for.

    A file format has its own precision, so `precisions` is for models in memory. Rows whose precision
    is fp32 (or TF32) share the accuracy of the trained networks; each of a lower one is evaluated on
    the test split in that runtime.

    Args:
        case: what the runs are of.
        runs: the trained networks, one a seed.
        bundle: the data.
        runtimes: names from `bench.runtimes.available_runtimes`.
        device: where everything runs.
        folder: receives exported files.
        precisions: of models in memory.

    Raises:
        ConfigError: no run, or an unknown runtime or precision.
        ExportError: a file could not be written or differs from the model, and no other runtime ran.
    """
    if not runs:
        raise ConfigError(f"The model {case.name!r} has no trained network to measure.")
    model, meta = load_model(runs[0].path, device=device)
    bundle = of_model(bundle, meta, str(runs[0].path))
    size = count(model, bundle.input_shape)
    spent = [run.device_seconds for run in runs if run.device_seconds is not None]
    base = ModelRow(
        name=case.name,
        kind=case.kind,
        params=size.params,
        macs=size.macs,
        accuracies=tuple(run.test for run in runs),
        metric=bundle.task.metric,
        data=bundle.name,
        baseline=case.kind == "baseline",
        extra={"seeds": [run.seed for run in runs], "test_examples": bundle.size("test"),
               # a file that comes alone does not tell: 0 s would be what it cost
               **({"device_seconds": round(sum(spent), 3)} if len(spent) == len(runs) else {})},
    )  # fmt: skip
    made = 0
    variants = _variants(runtimes, precisions)
    for runtime, precision in variants:
        place = _own_folder(folder, case.name)
        try:
            row = _row(base, model, runs, bundle, runtime, precision, device, place)
        except ExportError as error:
            if len(variants) == 1:
                raise
            # a form that cannot be made, or loses too much, has no row; the others stand
            log.warning("%s in %s is left out: %s", case.name, runtime, error)
        else:
            made += 1
            yield row
    if not made:
        raise ExportError(f"No runtime of {', '.join(runtimes)} can run {case.name!r}.")


def _own_folder(folder: str | Path, name: str) -> Path:
    """A folder below `folder` for a name in the table, which may hold anything: the path of a model, say."""
    return Path(folder) / f"{slug(name)}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _row(
    base: ModelRow,
    model: nn.Module,
    runs: Sequence[SeedRun],
    bundle: Any,
    runtime: str,
    precision: str,
    device: torch.device,
    place: Path,
) -> Untimed:
    """`base` in one runtime and precision, with the accuracy where it is its own."""
    ready = prepare(
        model, runtime, device=device, bundle=bundle, folder=place / "0", precision=precision
    )
    row = replace(base, runtime=runtime, precision=ready.precision)
    if ready.precision not in ("fp32", "tf32"):
        row = replace(row, accuracies=_low_precision(ready, runs, bundle, device, place))
    if ready.precision == "int8":
        row = replace(row, kind="int8", baseline=False)
    return Untimed(row, ready, bundle.input_shape)


def _variants(runtimes: Sequence[str], precisions: Sequence[str]) -> list[tuple[str, str]]:
    """(runtime, precision) pairs; an export format is taken once."""
    from darts_core.export import FORMATS

    pairs = []
    for runtime in runtimes:
        pairs += [(runtime, p) for p in (["fp32"] if runtime in FORMATS else precisions)]
    return pairs


def _low_precision(
    first: Prepared, runs: Sequence[SeedRun], bundle: Any, device: torch.device, place: Path
) -> tuple[float, ...]:
    """Test accuracy of every seed's network in the runtime and precision of `first`."""
    accuracies = [evaluate_prepared(first, bundle)]
    for index, run in enumerate(runs[1:], start=1):
        model, _ = load_model(run.path, device=device)
        ready = prepare(
            model,
            first.runtime,
            device=device,
            bundle=bundle,
            folder=place / str(index),
            precision=first.precision,
        )
        accuracies.append(evaluate_prepared(ready, bundle))
    return tuple(accuracies)
