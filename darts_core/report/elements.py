"""The elements of a multirun, or the seeds of one command: their folders, what tells them apart, the best."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from darts_core.report.read import STAGES, flatten, judged_stages, read_settings, stage_order

__all__ = ["OVERRIDES", "best_element", "elements", "first_settings", "labels", "parts_of"]

OVERRIDES = "overrides.yaml"


def elements(folder: str | Path) -> list[Path]:
    """The folders of a multirun's elements, or of its seeds, in their order."""
    found = [path for path in Path(folder).glob("[0-9]*") if path.name.isdigit() and path.is_dir()]
    seeds = [path for path in Path(folder).glob("seed[0-9]*") if path.name[4:].isdigit()]
    return [
        *sorted(found, key=lambda path: int(path.name)),
        *sorted(seeds, key=lambda path: int(path.name[4:])),
    ]


def parts_of(folder: Path) -> list[Path]:
    """Its elements; none of a folder that has stages of its own."""
    return [] if stage_order(folder) else elements(folder)


def first_settings(folder: Path) -> dict[str, Any]:
    """The settings of an element's first stage, as dotted names."""
    paths = [folder / stage / "config.yaml" for stage in STAGES]
    return flatten(next((content for path in paths if (content := read_settings(path))), {}))


def labels(folders: Sequence[Path]) -> list[str]:
    """What tells the elements apart: the overrides that not all share, else the settings that differ."""
    found = [read_settings(folder / OVERRIDES) for folder in folders]
    if all(isinstance(words, list) for words in found):
        texts = [[str(word) for word in words] for words in found]
        shared = set.intersection(*map(set, texts)) if len(texts) > 1 else set()
        return [" ".join(word for word in words if word not in shared) for words in texts]
    settings = [first_settings(folder) for folder in folders]
    names = dict.fromkeys(name for known in settings for name in known)
    differ = [name for name in names if len({repr(known.get(name)) for known in settings}) > 1]
    return [" ".join(f"{name}={known.get(name)}" for name in differ) for known in settings]


def best_element(folder: Path) -> Path:
    """Of a multirun, or of several seeds, the element whose network is best on val.

    Of elements of several seeds each, the best seed of the one with the best mean. The last one where none
    has been judged; a folder with stages of its own is itself returned.
    """
    parts = parts_of(folder)
    rated = [(rating, part) for part in parts if (rating := _on_val(part)) is not None]
    if not rated:
        return [folder, *parts][-1]
    return best_element(max(rated, key=lambda item: item[0])[1])


def _on_val(element: Path) -> float | None:
    """How good its last judged network is on val, better ones higher; of several seeds their mean."""
    found = judged_stages(element)
    if not found:
        rated = [v for part in elements(element) if (v := _on_val(part)) is not None]
        return sum(rated) / len(rated) if rated else None
    judged = [s.metric.rating(value) for s in found if (value := s.judged("val")) is not None]
    return judged[-1] if judged else None
