"""YAML that others wrote, read like everything else in reading.py; in a file of its own, so that whoever
reads no YAML needs no PyYAML (the trials of a user's own interpreter).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from darts_core.errors import ConfigError
from darts_core.reading import (
    LONGEST_NUMBER,
    MAX_DEPTH,
    MAX_VALUES,
    MAX_YAML,
    Kind,
    check_plain,
    read_text,
    why,
)

__all__ = ["YAML_ERRORS", "LimitedLoader", "PlainLoader", "parse_yaml", "read_yaml"]

# what PyYAML's constructors let through for a value that its tag does not fit
YAML_ERRORS = (
    yaml.YAMLError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError,
)  # fmt: skip


def read_yaml(path: str | Path) -> Any:
    """The plain values of a YAML file.

    Raises:
        ConfigError: the file is absent, or as `parse_yaml`.
    """
    return parse_yaml(read_text(path, ConfigError, limit=MAX_YAML), str(path))


def parse_yaml(text: str, name: str, error: Kind = ConfigError) -> Any:
    """The plain values of a YAML text that messages call `name`; dates stay texts.

    Raises:
        DartsError: of the kind `error`; it is no YAML, names a key twice, has tags beyond plain values,
            nests more than 64 deep or unfolds to more than 500,000 values, or holds a number or text
            that nothing can use.
    """
    try:
        value = yaml.load(text, Loader=PlainLoader)  # a SafeLoader
    except yaml.MarkedYAMLError as reason:
        mark = reason.problem_mark or reason.context_mark
        place = f"{name}, line {mark.line + 1}, column {mark.column + 1}" if mark else name
        raise error(f"{place}: not valid YAML ({why(reason.problem or reason.context)}).") from None
    except YAML_ERRORS as reason:
        raise error(f"{name} is not valid YAML ({why(reason)}).") from None
    check_plain(value, name, error)
    return value


class LimitedLoader(yaml.SafeLoader):
    """PyYAML's safe loader within limits of depth and size."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = 0
        self._values = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        """The next node; refused where it nests too deep, is too much, or has a tag of its own."""
        alias = self.check_event(yaml.AliasEvent)
        mark = self.peek_event().start_mark
        before, self._depth = self._values, self._depth + 1
        if self._depth > MAX_DEPTH:
            self._refuse(f"values are nested more than {MAX_DEPTH} deep", mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if node is None:
            return None
        if alias:
            if id(node) not in self._sizes:
                self._refuse("a value contains itself", mark)
            self._values += self._sizes[id(node)]
        else:
            self._check(node)
            self._values += 1
            self._sizes[id(node)] = self._values - before
        if self._values > MAX_VALUES:
            self._refuse(f"it unfolds to more than {MAX_VALUES:,} values", mark)
        return node

    def _check(self, node: yaml.Node) -> None:
        size = len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        if size > LONGEST_NUMBER and node.tag.endswith((":int", ":float")):
            self._refuse(f"a number of {size} characters", node.start_mark)

    def _refuse(self, problem: str, mark: Any) -> None:
        raise yaml.constructor.ConstructorError(None, None, problem, mark)


class PlainLoader(LimitedLoader):
    """`LimitedLoader` for plain values only: no tag of its own, no key twice."""

    _plain = frozenset(
        f"tag:yaml.org,2002:{kind}"
        for kind in ("null", "bool", "int", "float", "str", "seq", "map", "merge")
    )

    def _check(self, node: yaml.Node) -> None:
        super()._check(node)
        if node.tag not in self._plain:
            self._refuse(f"the tag {node.tag[:80]!r} is no plain value", node.start_mark)
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, _ in node.value:
                name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)
                if name in seen and not key.tag.endswith(":merge"):
                    self._refuse(f"the key {str(key.value)[:80]!r} stands twice", key.start_mark)
                seen.add(name)


# a date is a text to us; "=" names nothing
LimitedLoader.yaml_implicit_resolvers = PlainLoader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0].rpartition(":")[2] not in ("timestamp", "value")]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
