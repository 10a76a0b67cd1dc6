"""The models of a version as rows of one table: size, test accuracy, time at both batch sizes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from darts_core.data import DataBundle
from darts_core.errors import ConfigError
from darts_core.export import load, read_manifest
from darts_core.latency import default_batch_sizes, measure, measure_model
from darts_core.report import Latency, ModelRow
from darts_core.runlog import read_mapping
from darts_core.sample_inputs import draw_inputs
from darts_core.supernet import count
from darts_core.train import evaluate, evaluate_callable, load_model, of_model

__all__ = ["Entry", "entries_of", "holds_model", "model_row"]

log = logging.getLogger("darts_core")

# where the pipeline leaves its models, in the order in which a table tells the story
_PLACES = (
    ("baseline/train", "baseline"),
    ("searched", "searched"),
    ("train", "tuned"),
    ("shrink", "pruned"),
    ("prune", "pruned"),
)


@dataclass(frozen=True)
class Entry:
    """A model to measure: a stage's folder with model.pt, or an export folder and one of its forms."""

    name: str
    kind: str
    folder: Path
    runtime: str = "eager"


def holds_model(version: Path) -> bool:
    """Whether `entries_of` finds any in `version`."""
    files = [version / place / "model.pt" for place, _ in _PLACES]
    return any(file.is_file() for file in (*files, version / "export" / "manifest.json"))


def entries_of(version: Path, baseline: str = "baseline") -> list[Entry]:
    """The models that the pipeline left in `version`, exported forms last.

    Raises:
        ConfigError: there is none.
    """
    found = [
        Entry(baseline if kind == "baseline" else kind, kind, version / place)
        for place, kind in _PLACES
        if (version / place / "model.pt").is_file()
    ]
    rivals = sorted(version.glob("rivals/*/train/model.pt"))
    found += [Entry(file.parent.parent.name, "rival", file.parent) for file in rivals]
    if (version / "export" / "manifest.json").is_file():
        forms = read_manifest(version / "export")["artifacts"]
        found += [Entry("exported", "exported", version / "export", form) for form in forms]
    if not found:
        raise ConfigError(
            f"{version} holds no trained model to measure; give model= or a version= with one."
        )
    return found


def model_row(
    entry: Entry, bundle: DataBundle, device: torch.device, *, seconds: float
) -> ModelRow:
    """`entry` measured: sizes, the task's metric on the test split, time at batch 1 and the throughput batch.

    The metric of a stage's model is the one that its stage found; an exported file is run on the
    test split here, as it is, once.
    """
    if entry.kind == "exported":
        return _exported_row(entry, bundle, device, seconds)
    model, meta = load_model(entry.folder / "model.pt", device=device)
    bundle = of_model(bundle, meta, str(entry.folder / "model.pt"))
    size = count(model, bundle.input_shape)
    known = entry.folder / "result.json"
    metric = bundle.task.metric
    value = read_mapping(known).get(f"test_{metric.name}") if known.is_file() else None
    if value is None:
        value = evaluate(model, bundle, "test").value
    rows = measure_model(
        model, bundle.input_shape, device=device, max_seconds=seconds, warmup_seconds=seconds / 2
    )
    return ModelRow(
        name=entry.name,
        kind=entry.kind,
        params=size.params,
        macs=size.macs,
        accuracies=(value,),
        metric=metric,
        latency={batch: Latency.from_timing(row) for batch, row in rows.items()},
        device=next(iter(rows.values())).device,
        data=bundle.name,
        baseline=entry.kind == "baseline",
        extra=_spent(entry.folder, entry.kind),
    )


# what stands beside a model's own training and was spent on it, by kind
_SPENT = {
    "baseline": ("tune",),
    "rival": ("tune",),
    "searched": ("search",),
    "tuned": ("search", "searched", "tune"),
    "pruned": ("search", "searched", "tune", "train"),
}


def _spent(folder: Path, kind: str) -> dict[str, Any]:
    """Device-seconds that the model in a stage's folder took, all told; nothing where that is not known."""
    results = [folder / "result.json"]
    results += [folder.parent / stage / "result.json" for stage in _SPENT.get(kind, ())]
    if kind not in _SPENT or not all(path.is_file() for path in results):
        return {}
    seconds = [read_mapping(path).get("device_seconds") for path in results]
    known = [float(value) for value in seconds if isinstance(value, (int, float))]
    return {"device_seconds": sum(known)} if len(known) == len(seconds) else {}


def _exported_row(
    entry: Entry, bundle: DataBundle, device: torch.device, seconds: float
) -> ModelRow:
    manifest = read_manifest(entry.folder)
    loaded = load(entry.folder, entry.runtime, device=device)
    rows = {}
    for batch in default_batch_sizes(device):
        x_BCHW = draw_inputs(bundle.input_shape, batch, device=device)
        with torch.inference_mode():
            rows[batch] = measure(
                lambda x=x_BCHW: loaded(x),  # type: ignore[misc]
                device=device,
                runtime=entry.runtime,
                batch=batch,
                max_seconds=seconds,
                warmup_seconds=seconds / 2,
            )
    return ModelRow(
        name=entry.name,
        kind=entry.kind,
        runtime=entry.runtime,
        precision=str(manifest["artifacts"][entry.runtime].get("precision", "fp32")),
        params=manifest.get("params"),
        macs=_macs(manifest),
        accuracies=(evaluate_callable(loaded, of_model(bundle, manifest, str(entry.folder))),),
        metric=bundle.task.metric,
        extra=_spent_on_source(manifest),
        latency={batch: Latency.from_timing(row) for batch, row in rows.items()},
        device=next(iter(rows.values())).device,
        data=bundle.name,
    )


def _spent_on_source(manifest: Mapping[str, Any]) -> dict[str, Any]:
    source = Path(str(manifest.get("source", ""))).parent
    kinds = {"train": "tuned", "prune": "pruned", "shrink": "pruned"}
    return _spent(source, kinds.get(source.name, ""))


def _macs(manifest: Mapping[str, Any]) -> int | None:
    """The MACs of the model that was exported: folding batch norms changes none."""
    source = Path(str(manifest.get("source", ""))).parent / "result.json"
    return read_mapping(source).get("macs") if source.is_file() else None
