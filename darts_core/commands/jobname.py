"""Which job and version a command belongs to when it is not told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from darts_core.errors import ConfigError
from darts_core.report.columns import Column, columns_named
from darts_core.stages.schema import (
    PLACES,
    BenchStage,
    DataStage,
    ExportStage,
    Pipeline,
    PruneStage,
    ReportStage,
    SearchStage,
    ShrinkStage,
    Stage,
    TrainStage,
    TuneStage,
)
from darts_core.store.jobs import Store
from darts_core.store.names import is_name

__all__ = [
    "default_job",
    "job_and_version",
    "looked_at",
    "previous_version",
    "refuse_taking_up",
]

_SIGNS = "._+=-"
# what a command takes up from an earlier one where it is not given
_NEEDS: dict[type[Stage], str] = {
    TrainStage: "architecture",
    TuneStage: "architecture",
    PruneStage: "model",
    ShrinkStage: "model",
    ExportStage: "model",
    ReportStage: "job",
}
# the stage that leaves it
_LEFT = {"architecture": "search", "model": "train"}


def _taken_up(config: Stage) -> str | None:
    """The `architecture=` or `model=` that was given."""
    given: str | None = getattr(config, "architecture", None) or getattr(config, "model", None)
    return given


def job_and_version(config: Stage) -> Stage:
    """`job=a/V001`, as lists print it, is `job=a version=V001`.

    `report` takes an element of a multirun, too: `job=a/V001/0` is `job=a version=V001/0`.

    Raises:
        ConfigError: `version=` names another one, or a place is empty (`out=$SCRATCH` where that is not set).
    """
    for key in PLACES:
        if getattr(config, key) == "":
            raise ConfigError(f"{key}= is empty; give a value, or leave it out.")
    job, _, rest = (config.job or "").partition("/")
    version, *element = rest.split("/", 1)
    if not all(map(is_name, (job, version, *element))):
        return config
    if element and not isinstance(config, ReportStage):
        _refuse_element(config, Path(config.out, job, version, *element))
        return config
    if config.version not in (None, version, rest):
        raise ConfigError(f"job={config.job} and version={config.version} name two versions.")
    return replace(config, job=job, version=rest)


def _refuse_element(config: Stage, folder: Path) -> None:
    """Nothing, unless the command could start from what lies in an element's folder, by its path.

    Raises:
        ConfigError: it could; it names that path.
    """
    key = "model" if isinstance(config, BenchStage) else _NEEDS.get(type(config))
    if key is not None:
        raise ConfigError(
            f"job={config.job} names an element of a version, which only report takes: name what "
            f"{config.STAGE} starts from by its path, for example {key}={folder / _LEFT[key]}."
        )


def looked_at(store: Store, job: str, name: str | None) -> Column:
    """What `report` is of: a version, the newest where none is named, or one element of it (`V001/0`).

    Raises:
        JobError: there is no such version or element.
    """
    version, _, element = (name or "").partition("/")
    if element:
        return columns_named(store, f"{job}/{version}/{element}")[0]
    found = store.version(job, name)
    return Column(found, found.path)


def default_job(config: Stage, overrides: Sequence[str]) -> str:
    """`<data>-<space>` of search and run; a multirun over several of them joins their names with `+`.

    Commands without a space put the architecture's name there, else their own.
    """
    if not isinstance(config, DataStage):
        raise ConfigError(
            f"`darts-core {config.STAGE}` needs job=NAME, one of the folders in {config.out}."
        )
    swept = {}
    for text in overrides:
        key, _, value = text.partition("=")
        if key in ("data", "space") and "," in value:
            swept[key] = "+".join(part.strip() for part in value.split(","))
    second = str(_taken_up(config) or config.STAGE)
    if isinstance(config, (SearchStage, Pipeline)):
        model = getattr(config, "model", None)
        second = model or swept.get("space") or config.space.name
    elif not second.replace("_", "").isalnum():
        second = config.STAGE
    text = f"{swept.get('data') or config.data.name}-{second}"
    plain = "".join(c if c.isascii() and (c.isalnum() or c in _SIGNS) else "_" for c in text)
    return plain.lstrip(f"_{_SIGNS}")[:100] or config.STAGE  # begins as a name must


def previous_version(config: Stage, job: str) -> str | None:
    """The job's newest version, for a command that takes up what an earlier one left there.

    `bench` of no named model takes the newest that holds a model.

    Raises:
        ConfigError: the job has no such version.
    """
    if isinstance(config, BenchStage):
        measures = config.what == "models" and config.model is None
        return _newest_with_model(config, job) if measures else None
    key = _NEEDS.get(type(config))
    if key is None or (key != "job" and _taken_up(config) is not None):
        return None
    found = Store(config.out).versions(job)
    if not found:
        options = "job=" if key == "job" else f"{key}= or job= and version= of an earlier command"
        raise ConfigError(
            f"There is no run of job {job!r} in {config.out} to take up; give {options}."
        )
    return found[-1].name


def _newest_with_model(config: Stage, job: str) -> str:
    from darts_core.stages.given import of_its_elements
    from darts_core.stages.models import holds_model

    found = [version.path for version in reversed(Store(config.out).versions(job))]
    for path in found:
        if holds_model(path):
            return path.name
    within = next((said for path in found if (said := of_its_elements(path))), "")
    remedy = "give model=, or job= of an earlier train, prune, export or run."
    raise ConfigError(
        f"No version of job {job!r} in {config.out} holds a trained model of its own to measure; "
        f"{within or remedy}"
    )


def refuse_taking_up(
    config: Stage, job: str, version: str | None, overrides: Sequence[str]
) -> None:
    """Nothing, unless elements of a multirun would start from what lies in the version.

    An element looks in its own folder, and its stages would stand beside the version's. The trials of `tune`
    under our sweeper have no such folders.

    Args:
        config: of the first element.
        job: of the command.
        version: that the command takes; None: the next one.
        overrides: as typed.

    Raises:
        ConfigError: they would; it names what to give instead.
    """
    from darts_core.stages.given import LEAVE_MODELS

    if isinstance(config, TuneStage) and "hydra/sweeper=darts" in overrides:
        return
    given, measured = _taken_up(config), isinstance(config, BenchStage) and config.what == "models"
    key = "model" if measured or given is not None else _NEEDS.get(type(config))
    # what lies there by chance is found by its path
    if key is None or (given is not None and (given not in LEAVE_MODELS or Path(given).exists())):
        return
    left = Path(config.out, job, version or "V001", given or _LEFT[key])
    raise ConfigError(
        "The elements of a multirun have folders of their own and take up nothing from a version: name what "
        f"they start from by its path, for example {key}={left}."
    )
