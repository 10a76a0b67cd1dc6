"""Job files in any of their forms: the four-part one, the older `trainingInput` one, the native one.

Every error names file, line, field, value and remedy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darts_core.autosearch.four_parts import parse_four_parts
from darts_core.autosearch.native import parse_native
from darts_core.autosearch.spec import SearchSpec
from darts_core.autosearch.training_input import parse_training_input
from darts_core.autosearch.yaml_lines import Located, load, set_field

__all__ = ["parse_file"]


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
    root = load(path)
    form = _sniff(root)
    for dotted, value in (settings or {}).items():
        set_field(root, dotted, value)
    # copies in a version are numbered
    name = re.sub(r"^\d+-", "", Path(path).stem)
    if form == "trainingInput":
        return parse_training_input(root, name)
    if form == "native":
        return parse_native(root, name, older=older)
    return parse_four_parts(root, name, older=older)
