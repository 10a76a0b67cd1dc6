"""The field `general.metrics`: where the zero-code mode finds each metric of a script."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from darts_core.autosearch.contract import METRIC_NAME
from darts_core.autosearch.yaml_lines import Located

__all__ = ["metric_name", "output_file", "parse_metrics"]


def metric_name(node: Located) -> str:
    """The value as the name of a metric that `reporter` accepts."""
    if not METRIC_NAME.fullmatch(node.text()):
        node.fail("not a metric name", "use letters, digits and _ . / -, beginning with a letter")
    return node.text()


def output_file(node: Located) -> PurePosixPath | None:
    """A path below the trial's output folder, or None where it leads out of it."""
    path = PurePosixPath(node.text())
    return None if path.is_absolute() or ".." in path.parts or not path.name else path


def parse_metrics(node: Located | None) -> tuple[dict[str, str], ...]:
    """Metrics of the zero-code mode: a pattern over printed lines, or an entry of a JSON file."""
    result = []
    for item in node.items() if node is not None else ():
        item.check_keys(("name", "regex", "file", "key"))
        name, regex, file = (
            item.need("name", "name the metric"),
            item.get("regex"),
            item.get("file"),
        )
        metric_name(name)
        if (regex is None) == (file is None):
            item.fail("not one source", "give either regex (printed lines) or file (metric.json)")
        source = _pattern(regex) if regex is not None else _entry(item, name.text())
        result.append({"name": name.text(), **source})
    return tuple(result)


def _pattern(regex: Located) -> dict[str, str]:
    if len(regex.text()) > 500:
        regex.fail("longer than 500 characters", "shorten the pattern")
    try:
        groups = re.compile(regex.text()).groups
    except re.error as error:
        regex.fail(f"not a regular expression ({error})", "escape special characters with \\")
    if not groups:
        regex.fail("no group holds the number", "put it in parentheses: 'acc=([0-9.]+)'")
    return {"regex": regex.text()}


def _entry(item: Located, name: str) -> dict[str, str]:
    """File and key; the key is the metric's name unless one is given."""
    file, key = item.need("file", "name a JSON file"), item.get("key")
    path = output_file(file)
    if path is None or path.suffix != ".json":
        file.fail(
            "not a JSON file in the trial's output folder", "name it relative to that: metric.json"
        )
    return {"file": str(path), "key": key.text() if key is not None else name}
