"""`Architecture`: the discrete result of a search, as a frozen value with three notations.

A cell is a list of edges `(source, target, op)` over numbered states; the inputs come first. In DARTS
states 0 and 1 are the outputs of the two previous cells and 2..5 the nodes; in NAS-Bench-201 state 0 is
the input and 1..3 the nodes. Spaces that are not made of cells describe themselves by labelled choices.

Only the structure is checked here. Whether an operation's name exists is checked by `build` and
`Supernet`, after plugins have been imported.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darts_core.errors import ArchitectureError, unknown_name
from darts_core.runlog import read_yaml, write_yaml

__all__ = ["Architecture", "CellChoice", "Edge"]

Edge = tuple[int, int, str]
Choice = str | int | float | bool
SCHEMA_VERSION = 1
# far beyond any cell; a larger number would be built, state by state
MAX_STATES = 100
MAX_EDGES = 1000
MAX_TEXT = 100_000

_NAMED = {
    "DARTS_V1": (
        "Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), "
        "('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
        "('skip_connect', 2)], normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), "
        "('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0), ('max_pool_3x3', 0), "
        "('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)], reduce_concat=[2, 3, 4, 5])"
    ),
    "DARTS_V2": (
        "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
        "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), "
        "('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), "
        "('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
        "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"
    ),
    "PC_DARTS_cifar": (
        "Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 0), "
        "('dil_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_3x3', 1), ('avg_pool_3x3', 0), "
        "('dil_conv_3x3', 1)], normal_concat=range(2, 6), reduce=[('sep_conv_5x5', 1), "
        "('max_pool_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_5x5', 2), ('sep_conv_3x3', 0), "
        "('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('sep_conv_3x3', 2)], reduce_concat=range(2, 6))"
    ),
}


@dataclass(frozen=True)
class CellChoice:
    """The edges kept in one kind of cell and the states whose concatenation is its output."""

    edges: tuple[Edge, ...]
    concat: tuple[int, ...]

    def __post_init__(self) -> None:
        edges = tuple(_checked_edge(edge) for edge in self.edges)
        object.__setattr__(self, "edges", edges)
        concat = tuple(self.concat)
        targets = {target for _, target, _ in edges}
        if not concat or any(not _is_int(state) for state in concat):
            raise ArchitectureError(
                f"A cell's concat must name at least one state by number, not {_short(list(concat))}."
            )
        if not 0 < len(edges) <= MAX_EDGES:
            raise ArchitectureError(f"A cell has 1..{MAX_EDGES} edges, not {len(edges)}.")
        missing = [state for state in concat if state not in targets]
        if missing:
            raise ArchitectureError(
                f"A cell concatenates state {_short(missing[0])}, but no edge leads to it; edges lead to "
                f"{sorted(targets)}."
            )
        for edge in edges:
            if edge[0] > min(targets) and edge[0] not in targets:
                raise ArchitectureError(
                    f"The edge {_short(edge)} reads state {edge[0]}, but no edge leads to it; edges lead to "
                    f"{sorted(targets)}."
                )
        if len(set(concat)) != len(concat):
            raise ArchitectureError(f"A cell concatenates a state twice: {list(concat)}.")
        object.__setattr__(self, "concat", concat)

    @property
    def inputs(self) -> int:
        """Number of input states: those below the first state that an edge leads to."""
        return min(target for _, target, _ in self.edges)

    @property
    def states(self) -> int:
        """Number of states, inputs included."""
        return max(target for _, target, _ in self.edges) + 1

    @property
    def two_each(self) -> bool:
        """Whether two edges lead to each state from 2 on, which is all that a DARTS genotype can tell."""
        targets = sorted(target for _, target, _ in self.edges)
        return targets == [state for state in range(2, self.states) for _ in range(2)]


@dataclass(frozen=True)
class Architecture:
    """A discrete architecture: a space's name with cells, labelled choices, or both.

    Raises:
        ArchitectureError: the structure contradicts itself (an edge that points backwards, a state
            that is concatenated but never computed, a label given twice).
    """

    space: str
    cells: tuple[tuple[str, CellChoice], ...] = ()
    choices: tuple[tuple[str, Choice], ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.space, str) or not self.space:
            raise ArchitectureError(
                f"An architecture's space must be a name, not {_short(self.space)}."
            )
        if not self.cells and not self.choices:
            raise ArchitectureError("An architecture needs cells or choices; this one has neither.")
        object.__setattr__(self, "cells", tuple((kind, cell) for kind, cell in self.cells))
        object.__setattr__(self, "choices", tuple((label, value) for label, value in self.choices))
        for what, pairs in (("cell kind", self.cells), ("choice", self.choices)):
            names = [name for name, _ in pairs]
            if len(set(names)) != len(names):
                raise ArchitectureError(f"An architecture names a {what} twice: {names}.")

    def cell(self, kind: str) -> CellChoice:
        """The cell of that kind.

        Raises:
            ArchitectureError: there is no such kind.
        """
        for name, cell in self.cells:
            if name == kind:
                return cell
        raise ArchitectureError(unknown_name("cell kind", kind, [name for name, _ in self.cells]))

    def choice(self, label: str) -> Choice:
        """The value chosen under `label`.

        Raises:
            ArchitectureError: there is no such label.
        """
        for name, value in self.choices:
            if name == label:
                return value
        raise ArchitectureError(unknown_name("choice", label, [name for name, _ in self.choices]))

    @staticmethod
    def names() -> list[str]:
        """Names that `Architecture.named` knows."""
        return list(_NAMED)

    @classmethod
    def named(cls, name: str) -> Architecture:
        """A published architecture: DARTS_V1, DARTS_V2 (arXiv:1806.09055) or PC_DARTS_cifar (1907.05737).

        Raises:
            ArchitectureError: the name is unknown.
        """
        if name not in _NAMED:
            raise ArchitectureError(unknown_name("architecture", name, _NAMED))
        return cls.from_text(_NAMED[name])

    @classmethod
    def from_text(cls, text: str) -> Architecture:
        """Parse a DARTS genotype or a NAS-Bench-201 string; nothing in the text is evaluated.

        Raises:
            ArchitectureError: the text is neither; the message names the place.
        """
        text = text.strip()
        if len(text) > MAX_TEXT:
            raise ArchitectureError(
                f"An architecture text of {len(text):,} characters is none; at most {MAX_TEXT:,}."
            )
        if text.startswith("|"):
            return _parse_nasbench201(text)
        if text.startswith("Genotype"):
            return _parse_genotype(text)
        raise ArchitectureError(
            f"Cannot read the architecture text {text[:60]!r}: it must start with 'Genotype(' or '|'."
        )

    def text(self) -> str:
        """The published notation where the space has one, otherwise `label=value` pairs."""
        if self.space == "nasbench201" and [kind for kind, _ in self.cells] == ["cell"]:
            return _format_nasbench201(self.cells[0][1])
        if self.cells and all(
            kind in ("normal", "reduce") and cell.two_each for kind, cell in self.cells
        ):
            return _format_genotype(self)
        parts = [f"{kind}={list(cell.edges)}" for kind, cell in self.cells]
        return f"{self.space}(" + ", ".join(parts + [f"{k}={v!r}" for k, v in self.choices]) + ")"

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary that `from_dict` reads back to an equal value."""
        content: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "space": self.space}
        if self.cells:
            content["cells"] = {
                kind: {"edges": [list(edge) for edge in cell.edges], "concat": list(cell.concat)}
                for kind, cell in self.cells
            }
        if self.choices:
            content["choices"] = dict(self.choices)
        return content

    @classmethod
    def from_dict(cls, content: Any, *, source: str = "the architecture") -> Architecture:
        """The inverse of `to_dict`; unknown keys other than `notes` are refused.

        Raises:
            ArchitectureError: a key is missing, unknown or of the wrong type; named with `source`.
        """
        if not isinstance(content, Mapping):
            raise ArchitectureError(f"{source} must be a mapping with 'space' and 'cells'.")
        version = content.get("schema_version", SCHEMA_VERSION)
        if not _is_int(version) or version > SCHEMA_VERSION:
            raise ArchitectureError(
                f"{source} has schema_version {_short(version)}; this program reads up to {SCHEMA_VERSION}."
            )
        allowed = {"schema_version", "space", "cells", "choices", "notes"}
        for key in content:
            if key not in allowed:
                raise ArchitectureError(f"{source}: {unknown_name('key', str(key), allowed)}")
        cells = content.get("cells") or {}
        choices = content.get("choices") or {}
        if not isinstance(cells, Mapping) or not isinstance(choices, Mapping):
            raise ArchitectureError(f"{source}: 'cells' and 'choices' must be mappings.")
        try:
            return cls(
                space=content.get("space", ""),
                cells=tuple((str(k), _cell_from_dict(str(k), c)) for k, c in cells.items()),
                choices=tuple((str(label), _checked_choice(v)) for label, v in choices.items()),
            )
        except ArchitectureError as error:
            raise ArchitectureError(f"{source}: {error}") from None

    @classmethod
    def from_yaml(cls, path: str | Path) -> Architecture:
        """Read a file written by `to_yaml` (or by hand).

        Raises:
            ArchitectureError: the content is not an architecture.
            ConfigError: the file is missing or not YAML.
        """
        return cls.from_dict(read_yaml(path), source=str(path))

    def to_yaml(self, path: str | Path, **notes: Any) -> None:
        """Write the architecture, with `notes` (how it was found) beside it; readers ignore them."""
        content = self.to_dict()
        if notes:
            content["notes"] = notes
        write_yaml(path, content)


def _short(value: Any) -> str:
    """`value` in at most 80 characters, for a message."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _checked_choice(value: Any) -> Choice:
    if not isinstance(value, (str, int, float, bool)):
        raise ArchitectureError(f"A choice must be a text or a number, not {_short(value)}.")
    return value


def _checked_edge(edge: Any) -> Edge:
    if not isinstance(edge, (tuple, list)) or len(edge) != 3:
        raise ArchitectureError(f"An edge must be (source, target, operation), not {_short(edge)}.")
    source, target, op = edge
    if not _is_int(source) or not _is_int(target) or not isinstance(op, str) or not op:
        raise ArchitectureError(f"An edge must be (source, target, operation), not {_short(edge)}.")
    if not 0 <= source < target:
        raise ArchitectureError(
            f"The edge {_short((source, target, op))} must lead from a lower state to a higher one."
        )
    if target >= MAX_STATES:
        raise ArchitectureError(
            f"The edge {_short((source, target, op))} leads beyond state {MAX_STATES - 1}, the last."
        )
    return source, target, op


def _cell_from_dict(kind: str, content: Any) -> CellChoice:
    if not isinstance(content, Mapping) or set(content) != {"edges", "concat"}:
        given = sorted(map(str, content)) if isinstance(content, Mapping) else content
        raise ArchitectureError(
            f"The cell {kind!r} must be a mapping with exactly 'edges' and 'concat', not {_short(given)}."
        )
    edges, concat = content["edges"], content["concat"]
    if not isinstance(edges, (list, tuple)) or not isinstance(concat, (list, tuple)) or not edges:
        raise ArchitectureError(
            f"The cell {kind!r}: its 'edges' and 'concat' must be lists that are not empty."
        )
    checked = tuple(_checked_edge(edge) for edge in edges)
    return CellChoice(checked, tuple(concat))


def _parse_genotype(text: str) -> Architecture:
    """Read `Genotype(normal=[(op, source), ...], normal_concat=..., reduce=..., reduce_concat=...)`."""
    try:
        call = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ArchitectureError(
            f"The genotype text is not well formed: {str(error)[:200]}."
        ) from None
    if not isinstance(call, ast.Call) or call.args or getattr(call.func, "id", None) != "Genotype":
        raise ArchitectureError(
            "A genotype must read Genotype(normal=[...], normal_concat=..., ...)."
        )
    fields = {keyword.arg: keyword.value for keyword in call.keywords}
    if len(fields) != len(call.keywords):
        raise ArchitectureError("The genotype names a field twice; keep one of them.")
    wanted = ("normal", "normal_concat", "reduce", "reduce_concat")
    for name in fields:
        if name not in wanted:
            raise ArchitectureError(unknown_name("genotype field", str(name), wanted))
    cells = []
    for kind in ("normal", "reduce"):
        if kind not in fields and f"{kind}_concat" not in fields:
            continue
        if kind not in fields or f"{kind}_concat" not in fields:
            raise ArchitectureError(f"The genotype needs both {kind!r} and '{kind}_concat'.")
        pairs = _literal(fields[kind], kind)
        if not isinstance(pairs, (list, tuple)) or not pairs or len(pairs) % 2:
            raise ArchitectureError(f"The genotype's {kind!r} must hold two (op, source) a node.")
        edges = []
        for index, pair in enumerate(pairs):
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise ArchitectureError(
                    f"{kind}[{index}] must be (operation, source), not {_short(pair)}."
                )
            edges.append(_checked_edge((pair[1], 2 + index // 2, pair[0])))
        concat = _literal(fields[f"{kind}_concat"], f"{kind}_concat")
        if not isinstance(concat, (list, tuple)):
            raise ArchitectureError(f"The genotype's '{kind}_concat' must be a list of states.")
        cells.append((kind, CellChoice(tuple(edges), tuple(concat))))
    return Architecture("darts", tuple(cells))


def _literal(node: ast.expr, name: str) -> Any:
    """The value of a literal, or of `range(a[, b])` with small literal bounds."""
    if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "range":
        bounds = [_literal(argument, name) for argument in node.args]
        if not 1 <= len(bounds) <= 2 or any(not _is_int(b) or not 0 <= b < 100 for b in bounds):
            raise ArchitectureError(f"The genotype's {name} has a range that cannot be read.")
        return list(range(*bounds))
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise ArchitectureError(f"The genotype's {name} must hold plain values only.") from None


def _format_genotype(architecture: Architecture) -> str:
    parts = []
    for kind, cell in architecture.cells:
        pairs = [(op, source) for source, _, op in sorted(cell.edges, key=lambda e: e[1])]
        parts.append(f"{kind}={pairs!r}, {kind}_concat={list(cell.concat)!r}")
    return f"Genotype({', '.join(parts)})"


def _parse_nasbench201(text: str) -> Architecture:
    """Read `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`: one group a node, one entry an incoming edge."""
    edges = []
    for node, group in enumerate(text.split("+"), start=1):
        if not (group.startswith("|") and group.endswith("|") and len(group) > 2):
            raise ArchitectureError(
                f"Node {node} of {_short(text)} must be written |op~source|...|."
            )
        for entry in group[1:-1].split("|"):
            match = re.fullmatch(r"([\w.-]+)~([0-9]{1,3})", entry)
            if not match:
                raise ArchitectureError(
                    f"Cannot read {_short(entry)} at node {node} of {_short(text)}."
                )
            edges.append(_checked_edge((int(match[2]), node, match[1])))
    return Architecture("nasbench201", (("cell", CellChoice(tuple(edges), (node,))),))


def _format_nasbench201(cell: CellChoice) -> str:
    groups = []
    for node in range(1, cell.states):
        entries = [f"{op}~{source}" for source, target, op in cell.edges if target == node]
        groups.append("|" + "|".join(entries) + "|")
    return "+".join(groups)
