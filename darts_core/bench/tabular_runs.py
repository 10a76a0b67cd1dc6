"""Finished searches for `bench what=tabular`: those of identical settings, over their seeds, make one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darts_core.bench.tabular import canonical
from darts_core.errors import ConfigError
from darts_core.report.read import read_architecture, read_stage
from darts_core.runlog import config_hash

__all__ = ["RunGroup", "found_in_runs"]

# what a search was looked up in, not how it was made
_LOOKED_UP = ("search.tabular", "search.tabular_data")
_SHOWN = 3


@dataclass
class RunGroup:
    """Searches that differ in their seed alone.

    Attributes:
        settings: every setting but the seed, as `a.b.c` -> value.
        architectures: what they found, in canonical notation.
        device_seconds: what they took; None where not stated.
        differs: the settings in which the group differs from others of the same method.
    """

    method: str
    settings: dict[str, Any]
    architectures: list[str] = field(default_factory=list)
    device_seconds: list[float | None] = field(default_factory=list)
    differs: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Strategy and relaxation, with what sets the group apart from others of these."""
        if not self.differs:
            return self.method
        shown = [f"{key}={value}" for key, value in list(self.differs.items())[:_SHOWN]]
        more = len(self.differs) - _SHOWN
        return f"{self.method}, {', '.join(shown)}" + (f" and {more} more" if more > 0 else "")


def found_in_runs(folders: Sequence[str | Path]) -> list[RunGroup]:
    """The searches in `folders`, grouped by their settings.

    Args:
        folders: search folders, or folders that hold `search` folders at any depth; a search that is found
            twice counts once.

    Raises:
        ConfigError: a folder holds no finished search.
    """
    groups: dict[str, RunGroup] = {}
    seen: set[Path] = set()
    for folder in folders:
        path = Path(folder)
        own = [path] if (path / "architecture.yaml").is_file() else sorted(path.glob("**/search"))
        stages = [stage for place in own if (stage := read_stage(place)).finished]
        if not stages:
            raise ConfigError(
                f"{path} holds no finished search; give the folders that `search` wrote."
            )
        for stage in stages:
            # a folder may be named twice, or lie in another one that is named: it counts once
            place = stage.folder.resolve()
            if place in seen:
                continue
            seen.add(place)
            found = read_architecture(stage)
            if found is None:
                continue
            settings = _settings(stage.config)
            key = config_hash(settings)
            group = groups.setdefault(key, RunGroup(_method(stage.config), settings))
            group.architectures.append(canonical(found))
            group.device_seconds.append(stage.number("device_seconds"))
    return _told_apart(list(groups.values()))


def _told_apart(groups: list[RunGroup]) -> list[RunGroup]:
    """The groups, each with the settings that set it apart from others of its method."""
    for group in groups:
        same = [other.settings for other in groups if other.method == group.method]
        keys = sorted({key for settings in same for key in settings})
        group.differs = {
            key: group.settings.get(key)
            for key in keys
            if any(settings.get(key) != group.settings.get(key) for settings in same)
        }
    return groups


def _settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= _settings(value, f"{name}.")
        elif name != "seed" and name not in _LOOKED_UP:
            flat[name] = value
    return flat


def _method(config: Mapping[str, Any]) -> str:
    """Strategy and relaxation of a search's configuration, by the last part of their targets."""
    parts = []
    for key in ("strategy", "relax"):
        node = config.get(key)
        target = (
            str(node.get("_target_") or node.get("name") or "") if isinstance(node, Mapping) else ""
        )
        if target:
            parts.append(target.rpartition(".")[2])
    return " + ".join(parts) or "search"
