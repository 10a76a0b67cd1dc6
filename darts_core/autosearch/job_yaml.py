"""Job files in any of their forms: the four-part one, the older `trainingInput` one, the native one.

Every error names file, line, field, value and remedy.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from darts_core.autosearch.four_parts import parse_four_parts
from darts_core.autosearch.native import parse_native
from darts_core.autosearch.spec import SearchSpec
from darts_core.autosearch.training_input import parse_training_input
from darts_core.autosearch.yaml_lines import Located, load, set_field

__all__ = ["parse_file", "parse_files", "setting_of"]

# fields whose members are called like the settings, whose names may have dots of their own
_BY_NAME = ("general.baseline", "baseline", "space")


def _sniff(root: Located) -> str:
    keys = set(root.mapping())
    if "trainingInput" in keys:
        return "trainingInput"
    if keys & {"search_algorithm", "search_space", "general"}:
        return "four-part"
    if keys & {"space", "algorithm", "objectives", "trials"}:
        return "native"
    root.fail(
        "neither a four-part file (general, search_space, search_algorithm, scheduler), nor one with "
        "trainingInput, nor a native one (space, algorithm, objectives)",
        "start from `darts-core jobs template show tpe`",
    )


def _called(node: Any) -> Iterator[str]:
    """The names of the members of a `search_space`, in either notation."""
    if isinstance(node, dict):
        if isinstance(node.get("name"), str):
            yield node["name"]
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _called(item)


def _settings(root: Located) -> set[str]:
    """The names of the settings that a file searches; what is wrong with the file is told later."""
    content: dict[str, Any] = root.plain()
    found, space = set(_called(content.get("search_space"))), content.get("space")
    if isinstance(space, dict):
        found.update(space)
    for key in ("search_algorithm", "algorithm"):
        node = content.get(key)
        if isinstance(node, dict) and isinstance(node.get("setting"), str):
            found.add(node["setting"])
    return found


def setting_of(path: str, names: Collection[str]) -> str:
    """The setting that a dotted path below `baseline` begins with: the longest name, else the first part."""
    found = [name for name in names if f"{path}.".startswith(f"{name}.")]
    return max(found, key=len, default=path.partition(".")[0])


def _parts(dotted: str, names: Collection[str]) -> list[str]:
    """A dotted path taken apart, but for the names of settings."""
    for field in _BY_NAME:
        path = dotted.removeprefix(f"{field}.")
        if path != dotted:
            name = setting_of(path, names)
            rest = path[len(name) + 1 :]
            return [*field.split("."), name, *(rest.split(".") if rest else [])]
    return dotted.split(".")


def parse_file(
    path: str | Path, settings: Mapping[str, Any] | None = None, *, older: bool = False
) -> SearchSpec:
    """One search from a job file in any of the three forms.

    Args:
        path: the YAML file.
        settings: dotted fields to replace, e.g. `{"search_algorithm.num_samples": 5}`.
        older: the version was made by a program before `request.RULES`: what that one let pass is noted in
            the log, and its search goes on with the values that it had.

    Raises:
        ConfigError: anything wrong with it, with file, line, field, value and remedy.
    """
    return parse_files([path], settings, older=older)[0]


def parse_files(
    paths: Sequence[str | Path], settings: Mapping[str, Any] | None = None, *, older: bool = False
) -> list[SearchSpec]:
    """One search from each file; `settings` are set in all of them, whichever of them a setting stands in.

    For the arguments and errors see `parse_file`.
    """
    roots = [load(path) for path in paths]
    forms = [_sniff(root) for root in roots]
    names = {name for root in roots for name in _settings(root)}
    found = []
    for path, root, form in zip(paths, roots, forms, strict=True):
        for dotted, value in (settings or {}).items():
            set_field(root, _parts(dotted, names), value)
        # copies in a version are numbered
        name = re.sub(r"^\d+-", "", Path(path).stem)
        if form == "trainingInput":
            found.append(parse_training_input(root, name))
        elif form == "native":
            found.append(parse_native(root, name, older=older))
        else:
            found.append(parse_four_parts(root, name, older=older))
    return found
