"""Writing a trained network as files that run without our packages, each checked first."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darts_core import runlog
from darts_core.device import require_device
from darts_core.errors import (
    DartsError,
    ExportError,
    NoFormatError,
    NotInstalledError,
    disk_failure,
    first_line,
    is_memory_shortage,
)
from darts_core.export import verify
from darts_core.export.chunk_size import chunk_entry
from darts_core.export.fold import fold_batch_norms
from darts_core.export.formats import FORMATS, Format, Job, cast, check_formats
from darts_core.export.manifest import SCHEMA_VERSION, DataMeta, data_meta, sha256
from darts_core.export.runtime import open_artifact
from darts_core.latency import default_batch_sizes, measure, measure_model
from darts_core.layout import joins_by_view
from darts_core.metric import ACCURACY
from darts_core.modes import evaluating
from darts_core.sample_inputs import draw_inputs, formats_beside_float32
from darts_core.tasks import saved_task

__all__ = ["export_model"]

log = logging.getLogger("darts_core")


def export_model(
    model: nn.Module,
    folder: str | Path,
    meta: Any,
    *,
    formats: Sequence[str] = ("pt2", "onnx"),
    bundle: Any = None,
    device: str | torch.device = "cpu",
    accuracy: float | None = None,
    extra: Mapping[str, Any] | None = None,
    allow_accuracy_loss: bool = False,
    time_artifacts: bool = True,
    batch_sizes: Sequence[int] | None = None,
    channels_last: bool | None = None,
    max_seconds: float = 2.0,
    leave_out: bool = False,
) -> dict[str, Any]:
    """Fold, write, verify and time `model`; the content of the manifest that was written.

    Batch norms are folded into convolutions. Each file is loaded again and compared with the eager
    fp32 model on inputs drawn anew (and on the val split, given a bundle); one that differs is not
    written: fp32 by more than 1e-4 of the largest output, bf16 and fp16 in more than 0.5 % of the
    answers, INT8 by more than 0.5 points of accuracy (or what the task's metric is).

    Args:
        model: a plain network; it is left as it is.
        folder: receives the files and manifest.json.
        meta: a data bundle, a `DataMeta`, or a mapping with class_names, image_shape, mean and std, and with
            unit=1 where images are no bytes (255, what stored values are divided by, is meant of images).
        formats: names from `FORMATS`.
        bundle: data for verification on val and for INT8 calibration; `meta` if that is a bundle.
        device: where the artifacts run and are timed.
        accuracy: the accuracy on test (or what the task's metric is) to state in the manifest.
        extra: further plain values for the manifest (architecture, job name), by names of their own.
        allow_accuracy_loss: write low-precision files even if they lose more than allowed.
        time_artifacts: time each file and state it in the manifest.
        batch_sizes: for the timings; batch 1 and the throughput batch by default.
        channels_last: layout of the torch artifacts; by default the faster one, measured.
        max_seconds: longest time for one timing.
        leave_out: a format that cannot express the model, or fails verification, is left out beside others,
            with a warning; the manifest's `left_out` says why. What this machine lacks is an error all the
            same: with it the same call succeeds.

    Raises:
        ExportError: a format is unknown or cannot express the model, or one fails verification; the model
            gives no single tensor, or one of another shape than the data's outputs, or takes no float32
            values; `extra` does not fit.
        NoFormatError: with `leave_out`, all formats are left out; an ExportError, too.
        NotInstalledError: what a format needs is not installed.
        DeviceError: this machine has no such device, or files are not written for its kind.
    """
    folder = Path(folder)
    described = _described(meta, bundle)
    bundle = bundle if bundle is not None else (meta if hasattr(meta, "batches") else None)
    check_formats(formats)
    home = require_device(device)
    sizes = tuple(batch_sizes or default_batch_sizes(home))
    manifest = _manifest(described, model, accuracy, extra)
    folder.mkdir(parents=True, exist_ok=True)
    with evaluating(model, home):
        _check_network(model, described, home)
        # files are given float32, whatever the network's first weights are
        folded = fold_batch_norms(model, described.input_shape, dtype=torch.float32)
        job = Job(folded, described, home, bundle=bundle)
        job.channels_last = _layout(job, channels_last, sizes, time_artifacts, max_seconds)
        artifacts: dict[str, Any] = {}
        refused: dict[str, str] = {}
        for name in formats:
            try:
                form = FORMATS[name].settled(home)
                artifacts[name] = _one(form, job, model, folder, allow_accuracy_loss)
            except ExportError as error:
                if not leave_out or _of_this_machine(error):
                    raise
                refused[name] = str(error)
                job.folded.to(home)  # a writer that failed may have left it elsewhere
                continue
            if form.kind == "onnx" and home.type == "cpu":
                path = folder / form.file
                artifacts[name] |= chunk_entry(path, job.meta.input_shape, max(sizes), home)
            if time_artifacts:
                artifacts[name]["latency"] = _timed(
                    name, form, job, folder, sizes, max_seconds, artifacts[name].get("chunk")
                )
    if refused and not artifacts:
        raise NoFormatError(" ".join(dict.fromkeys(refused.values())))
    for name, why in refused.items():
        log.warning("the format %s is left out: %s", name, why)
    manifest |= {"channels_last": job.channels_last, "artifacts": artifacts}
    manifest |= {"left_out": refused} if refused else {}
    runlog.write_json(folder / "manifest.json", manifest)
    _tell_older(folder, artifacts)
    return manifest


def _tell_older(folder: Path, artifacts: Mapping[str, Any]) -> None:
    """A warning where files of our names lie in `folder` that are not of this export."""
    written = {entry["name"] for artifact in artifacts.values() for entry in artifact["files"]}
    older = [form.file for form in FORMATS.values() if (folder / form.file).exists()]
    others = [name for name in older if name not in written]
    if others:
        log.warning(
            "%s also holds %s, not of this export and maybe of another network: its manifest names them no "
            "more. Remove them, or name all formats in one call.",
            folder,
            ", ".join(others),
        )


@torch.no_grad()
def _check_network(model: nn.Module, meta: DataMeta, device: torch.device) -> None:
    """Raise where eager does not run as files do: float32 values or token numbers in, one tensor out.

    What has another shape than the task takes, `load` would refuse at every call.
    """
    others = formats_beside_float32(model)
    try:
        output = model(draw_inputs(meta.input_shape, 2, device=device))
    except Exception as error:  # whatever a foreign network raises
        if not others or is_memory_shortage(error):
            return  # told below, with the place in the code
        raise ExportError(
            f"The network has weights of {', '.join(others)} and does not run on float32 values, which files "
            "are given; export model.float(), with a format such as pt2_bf16 for a lower precision."
        ) from error
    if not isinstance(output, torch.Tensor):
        raise ExportError(
            f"The network gives a {type(output).__name__}, and exported files give one tensor; export a "
            "module around it whose forward returns the one that is meant."
        )
    shape: tuple[int, ...] = (len(meta.classes),)
    if meta.task:
        shape = saved_task(meta.task, "meta").output_shape(meta.input_shape)
    if tuple(output.shape) != (2, *shape):
        raise ExportError(
            f"The network gives values of shape {list(output.shape)} for 2 samples; its data's description "
            f"({len(meta.classes)} names of outputs) takes {[2, *shape]}."
        )
    _check_one_sample(model, meta, shape, device)


def _check_one_sample(
    model: nn.Module, meta: DataMeta, shape: tuple[int, ...], device: torch.device
) -> None:
    """Raise where a single sample gives no row of outputs: `squeeze()` takes its batch away, too."""
    try:
        output = model(draw_inputs(meta.input_shape, 1, device=device))
        found = f"gives values of shape {list(output.shape)}"
        if tuple(output.shape) == (1, *shape):
            return
    except Exception as error:  # whatever a foreign network raises
        if is_memory_shortage(error):
            raise
        found = f"does not run ({type(error).__name__}: {first_line(error)[:200]})"
    raise ExportError(
        f"On a single sample the network {found}, on two as it should: files are for any number, and one "
        f"gives {[1, *shape]}. A squeeze() takes the batch's dimension away as well where that is 1: name "
        "the dimension that is meant, as in squeeze(1) or flatten(1)."
    )


def _of_this_machine(error: ExportError) -> bool:
    """Whether it is what the machine lacks (a package, disk, memory), not what the format cannot express."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (NotInstalledError, ImportError)) or is_memory_shortage(seen):
            return True
        seen = seen.__cause__
    return disk_failure(error) is not None


def _described(meta: Any, bundle: Any) -> DataMeta:
    """The data's description: from `meta`, or from the bundle where `meta` lacks it."""
    try:
        return data_meta(meta)
    except ExportError as error:
        if bundle is None:
            raise
        log.warning("The data's own description is taken instead of the one given: %s", error)
        return data_meta(bundle)


def _layout(
    job: Job, wanted: bool | None, sizes: Sequence[int], timed: bool, max_seconds: float
) -> bool:
    """Whether channels-last is taken: as told, else whichever is faster at the largest batch.

    Raises:
        ExportError: it is told, and the network does not run so.
    """
    if wanted is False or (wanted is None and not timed):
        return False
    job.channels_last = True
    if joins_by_view(
        cast(job, torch.float32), draw_inputs(job.meta.input_shape, 2, device=job.device)
    ):
        why = "it calls view() on a tensor whose channels and positions it joins"
        if wanted:
            raise ExportError(
                f"channels_last=true does not go with this network: {why}. Let it call flatten() or "
                "reshape(), or leave the setting out."
            )
        log.info("the files are not tried channels last: %s", why)
        return False
    if wanted:
        return True
    found = []
    for last in (False, True):
        job.channels_last = last
        row = measure_model(
            cast(job, torch.float32),
            job.meta.input_shape,
            batch_sizes=(max(sizes),),
            device=job.device,
            max_seconds=max_seconds / 2,
            warmup_seconds=max_seconds / 4,
        )
        found.append(row[max(sizes)].median_ms)
    return found[1] < found[0]


def _one(
    form: Format, job: Job, reference: nn.Module, folder: Path, allow_accuracy_loss: bool
) -> dict[str, Any]:
    """Write one artifact under a temporary name, verify it, rename it; its manifest entry."""
    stem, dot, suffix = form.file.partition(".")
    temporary = folder / f".{stem}.{os.getpid()}.tmp{dot}{suffix}"
    started = time.monotonic()
    try:
        with verify.exact_products(), runlog.named_errors(folder / form.file):
            form.write(job, temporary)
            runner = _told(_opened(form, job, reference, temporary), form)
            check = _check(job, reference, runner)
        reason = verify.judge(form.precision, check, allow_accuracy_loss=allow_accuracy_loss)
        if reason is not None:
            cause = _cause(form.precision, job, reference)
            raise ExportError(f"{form.file} was not written: {reason}{cause}.")
        path = folder / form.file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    log.info(
        "wrote %s in %.1f s (relative error %.1e)",
        form.file,
        time.monotonic() - started,
        check.relative_error,
    )
    return {
        "kind": form.kind,
        "precision": form.precision,
        "native": form.native,
        "device": str(job.device),
        "files": [{"name": form.file, "sha256": sha256(path), "bytes": path.stat().st_size}],
        "relative_error": check.relative_error,
        "val_agreement": check.agreement,
        f"val_{check.metric.name}": check.value,
    }


def _opened(form: Format, job: Job, reference: nn.Module, path: Path) -> verify.Runner:
    """The file in its runtime, which may lack an operation in the format of some of the weights."""
    try:
        return open_artifact(form.kind, [path], job.device, trust=True)
    except ExportError as error:
        others = formats_beside_float32(reference)
        if form.kind != "onnx" or not others or _of_this_machine(error):
            raise
        raise ExportError(
            f"{form.file} was not written: the network computes in {', '.join(others)}, in which ONNX "
            f"Runtime lacks an operation ({str(error).rpartition(': ')[2][:200]}); export model.float(), "
            "without casts such as x.double() in its forward, or leave 'onnx' out of the formats."
        ) from error


def _told(runner: verify.Runner, form: Format) -> verify.Runner:
    """`runner`, what it raises as a sentence: its runtime may lack an operation in a number format."""

    def run(x: torch.Tensor) -> torch.Tensor:
        try:
            return runner(x)
        except Exception as error:  # runtimes have kinds of their own, not exported by name
            if isinstance(error, DartsError) or is_memory_shortage(error):
                raise
            raise ExportError(
                f"{form.file} was not written: it cannot be run here ({first_line(error)[:200]})."
            ) from error

    return run


def _cause(precision: str, job: Job, reference: nn.Module) -> str:
    """What a file's error comes from, as the end of a sentence: the network itself, or of fp32 which step."""
    with verify.exact_products():
        own, error = (
            verify.compare_on_fresh_inputs(
                reference, other, job.meta.input_shape, device=job.device
            )
            for other in (reference, job.folded)
        )
    if verify.FP32_LIMIT < own < math.inf:
        return (
            "; the network itself gives other outputs when it is asked again: something in it draws numbers "
            "in evaluation mode, such as dropout that is not told of the mode"
        )
    if precision != "fp32":
        return ""
    if own == math.inf:
        return "; the network itself gives NaN or infinite outputs for random inputs"
    if error > verify.FP32_LIMIT:
        return f"; folding its batch norms alone changes them by {error:.2e}"
    return f"; with its batch norms folded, eager agrees ({error:.2e}), so the written file differs"


def _check(job: Job, reference: nn.Module, runner: verify.Runner) -> verify.Check:
    error = verify.compare_on_fresh_inputs(
        reference,
        runner,
        job.meta.input_shape,
        device=job.device,
        vocabulary=max(len(job.meta.vocabulary), 2),
    )
    if job.bundle is None:
        return verify.Check(error)
    return verify.compare_on_split(
        reference, runner, job.bundle, device=job.device, relative_error=error
    )


def _timed(
    name: str,
    form: Format,
    job: Job,
    folder: Path,
    sizes: Sequence[int],
    max_seconds: float,
    chunk: int | None,
) -> dict[str, Any]:
    runner = open_artifact(form.kind, [folder / form.file], job.device, chunk=chunk, trust=True)
    rows = {}
    for size in sizes:
        x = draw_inputs(job.meta.input_shape, size, device=job.device)
        with torch.inference_mode():
            row = measure(
                lambda x=x: runner(x),  # type: ignore[misc]
                device=job.device,
                runtime=name,
                batch=size,
                max_seconds=max_seconds,
                warmup_seconds=max_seconds / 2,
            )
        rows[str(size)] = row.to_dict()
    return rows


def _manifest(
    meta: DataMeta, model: nn.Module, tested: float | None, extra: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The manifest before there are files.

    Raises:
        ExportError: `extra` bears one of its names, or is not made of plain values.
    """
    environment = runlog.environment()
    metric = saved_task(meta.task, "meta").metric if meta.task else ACCURACY
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "data": meta.name,
        "classes": list(meta.classes),
        "input_shape": list(meta.input_shape),
        "mean": list(meta.mean),
        "std": list(meta.std),
        "input": meta.fed,
        "unit": meta.unit,
        "task": dict(meta.task) or None,
        **({"vocabulary": list(meta.vocabulary)} if meta.vocabulary else {}),
        **({} if meta.rate is None else {"rate": meta.rate}),
        **({"named": [one.described() for one in meta.named]} if meta.named else {}),
        "metric": metric.to_dict(),
        "params": sum(p.numel() for p in model.parameters()),
        f"test_{metric.name}": tested,
        "channels_last": False,
        "versions": environment["packages"],
        "python": environment["python"],
        "artifacts": {},
    }
    further = dict(extra or {})
    taken = sorted({*content, "left_out", "vocabulary", "rate", "named"} & set(further))
    if taken:
        raise ExportError(f"extra names {taken[0]!r}, which the manifest holds already; rename it.")
    try:
        json.dumps(runlog.plain(further))
    except (TypeError, ValueError) as error:
        raise ExportError(
            f"extra goes into manifest.json and is not made of plain values ({error}); give numbers, texts, "
            "lists and mappings, of an Architecture its to_dict()."
        ) from None
    return {**content, **further}
