"""What became of a network that was pruned or shrunk before the version's last training.

`run` tells it in `reduced.json`; else the training's own settings do: `train job=mine/V002 model=shrink`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from darts_core.errors import DartsError
from darts_core.runlog import read_mapping, read_yaml, write_json

__all__ = ["Reduced", "read_reduced", "write_reduced"]

_FILE = "reduced.json"
_STAGES = ("prune", "shrink")


@dataclass(frozen=True)
class Reduced:
    """A network was made faster before it was tuned.

    Attributes:
        stage: prune or shrink.
        shipped: whether it is what was tuned and trained; else the whole network was.
        said: why it was not, in one sentence.
    """

    stage: str
    shipped: bool
    said: str = ""


def write_reduced(version: Path, found: Reduced) -> None:
    """Leave `found` in the version's folder."""
    write_json(version / _FILE, {"schema_version": 1, **asdict(found)})


def read_reduced(version: Path) -> Reduced | None:
    """What lies there; None where nothing was reduced before tuning, as in folders of older versions."""
    path = version / _FILE
    if not path.is_file():
        return _trained_on(version)
    try:
        content = read_mapping(path)
    except DartsError:
        return None
    stage, said = content.get("stage"), content.get("said")
    if not isinstance(content, Mapping) or stage not in _STAGES:
        return None
    return Reduced(stage, content.get("shipped") is True, said if isinstance(said, str) else "")


def _trained_on(version: Path) -> Reduced | None:
    """The stage whose network a finished training of the same version went on from, if it did."""
    made = any((version / stage / "model.pt").is_file() for stage in _STAGES)
    if not made or not (version / "train" / "model.pt").is_file():
        return None
    try:
        config = read_yaml(version / "train" / "config.yaml")
    except DartsError:
        return None
    stage = _named(str(config.get("model")), version) if isinstance(config, Mapping) else None
    return None if stage is None else Reduced(stage, shipped=True)


def _named(model: str, version: Path) -> str | None:
    """The stage of the version that `model=` names: by its word, or by a path into it, moved or not."""
    parts, own = Path(model).parts, version.resolve().parts[-2:]
    inside = (parts[at + 2] for at in range(len(parts) - 2) if parts[at : at + 2] == own)
    return next((word for word in (model, *inside) if word in _STAGES), None)
