"""What `architecture=` and `model=` name: a file, a folder, a stage of the version, a name, a text."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from darts_core.architecture import Architecture
from darts_core.errors import ArchitectureError, ConfigError
from darts_core.models.baselines import BASELINES, is_baseline
from darts_core.models.named import LEAVE_MODELS, is_named
from darts_core.runlog import read_yaml
from darts_core.stages.doubt import doubtful
from darts_core.stages.schema import NamedStage, TrainStage

__all__ = ["LEAVE_MODELS", "check_given", "find_architecture", "find_model", "of_its_elements"]

log = logging.getLogger("darts_core")


def check_given(config: TrainStage | NamedStage) -> None:
    """Refuse an architecture or a saved model that is not there, before anything runs for it.

    What plugins may register, and what an earlier command of the version leaves, shows later.

    Raises:
        ConfigError: it is neither a file nor a folder with one, nor a known name.
        ArchitectureError: the same of an architecture's name.
    """
    if config.plugins:
        return
    if isinstance(config, TrainStage) and config.architecture is not None:
        _check_architecture(config.architecture)
    if config.model is not None and config.model not in LEAVE_MODELS and not is_named(config.model):
        find_model(config.model, Path(), ())


def _check_architecture(text: str) -> None:
    if not is_baseline(text) and not _is_text(text) and _file_of(text) is None:
        _named(text)


def find_architecture(text: str | None, version: Path) -> tuple[Architecture, str]:
    """(what `architecture=` names, the file or setting it was read from)."""
    if text is None:
        found = version / "search" / "architecture.yaml"
        if not found.is_file():
            raise ConfigError(
                f"No architecture= is given and {version} holds no finished search; give a YAML "
                f"file, a text, or one of {', '.join((*Architecture.names(), *BASELINES))}."
            )
        return _from_file(found)
    if _is_text(text):
        return Architecture.from_text(text), "architecture="
    path = _file_of(text)
    return (_named(text), text) if path is None else _from_file(path)


def _is_text(text: str) -> bool:
    return text.lstrip().startswith(("Genotype", "|"))


def _file_of(text: str) -> Path | None:
    """The file that `architecture=` names, or that in the folder which it names; None for a name."""
    path = Path(text).expanduser()
    if len(text) < 250 and path.is_dir():
        for inner in (path / "architecture.yaml", path / "search" / "architecture.yaml"):
            if inner.is_file():
                return inner
        raise ConfigError(
            f"architecture={text!r} is a folder without an architecture.yaml; give the folder of a "
            "finished search, a YAML file, a name or a text."
        )
    if len(text) < 250 and path.is_file():
        return path
    if text.endswith((".yaml", ".yml")):
        raise ConfigError(
            f"architecture={text!r}: there is no such file; give an existing one, the folder of a "
            f"finished search, a text, or one of {', '.join((*Architecture.names(), *BASELINES))}."
        )
    return None


def _named(text: str) -> Architecture:
    try:
        return Architecture.named(text)
    except ArchitectureError as error:
        raise ArchitectureError(
            f"architecture={text!r} is no file and no known name. {error} Hand-designed networks: "
            f"{', '.join(BASELINES)}."
        ) from None


def _from_file(path: Path) -> tuple[Architecture, str]:
    """The architecture in a file, and the file; what the search's guards doubted is said again."""
    architecture, content = Architecture.from_yaml(path), read_yaml(path)
    doubt = doubtful(content.get("notes") if isinstance(content, Mapping) else None)
    if doubt:
        log.warning("%s is doubtful: %s", path, doubt)
    return architecture, str(path)


def find_model(given: str | None, version: Path, stages: tuple[str, ...]) -> Path:
    """The saved model of `model=`: a file, its folder, a stage of `version`; null: the first of `stages`.

    Raises:
        ConfigError: there is none.
    """
    if given is not None:
        path = Path(given).expanduser()
        own = [version / given / "model.pt"] if given in LEAVE_MODELS else []
        for candidate in (*own, path, path / "model.pt"):
            if candidate.is_file():
                return candidate
        raise ConfigError(
            f"model={given!r} is neither a saved model nor a folder with a model.pt, nor a name such as "
            f"package.module:function or timm:NAME; {_saved_in(path) or 'train one with `darts-core train`'}."
        )
    for stage in stages:
        if (version / stage / "model.pt").is_file():
            return version / stage / "model.pt"
    others = _saved_in(version)
    raise ConfigError(
        f"No model= is given and {version} holds none from {' or '.join(stages)}; give a model.pt, "
        f"its folder, or version= of a finished train{f' ({others})' if others else ''}."
    )


def of_its_elements(version: Path) -> str:
    """What to give in place of a version whose elements, or seeds, alone hold models; "" where none does."""
    files, job = _models_in(version), f"{version.parent.name}/{version.name}"
    if not files:
        return ""
    return (
        f"{_saved_in(version)}: darts-core report job={job} compares its elements, and one of their networks "
        f"is given by its path, for example model={files[0].parent}."
    )


def _models_in(folder: Path) -> list[Path]:
    """The saved models of a version, or of the elements of a multirun."""
    return [file for depth in ("*", "*/*") for file in sorted(folder.glob(f"{depth}/model.pt"))]


def _saved_in(folder: Path) -> str:
    """Which saved models lie in a version, or in the elements of a multirun; "" for none."""
    files = _models_in(folder)
    named = [file.parent.relative_to(folder).as_posix() for file in files[:4]]
    return f"{folder} holds {', '.join(named)}{', ...' * (len(files) > 4)}" if files else ""
