"""`SearchSpace`: what may be chosen, as data. No weights and no modules."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from darts_core.architecture import Architecture, CellChoice, Edge
from darts_core.errors import ConfigError, unknown_name
from darts_core.registry import Registry

__all__ = ["SPACES", "SearchSpace", "get_space", "register_space"]

Weights = Mapping[str, npt.NDArray[np.floating]]

SPACES: Registry[SearchSpace] = Registry("space")
INPUTS = {
    "image": "images (channels, height, width)",
    "series": "series (channels, positions)",
    "tokens": "token numbers (positions)",
}
"""What networks read, and the shape of one sample."""


@dataclass(frozen=True)
class SearchSpace:
    """A cell space: every edge of every kind of cell chooses one of `ops`.

    Attributes:
        name: what saved architectures call the space.
        ops: names of the candidate operations, in the order of alpha's columns.
        cell_kinds: the kinds of cell with alphas of their own.
        inputs: input states of a cell (2: the two cells before; 1: the one before).
        nodes: states computed in a cell.
        skeleton: how cells are stacked ("darts" or "nasbench201").
        keep_edges: edges kept for each node by `discretize`; None keeps all.
        concat: whether the nodes are concatenated (True) or the last one is the output.
        norm_after_pool: whether the supernet puts an affine-less batch norm after pools.
        edge_ops: for spaces whose edges differ: per kind and edge the allowed subset of `ops`.
        reads: what its networks read, a key of `INPUTS`.
    """

    name: str
    ops: tuple[str, ...]
    cell_kinds: tuple[str, ...]
    inputs: int
    nodes: int
    skeleton: str
    keep_edges: int | None = None
    concat: bool = False
    norm_after_pool: bool = False
    edge_ops: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = ()
    reads: str = "image"

    def check_inputs(self, shape: Sequence[int]) -> None:
        """Nothing, if samples of `shape` are what the space's networks read.

        Raises:
            ConfigError: they are not.
        """
        if len(shape) != INPUTS[self.reads].count(",") + 1:
            raise ConfigError(
                f"The networks of the space {self.name!r} read {INPUTS[self.reads]}; samples of shape "
                f"{tuple(shape)} are none."
            )

    def __post_init__(self) -> None:
        if len(set(self.ops)) != len(self.ops) or not self.ops:
            raise ConfigError(
                f"Space {self.name!r} needs a list of different operations, not {list(self.ops)}."
            )
        if all(op == "none" for op in self.ops):
            raise ConfigError(f"Space {self.name!r} needs an operation other than 'none'.")
        for field in ("inputs", "nodes", "keep_edges"):
            number = getattr(self, field)
            if number is not None and number < 1:
                raise ConfigError(f"Space {self.name!r} needs {field} >= 1, not {number}.")
        self._check_reads()
        self._check_edge_ops()

    def _check_reads(self) -> None:
        if self.reads not in INPUTS:
            raise ConfigError(
                f"Space {self.name!r}: {unknown_name('kind of sample', str(self.reads), INPUTS)}"
            )

    def _check_edge_ops(self) -> None:
        """Refuse what would be passed over: other kinds, operations or edges than the space has."""
        for kind, per_edge in self.edge_ops:
            where = f"The edge_ops of space {self.name!r}"
            if kind not in self.cell_kinds:
                raise ConfigError(f"{where}: {unknown_name('cell kind', kind, self.cell_kinds)}")
            if len(per_edge) != len(self.edges):
                raise ConfigError(
                    f"{where} name {len(per_edge)} edges of the {kind} cell, which has "
                    f"{len(self.edges)}: {list(self.edges)}."
                )
            for op in (op for names in per_edge for op in names):
                if op not in self.ops:
                    raise ConfigError(f"{where}: {unknown_name('operation', op, self.ops)}")
            for edge, names in zip(self.edges, per_edge, strict=True):
                if not names or (set(names) == {"none"} and self._too_few(edge[1], per_edge)):
                    raise ConfigError(
                        f"{where} leave nothing to choose on the edge {edge} of the {kind} cell."
                    )

    def _too_few(self, node: int, per_edge: Sequence[Sequence[str]]) -> bool:
        """Whether fewer edges into `node` may choose other than `none` than it keeps; it keeps no `none`."""
        if self.keep_edges is None:
            return False
        into = [names for edge, names in zip(self.edges, per_edge, strict=True) if edge[1] == node]
        useful = sum(set(names) != {"none"} for names in into)
        return useful < min(self.keep_edges, len(into))

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(source, target) of every edge, node by node: the order of alpha's rows."""
        targets = range(self.inputs, self.inputs + self.nodes)
        return tuple((source, target) for target in targets for source in range(target))

    @property
    def output_states(self) -> tuple[int, ...]:
        """The states that make the cell's output."""
        last = self.inputs + self.nodes
        return tuple(range(self.inputs, last)) if self.concat else (last - 1,)

    def alpha_shapes(self) -> dict[str, tuple[int, int]]:
        """(edges, ops) for every kind of cell."""
        return {kind: (len(self.edges), len(self.ops)) for kind in self.cell_kinds}

    def allowed(self, kind: str) -> npt.NDArray[np.bool_]:
        """[E, K], True where the edge may choose the operation."""
        mask = np.ones((len(self.edges), len(self.ops)), dtype=bool)
        for name, per_edge in self.edge_ops:
            if name == kind:
                mask = np.array([[op in names for op in self.ops] for names in per_edge])
        return mask

    def with_ops(self, ops: Sequence[str]) -> SearchSpace:
        """The same space over other candidate operations; `edge_ops` keep those of theirs that are named.

        Raises:
            ConfigError: an operation is named twice, no edge may choose it, or an edge is left without any.
        """
        if tuple(ops) == self.ops:
            return self
        edge_ops = tuple(
            (kind, tuple(self._left(names, ops, kind, at) for at, names in enumerate(per_edge)))
            for kind, per_edge in self.edge_ops
        )
        if {kind for kind, _ in edge_ops} == set(self.cell_kinds):
            for op in ops:
                if not any(op in names for _, per_edge in edge_ops for names in per_edge):
                    raise ConfigError(
                        f"No edge of the space {self.name!r} may choose {op!r}: its edges have operations of "
                        f"their own, of {list(self.ops)}; leave it out of space.ops, or take another space."
                    )
        return dataclasses.replace(self, ops=tuple(ops), edge_ops=edge_ops)

    def _left(
        self, names: Sequence[str], ops: Sequence[str], kind: str, at: int
    ) -> tuple[str, ...]:
        """What an edge may still choose of its own operations."""
        left = tuple(op for op in names if op in ops)
        if not left:
            raise ConfigError(
                f"The edge {self.edges[at]} of the {kind} cell of the space {self.name!r} chooses from "
                f"{list(names)}; space.ops={list(ops)} names none of them."
            )
        return left

    def discretize(self, weights: Weights) -> Architecture:
        """The architecture that mixing weights `[E, K]` per cell kind point to.

        DARTS keeps, for each node, the `keep_edges` incoming edges whose best operation other than
        `none` weighs most (arXiv:1806.09055, section 2.4). NAS-Bench-201 keeps every edge with its
        heaviest operation, `none` included. Ties go to the earlier edge and operation.

        Raises:
            ConfigError: a kind is missing, or an array has another shape.
        """
        cells = []
        for kind, shape in self.alpha_shapes().items():
            if kind not in weights:
                raise ConfigError(unknown_name("cell kind", kind, weights))
            weight_EK = np.asarray(weights[kind], dtype=np.float64)
            if weight_EK.shape != shape:
                raise ConfigError(
                    f"Weights of {kind!r} have shape {weight_EK.shape}; {self.name} needs {shape}."
                )
            weight_EK = np.where(self.allowed(kind), weight_EK, -np.inf)
            cells.append((kind, self._discretize_cell(weight_EK)))
        return Architecture(self.name, tuple(cells))

    def _discretize_cell(self, weight_EK: npt.NDArray[np.float64]) -> CellChoice:
        if self.keep_edges is not None and "none" in self.ops:
            weight_EK = weight_EK.copy()
            weight_EK[:, self.ops.index("none")] = -np.inf
        best_E = weight_EK.argmax(axis=1)
        kept: list[Edge] = []
        for target in range(self.inputs, self.inputs + self.nodes):
            rows = [e for e, edge in enumerate(self.edges) if edge[1] == target]
            if self.keep_edges is not None:
                strongest = sorted(rows, key=lambda e: (-weight_EK[e].max(), e))
                rows = sorted(strongest[: self.keep_edges])
            kept += [(self.edges[e][0], target, self.ops[best_E[e]]) for e in rows]
        return CellChoice(tuple(kept), self.output_states)

    def random(self, rng: np.random.Generator) -> Architecture:
        """An architecture drawn uniformly: random kept edges, random operations on them."""
        weights = {}
        for kind, shape in self.alpha_shapes().items():
            useful_EK = self.allowed(kind)
            if self.keep_edges is not None and "none" in self.ops:
                useful_EK[:, self.ops.index("none")] = False
            # the largest of n draws to the power n is as even as one draw: an edge of many operations is kept
            # as often as one of few
            weights[kind] = rng.random(shape) ** useful_EK.sum(1, keepdims=True)
        return self.discretize(weights)


def register_space(name: str, space: SearchSpace, *, description: str) -> SearchSpace:
    """Make `space` available as `name`, which its architectures are saved under.

    Raises:
        ConfigError: the name is taken, or the space calls itself otherwise.
    """
    if space.name != name:
        # a copy of another space would be built, later and in silence, as that space's networks are
        raise ConfigError(
            f"The space that is registered as {name!r} has name={space.name!r}, under which its "
            f"architectures would be saved; give it name={name!r}."
        )
    SPACES.register(name, description=description)(space)
    return space


def get_space(name: str, ops: Sequence[str] | None = None) -> SearchSpace:
    """The registered space `name`, over its own operations or over `ops`.

    Raises:
        ConfigError: the name is unknown, or `ops` is not a list of different names that suits the space.
    """
    space = SPACES[name]
    return space if ops is None else space.with_ops(ops)
