"""The models of a version as rows of one table: size, test accuracy, time at both batch sizes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from darts_core.bench.runtimes import Prepared, prepare
from darts_core.bench.timed import Untimed
from darts_core.data import DataBundle
from darts_core.errors import ConfigError, ExportError
from darts_core.export import load, obstacle, read_manifest
from darts_core.export.contents import needs_trust
from darts_core.export.manifest import check_files
from darts_core.report import ModelRow
from darts_core.report.read import read_version
from darts_core.report.reduced import read_reduced
from darts_core.runlog import read_mapping
from darts_core.stages.given import of_its_elements
from darts_core.supernet import count
from darts_core.train import evaluate, evaluate_callable, load_model, of_model
from darts_core.train.judged import as_judged, tested_before
from darts_core.train.model_data import tell_other_test

__all__ = [
    "Entry",
    "entries_of",
    "holds_model",
    "measurable",
    "trained_kind",
    "untimed_row",
    "with_whole_cost",
]

log = logging.getLogger("darts_core")

# where the pipeline leaves its models
_KINDS = {
    "baseline/train": "baseline",
    "searched": "searched",
    "shrink": "pruned",
    "prune": "pruned",
    "train": "tuned",
}


@dataclass(frozen=True)
class Entry:
    """A model to measure: a stage's folder with model.pt, or an export folder and one of its forms."""

    name: str
    kind: str
    folder: Path
    runtime: str = "eager"


def holds_model(version: Path) -> bool:
    """Whether `entries_of` finds any in `version`."""
    files = [version / place / "model.pt" for place in _KINDS]
    return any(file.is_file() for file in (*files, version / "export" / "manifest.json"))


def entries_of(version: Path, baseline: str = "baseline") -> list[Entry]:
    """The models that the pipeline left in `version`, exported forms last.

    Raises:
        ConfigError: there is none.
    """
    names = {"baseline/train": baseline}
    if (version / "prune" / "model.pt").is_file():  # beside which another of its kind may lie
        names["shrink"] = "shrunk"
    found = [
        Entry(names.get(place, kind), kind, version / place)
        for place, kind in (
            (p, trained_kind(version) if k == "tuned" else k) for p, k in _places(version)
        )
        if (version / place / "model.pt").is_file()
    ]
    rivals = sorted(version.glob("rivals/*/train/model.pt"))
    found += [Entry(file.parent.parent.name, "rival", file.parent) for file in rivals]
    if _exports_what_is_shipped(version):
        forms = read_manifest(version / "export")["artifacts"]
        found += [Entry("exported", "exported", version / "export", form) for form in forms]
    if not found:
        raise ConfigError(
            f"{version} holds no trained model of its own to measure; "
            f"{of_its_elements(version) or 'give model= or a version= with one.'}"
        )
    return found


def _exports_what_is_shipped(version: Path) -> bool:
    """Whether an export lies there, and not one of a network that was pruned or shrunk since: it is told."""
    if not (version / "export" / "manifest.json").is_file():
        return False
    was = read_version(version).export_left_behind
    if was is not None:
        log.warning(
            "%s is left out: it is of the network in %s/, which was pruned or shrunk since",
            version / "export",
            was,
        )
    return was is None


def measurable(entries: Sequence[Entry], device: torch.device) -> list[Entry]:
    """The entries that can run on `device`; of the others, exported forms all, the log says why they cannot.

    Native code is one of them: no command runs it unless it is trusted by name.

    Raises:
        ExportError: none can run, or a file of the export is missing or was changed.
    """
    kept, why = [], ""
    for entry in entries:
        reason = _obstacle(entry, device)
        if reason is None:
            kept.append(entry)
            continue
        why = f"{entry.name} in {entry.runtime} is left out: {reason}"
        log.warning("%s", why)
    if entries and not kept:
        raise ExportError(f"No model of the version can be measured here: {why}.")
    return kept


def _obstacle(entry: Entry, device: torch.device) -> str | None:
    """Why an exported form cannot be run on `device`; None for what can."""
    if entry.kind != "exported":
        return None
    artifact = read_manifest(entry.folder)["artifacts"][entry.runtime]
    reason = obstacle(artifact["kind"], device)
    if reason is not None:
        return reason
    if artifact["kind"] == "aoti" or needs_trust(check_files(entry.folder, artifact)):
        return f"it is native code; `darts-core serve-bench {entry.folder} --trust` times it"
    return None


def trained_kind(version: Path) -> str:
    """What the network that `version` trained is called: "tuned" where a study chose its recipe."""
    return "tuned" if (version / "tune" / "result.json").is_file() else "trained"


def _places(version: Path) -> list[tuple[str, str]]:
    """(stage's folder, kind) in the order in which the networks came about, the shipped one last."""
    places = list(_KINDS.items())
    # an older program's, or one that was pruned by a command of its own: what was trained is pruned
    return places if read_reduced(version) is not None else [*places[:2], places[-1], *places[2:-1]]


def untimed_row(
    entry: Entry, bundle: DataBundle, device: torch.device, data: Mapping[str, Any] | None = None
) -> Untimed:
    """`entry` before it is timed: sizes, and the task's metric on the test split.

    The metric of a stage's model is the one that its stage found, if the data are the same and the network
    is still worth on val what it was; an exported file is run on the test split here, as it is, once.

    Args:
        entry: of `entries_of`.
        bundle: the data.
        device: where.
        data: the settings of `bundle`; None: not known.
    """
    if entry.kind == "exported":
        return _exported_row(entry, bundle, device)
    model, meta = load_model(entry.folder / "model.pt", device=device)
    bundle = of_model(bundle, meta, str(entry.folder / "model.pt"))
    size = count(model, bundle.input_shape)
    metric = bundle.task.metric
    value = tested_before(entry.folder, metric.name, data, bundle)
    if value is None or not as_judged(model, bundle, entry.folder, data):
        tell_other_test(entry.folder, data)
        value = evaluate(model, bundle, "test").value
    row = ModelRow(
        name=entry.name,
        kind=entry.kind,
        params=size.params,
        macs=size.macs,
        accuracies=(value,),
        metric=metric,
        data=bundle.name,
        baseline=entry.kind == "baseline",
        # what the standard error of the metric follows from
        extra={"test_examples": bundle.size("test"), **_spent(entry.folder, entry.kind)},
    )
    ready = prepare(model, entry.runtime, device=device, bundle=bundle, folder=entry.folder)
    return Untimed(row, ready, bundle.input_shape)


# what is spent on a network before it is trained under the tuned recipe, or reduced
_TUNED = ("search", "searched", "tune")
_REDUCED = ("search", "searched")


def _stages_before(stage: str, kind: str, version: Path) -> tuple[str, ...] | None:
    """The stages whose time was spent on the network of a stage beside its own; None: not known."""
    if kind in ("baseline", "rival"):
        return ("tune",)
    if stage == "searched":
        return ("search",)
    first = read_reduced(version)
    if stage == "train":
        return (
            *_TUNED,
            *(() if first is None or not _took(version / first.stage) else (first.stage,)),
        )
    if stage in ("prune", "shrink"):
        return (*_TUNED, "train") if first is None else _REDUCED
    return None


def _spent(folder: Path, kind: str) -> dict[str, Any]:
    """Device-seconds that the model in a stage's folder took, all told; nothing where that is not known.

    Where the version holds no search or study nothing was spent on one; it was trained somewhere.
    """
    before = _stages_before(folder.name, kind, folder.parent)
    if before is None:
        return {}
    here = [stage for stage in before if stage == "train" or (folder.parent / stage).is_dir()]
    seconds = [_took(place) for place in (folder, *(folder.parent / stage for stage in here))]
    known = [value for value in seconds if value is not None]
    return {"device_seconds": sum(known)} if len(known) == len(seconds) else {}


def with_whole_cost(row: ModelRow, folder: Path) -> ModelRow:
    """`row` with what was spent before the network in a stage's folder, too: on its search and its tuning.

    As it is where its version holds nothing of the kind; without a cost where one of these states none.

    Args:
        row: states the cost of the stage alone.
        folder: of the stage.
    """
    version = folder.parent
    kind = "baseline" if version.name == "baseline" or version.parent.name == "rivals" else ""
    before = _stages_before(folder.name, kind, version) or ()
    if not any((version / stage).is_dir() for stage in before):
        return row
    extra = {key: value for key, value in row.extra.items() if key != "device_seconds"}
    return replace(row, extra={**extra, **_spent(folder, kind)})


def _took(stage: Path) -> float | None:
    """Device-seconds of a finished stage."""
    path = stage / "result.json"
    value = read_mapping(path).get("device_seconds") if path.is_file() else None
    return float(value) if isinstance(value, (int, float)) else None


def _exported_row(entry: Entry, bundle: DataBundle, device: torch.device) -> Untimed:
    manifest = read_manifest(entry.folder)
    source = _exported_from(entry.folder, manifest)
    loaded = load(entry.folder, entry.runtime, device=device)
    precision = str(manifest["artifacts"][entry.runtime].get("precision", "fp32"))
    row = ModelRow(
        name=entry.name,
        # which stands apart, and is not what the version delivers
        kind="int8" if precision == "int8" else entry.kind,
        runtime=entry.runtime,
        precision=precision,
        params=manifest.get("params"),
        macs=_macs(source),
        accuracies=(evaluate_callable(loaded, of_model(bundle, manifest, str(entry.folder))),),
        metric=bundle.task.metric,
        extra={"test_examples": bundle.size("test"), **_spent_on(source)},
        data=bundle.name,
    )
    return Untimed(row, Prepared(loaded, entry.runtime, row.precision), bundle.input_shape)


def _exported_from(export: Path, manifest: Mapping[str, Any]) -> Path | None:
    """The folder of the stage whose model was exported into `export`; None of a network given by name.

    The manifest names the file as the command did, most often relative to the folder in which that ran.
    """
    source = Path(str(manifest.get("source") or ""))
    place, own = source.parent, [part for part in source.parts[:-2] if part != ".."]
    # a stage of the same job and version, wherever that lies now; one of the two alone may be another's
    if len(own) > 1 and list(export.parent.resolve().parts[-len(own) :]) == own:
        place = export.parent / place.name
    return place if source.name == "model.pt" else None


def _spent_on(source: Path | None) -> dict[str, Any]:
    """Device-seconds that the model in `source` took, where they are known."""
    return {} if source is None else _spent(source, _KINDS.get(source.name, ""))


def _macs(source: Path | None) -> int | None:
    """The MACs of the model that was exported: folding batch norms changes none."""
    told = None if source is None else source / "result.json"
    return read_mapping(told).get("macs") if told is not None and told.is_file() else None
