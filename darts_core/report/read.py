"""A version's run folders as values: what each stage was told, what it logged and what came out.

Nothing here trusts a file's content beyond its being JSON or YAML: numbers are asked for with `finite`,
a damaged file becomes a sentence in `problems` instead of ending the report.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darts_core.architecture import Architecture
from darts_core.errors import ConfigError, DartsError, ResumeError
from darts_core.metric import ACCURACY, Metric, metric_of
from darts_core.report.reduced import Reduced, read_reduced
from darts_core.report.rows import ModelRow, finite
from darts_core.report.variables import shown_override, without_variables
from darts_core.runlog import read_json, read_jsonl, read_yaml
from darts_core.study.metric_names import less_is_better

__all__ = [
    "EXTRAS",
    "STAGES",
    "StageRun",
    "VersionRun",
    "flatten",
    "judged_stages",
    "mapping_at",
    "read_rows",
    "read_settings",
    "read_stage",
    "read_stages",
    "read_version",
    "series",
    "stage_order",
]

# a study comes before the training under the recipe that it chose
STAGES = ("search", "tune", "train", "shrink", "prune", "export", "bench")
# where a network was pruned or shrunk before it was tuned
_REDUCED_FIRST = ("search", "shrink", "prune", "tune", "train", "export", "bench")
# what `run` leaves beside the stages: the found network under the untuned recipe, the rival
EXTRAS = {
    "searched": "searched",
    "baseline tune": "baseline/tune",
    "baseline train": "baseline/train",
}
_MAX_BYTES = 64 * 2**20
# what our tasks are judged by: the rows of a stage that has not finished tell the name alone
_OURS = {
    metric.name: metric
    for metric in (
        ACCURACY,
        Metric("mean_average_precision", share=True),
        Metric("perplexity", "minimize"),
    )
}


@dataclass(frozen=True)
class StageRun:
    """One stage's folder: config, environment, metric rows and (when finished) its result."""

    name: str
    folder: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[Mapping[str, Any], ...] = ()
    result: Mapping[str, Any] = field(default_factory=dict)
    finished: bool = False
    problems: tuple[str, ...] = ()

    def number(self, key: str) -> float | None:
        """The finite number under `key` of the result, or None."""
        return finite(self.result.get(key))

    @property
    def metric(self) -> Metric:
        """What the network is judged by: as its result says, else as its rows name it."""
        try:
            if "metric" in self.result:
                return metric_of(self.result)
            # a sweep, which knows no task, names what its trials are judged by
            goals = self.result.get("objectives")
            for goal, way in goals.items() if isinstance(goals, Mapping) else ():
                if str(goal).startswith("val_"):
                    name = str(goal).removeprefix("val_")
                    return _OURS.get(name) or Metric(name, str(way))
            names = [str(key) for row in self.metrics[:1] for key in row]
            found = [n.removeprefix("train_") for n in names if n.startswith("train_")]
            name = next((name for name in found if name != "loss"), ACCURACY.name)
            return _named(name)
        except ConfigError:
            return ACCURACY

    def judged(self, split: str) -> float | None:
        """The metric of its network on `split`, or None."""
        return self.number(f"{split}_{self.metric.name}")

    def setting(self, *keys: str) -> Any:
        """The setting at a path of keys, or None."""
        value: Any = self.config
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def file(self, name: str) -> Any:
        """The content of a JSON file of this folder, or None when it is absent or damaged."""
        path = self.folder / name
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            return None
        try:
            return read_json(path)
        except DartsError:
            return None


def _named(name: str) -> Metric:
    """The metric of a name whose direction no file states yet.

    Raises:
        ConfigError: the name is none.
    """
    return _OURS.get(name) or Metric(name, "minimize" if less_is_better(name) else "maximize")


@dataclass(frozen=True)
class VersionRun:
    """All stages found in one version's folder, with the commands that were given."""

    folder: Path
    job: str
    version: str
    stages: Mapping[str, StageRun]
    commands: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    extras: Mapping[str, StageRun] = field(default_factory=dict)
    reduced: Reduced | None = None

    @property
    def networks(self) -> tuple[StageRun, ...]:
        """The stages that left a network to ship, the one that is shipped first."""
        return _networks(self.stages, self.reduced)

    @property
    def export_left_behind(self) -> str | None:
        """The stage whose network `export/` holds, where another one has left the one to ship since.

        None where a command named the network to export: that is what was wanted.
        """
        return _left_behind(self.folder, self.stages, self.networks)

    @property
    def last(self) -> StageRun:
        """The last stage that left something (its environment stands for the run's)."""
        return self.stages[[name for name in STAGES if name in self.stages][-1]]

    @property
    def metric(self) -> Metric:
        """What its networks are judged by."""
        return next(iter(self.stages.values())).metric if self.stages else ACCURACY

    def setting(self, *keys: str) -> Any:
        """The first stage's setting at a path of keys that is not None."""
        for stage in self.stages.values():
            value = stage.setting(*keys)
            if value is not None:
                return value
        return None


def _networks(stages: Mapping[str, StageRun], reduced: Reduced | None) -> tuple[StageRun, ...]:
    order = ("prune", "shrink", "train") if reduced is None else ("train",)
    return tuple(stages[name] for name in order if name in stages)


def _left_behind(
    folder: Path, stages: Mapping[str, StageRun], networks: Iterable[StageRun]
) -> str | None:
    export, ready = stages.get("export"), [stage.name for stage in networks if stage.finished]
    if export is None or not ready or export.setting("model") is not None:
        return None
    source = Path(str(export.result.get("model") or ""))
    # of this version, wherever its folder lies now
    own = source.parts[-4:-2] == folder.resolve().parts[-2:] and source.name == "model.pt"
    return source.parent.name if own and source.parent.name in ready[1:] else None


def mapping_at(path: Path, problems: list[str]) -> dict[str, Any]:
    """The mapping in a JSON or YAML file; empty, with a note, when it cannot be had."""
    if not path.is_file():
        return {}
    if path.stat().st_size > _MAX_BYTES:
        problems.append(f"{path.name} is larger than {_MAX_BYTES >> 20} MiB and was left out.")
        return {}
    try:
        content = read_json(path) if path.suffix == ".json" else read_yaml(path)
    except DartsError as error:
        problems.append(str(error))
        return {}
    if not isinstance(content, dict):
        problems.append(f"{path} does not hold a mapping; it is damaged.")
        return {}
    return content


def read_stage(folder: str | Path) -> StageRun:
    """One stage's folder; missing files give empty values, damaged ones a note in `problems`."""
    folder = Path(folder)
    problems: list[str] = []
    result = mapping_at(folder / "result.json", problems)
    metrics = folder / "metrics.jsonl"
    rows: list[dict[str, Any]] = []
    if metrics.is_file() and metrics.stat().st_size <= _MAX_BYTES:
        rows = [row for row in read_jsonl(metrics) if isinstance(row, dict)]
    elif metrics.is_file():
        problems.append(f"{metrics.name} is larger than {_MAX_BYTES >> 20} MiB and was left out.")
    return StageRun(
        name=folder.name,
        folder=folder,
        config=without_variables(mapping_at(folder / "config.yaml", problems)),
        environment=mapping_at(folder / "environment.json", problems),
        metrics=tuple(rows),
        result=result,
        finished=bool(result),
        problems=tuple(problems),
    )


def _commands(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The console commands noted in `version.json`, as they could be typed again (see `shown_override`)."""
    commands = record.get("commands")
    lines = []
    for name, noted in commands.items() if isinstance(commands, Mapping) else ():
        known = noted if isinstance(noted, Mapping) else {}
        if isinstance(known.get("resume_line"), str):  # several processes, which torchrun starts
            lines.append(known["resume_line"])
            continue
        overrides = known.get("overrides")
        known_words = overrides if isinstance(overrides, list) else []
        words = [shown_override(str(word)) for word in known_words]
        several = ["-m"] if known.get("multirun") else []
        own = ["--config-dir", str(known["config_dir"])] if known.get("config_dir") else []
        lines.append(shlex.join(["darts-core", str(name), *several, *words, *own]))
    return tuple(lines)


def _version_root(folder: Path) -> Path:
    """The version that `folder` is or belongs to: a seed's or a multirun element's lies below it."""
    here = (folder, folder.parent, folder.parent.parent)  # a seed of an element: two levels
    return next((path for path in here if (path / "version.json").is_file()), folder)


def stage_order(folder: Path) -> list[str]:
    """The stages whose folders are in a version's, in the order in which they come."""
    order = STAGES if read_reduced(folder) is None else _REDUCED_FIRST
    return [name for name in order if (folder / name).is_dir()]


def read_stages(folder: Path) -> list[StageRun]:
    """The stages whose folders are in a version's or an element's, in the order in which they come."""
    return [read_stage(folder / name) for name in stage_order(folder)]


def judged_stages(folder: Path) -> list[StageRun]:
    """`read_stages`, without an export of a network that is not the one to ship any more."""
    found = read_stages(folder)
    stages = {stage.name: stage for stage in found}
    if _left_behind(folder, stages, _networks(stages, read_reduced(folder))) is None:
        return found
    return [stage for stage in found if stage.name != "export"]


def read_version(folder: str | Path) -> VersionRun:
    """What lies in `<root>/<job>/<version>/`: one entry a stage whose folder is there.

    Raises:
        ConfigError: the folder is missing or holds no stage.
    """
    folder = Path(folder)
    stages = {stage.name: stage for stage in read_stages(folder)}
    if not stages:
        raise ConfigError(
            f"{folder} holds no run: it needs at least one folder of {', '.join(STAGES)}. Give the "
            "folder of a version, for example runs/digits-darts/V001."
        )
    problems: list[str] = []
    root = _version_root(folder.resolve())
    record = mapping_at(root / "version.json", problems)
    return VersionRun(
        folder=folder,
        job=root.parent.name,
        version=folder.resolve().relative_to(root.parent).as_posix(),
        stages=stages,
        commands=_commands(record),
        problems=(*problems, *(p for stage in stages.values() for p in stage.problems)),
        extras={
            name: read_stage(folder / place)
            for name, place in EXTRAS.items()
            if (folder / place).is_dir()
        },
        reduced=read_reduced(folder),
    )


def read_architecture(stage: StageRun) -> Architecture | None:
    """The architecture in a stage's `architecture.yaml`, else in its result; None when there is none.

    Raises:
        DartsError: the file is there and damaged.
    """
    path = stage.folder / "architecture.yaml"
    if path.is_file():
        return Architecture.from_yaml(path)
    found = stage.result.get("architecture")
    if isinstance(found, Mapping):
        return Architecture.from_dict(dict(found))
    if isinstance(found, str) and found.strip().startswith(("Genotype", "|")):
        return Architecture.from_text(found)
    return None


def read_rows(path: str | Path) -> list[ModelRow]:
    """The model rows of a results file (`bench/results.json` or one under `benchmarks/results/`).

    Raises:
        ResumeError: the file is missing, damaged, or holds something else.
    """
    content = read_json(path)
    rows = content.get("rows") if isinstance(content, Mapping) else None
    if not isinstance(rows, list):
        raise ResumeError(
            f"{path} has no list of rows; write it with `darts-core bench what=models`."
        )
    return [ModelRow.from_dict(row) for row in rows]


def series(
    rows: Iterable[Mapping[str, Any]], key: str, *, x: str = "epoch"
) -> list[tuple[float, float]]:
    """The points (row[x], row[key]) of the rows that hold finite numbers under both."""
    points = [(finite(row.get(x)), finite(row.get(key))) for row in rows]
    return [(a, b) for a, b in points if a is not None and b is not None]


def flatten(content: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted names."""
    if not isinstance(content, Mapping):
        return {prefix: content}
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def read_settings(path: Path) -> Any:
    """A YAML file of a run; None when there is none or it is damaged."""
    try:
        return read_yaml(path) if path.is_file() else None
    except DartsError:
        return None
