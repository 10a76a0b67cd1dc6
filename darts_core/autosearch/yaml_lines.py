"""YAML that remembers where each value stands, so that an error can name file, line and field.

Only plain data is read: any tag beyond strings, numbers, booleans, null, lists and mappings is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import yaml

from darts_core.errors import ConfigError, nearest_names
from darts_core.reading import is_number, read_text, unusable
from darts_core.reading_yaml import YAML_ERRORS, LimitedLoader

__all__ = ["Located", "load", "locate", "set_field"]

MAX_BYTES = 1 << 20
MAX_NODES = 20_000
log = logging.getLogger("darts_core")
_PLAIN = {
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")
}


@dataclass(frozen=True)
class Located:
    """A value of a YAML file with its place. Mappings and lists hold `Located` values."""

    value: Any
    file: str
    line: int
    path: tuple[str, ...] = field(default=())

    @property
    def where(self) -> str:
        """The dotted field name, e.g. `search_space[0].params[1].name`."""
        text = ""
        for part in self.path:
            text += part if part.startswith("[") else f".{part}" if text else part
        return text or "the file"

    def fail(self, problem: str, remedy: str) -> NoReturn:
        """Raise the one-sentence error for this field.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(self._told(problem, remedy))

    def refuse(self, problem: str, remedy: str, *, older: bool) -> None:
        """`fail`, which is only a note in the log where an older program made the version and let it pass.

        Raises:
            ConfigError: the version is no older one.
        """
        if not older:
            self.fail(problem, remedy)
        told = self._told(problem, remedy)
        log.warning("%s This version goes on as the older program that made it began it.", told)

    def _told(self, problem: str, remedy: str) -> str:
        shown = repr(self.plain())
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        # what was set on the command line stands in no line
        place = f"{self.file}, line {self.line}" if self.line else self.file
        return f"{place}: {self.where} = {shown}: {problem}; {remedy}."

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value

    def get(self, key: str) -> Located | None:
        """The value under `key` of a mapping, or None; null counts as absent."""
        found = self.mapping().get(key)
        return found if found is not None and found.value is not None else None

    def need(self, key: str, remedy: str) -> Located:
        """The value under `key`; an error that names the remedy when it is absent."""
        found = self.get(key)
        if found is None:
            self.fail(f"{key} is missing", remedy)
        return found

    def mapping(self) -> dict[str, Located]:
        """The value as a mapping, or an error."""
        if not isinstance(self.value, dict):
            self.fail("expected a mapping", "write it as 'key: value' lines")
        return self.value

    def items(self) -> Iterator[Located]:
        """The members of a list, or an error."""
        if not isinstance(self.value, list):
            self.fail("expected a list", "begin each member with '- '")
        return iter(self.value)

    def check_keys(self, allowed: Collection[str]) -> None:
        """Raise for the first key that is not in `allowed`, naming near ones."""
        for key, item in self.mapping().items():
            if key not in allowed:
                near = self._deeper(key) or nearest_names(key, allowed)
                hint = f"did you mean {' or '.join(near)}? " if near else ""
                item.fail("unknown field", f"{hint}known fields are {', '.join(sorted(allowed))}")

    def _deeper(self, key: str) -> list[str]:
        """Paths of the fields called `key` one level below this mapping."""
        return [
            f"{name}.{key}"
            for name, item in self.mapping().items()
            if isinstance(item.value, dict) and key in item.value
        ]

    def text(self, allowed: Collection[str] | None = None) -> str:
        """The value as text, one of `allowed` where given."""
        if not isinstance(self.value, str):
            self.fail("expected text", "put it in quotes if it looks like a number")
        if allowed is not None and self.value not in allowed:
            near = nearest_names(self.value, allowed, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            self.fail("unknown value", f"use one of {', '.join(sorted(allowed))}{hint}")
        return self.value

    def number(self, low: float | None = None, high: float | None = None) -> float:
        """The value as a finite number within the limits; `1e-4`, a string to YAML, is one too."""
        value = self.value
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                self.fail("expected a number", "write it like 0.001 or 1e-3")
        if not is_number(value) or value != value:
            self.fail("expected a number", "write it like 0.001 or 1e-3")
        if abs(value) == float("inf"):
            self.fail("expected a finite number", "write a bound")
        if (low is not None and value < low) or (high is not None and value > high):
            limits = f"at least {low:g}" if high is None else f"between {low or 0:g} and {high:g}"
            self.fail("out of range", f"use a number {limits}")
        return value

    def integer(self, low: int | None = None, high: int | None = None) -> int:
        """The value as a whole number within the limits."""
        value = self.number(low, high)
        if int(value) != value:
            self.fail("expected a whole number", "drop the fraction")
        return int(value)

    def boolean(self) -> bool:
        """The value as true or false."""
        if not isinstance(self.value, bool):
            self.fail("expected true or false", "write true or false")
        return self.value


def locate(value: Any, file: str, path: tuple[str, ...] = (), line: int = 0) -> Located:
    """Plain data as `Located` values (settings that stand in no file)."""
    if isinstance(value, dict):
        inner: Any = {str(k): locate(v, file, (*path, str(k)), line) for k, v in value.items()}
    elif isinstance(value, (list, tuple)):
        inner = [locate(v, file, (*path, f"[{i}]"), line) for i, v in enumerate(value)]
    else:
        inner = value
    return Located(inner, file, line, path)


def set_field(root: Located, parts: Sequence[str], value: Any) -> None:
    """Replace the field at a path in place; all others keep their lines.

    Args:
        root: the file.
        parts: its keys and list positions from the root on; a setting's name is one, whatever dots it has.
        value: plain.

    Raises:
        ConfigError: the path leads nowhere.
    """
    *parents, last = parts
    node, file = root, f"{root.file}, --set {'.'.join(parts)}"
    path: tuple[str, ...] = ()
    try:
        for part in parents:
            path = (*path, _part(node, part))
            if isinstance(node.value, list):
                node = node.value[int(part)]
            else:
                node = node.mapping().setdefault(part, Located({}, file, 0, path))
        path = (*path, _part(node, last))
        if isinstance(node.value, list):
            node.value[int(last)] = locate(value, file, path)
        else:
            node.mapping()[last] = locate(value, file, path)
    except (ValueError, IndexError, ConfigError):
        raise ConfigError(
            f"{file}: there is no such field; check the field's path (list members are numbered from 0)."
        ) from None


def _part(node: Located, part: str) -> str:
    return f"[{part}]" if isinstance(node.value, list) else part


class _Reader:
    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.left = MAX_NODES
        self.loader = LimitedLoader(text)

    def build(self, node: yaml.Node | None, path: tuple[str, ...]) -> Located:
        if node is None:
            raise ConfigError(
                f"{self.file} is empty; `darts-core jobs template list` shows examples."
            )
        line = node.start_mark.line + 1
        self.left -= 1
        if self.left < 0:
            raise ConfigError(
                f"{self.file}, line {line}: more than {MAX_NODES} values (aliases count each time); "
                "write a smaller file."
            )
        if node.tag not in _PLAIN and not node.tag.endswith(":timestamp"):
            Located(node.tag, self.file, line, path).fail(
                "this YAML tag is not allowed", "write plain text, numbers, lists and mappings"
            )
        if isinstance(node, yaml.MappingNode):
            return Located(self._mapping(node, path), self.file, line, path)
        if isinstance(node, yaml.SequenceNode):
            members = [self.build(item, (*path, f"[{i}]")) for i, item in enumerate(node.value)]
            return Located(members, self.file, line, path)
        value = (
            node.value if node.tag.endswith(":timestamp") else self.loader.construct_object(node)
        )
        found = Located(value, self.file, line, path)
        problem = unusable(value)
        if problem:
            found.fail(problem, "write a smaller number, or whole characters")
        return found

    def _mapping(self, node: yaml.MappingNode, path: tuple[str, ...]) -> dict[str, Located]:
        result: dict[str, Located] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key in result:
                Located(key, self.file, key_node.start_mark.line + 1, (*path, key)).fail(
                    "this field stands twice", "keep one of them"
                )
            built = self.build(value_node, (*path, key))
            # a field stands where its name stands, not where its first member does
            result[key] = replace(built, line=key_node.start_mark.line + 1)
        return result


def load(path: str | Path) -> Located:
    """The content of a YAML file with places.

    Raises:
        ConfigError: the file is missing, too large, not valid YAML, or uses tags beyond plain data.
    """
    text = read_text(path, ConfigError, limit=MAX_BYTES)
    try:
        reader = _Reader(text, str(path))
        return reader.build(reader.loader.get_single_node(), ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(
            f"{path}, line {line}: not valid YAML ({error.problem}); check indentation and quotes there."
        ) from error
    except YAML_ERRORS as error:
        raise ConfigError(f"{path} is not valid YAML text ({type(error).__name__}).") from error
