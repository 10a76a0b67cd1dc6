"""What a sub-network costs: the sum over its layers at the widths that they have.

A layer has a row of input widths, one of output widths, and its time at each pair. A sub-network's cost is
overhead + slope * the sum over the layers that run. The same sum over probabilities is the expected cost,
exactly where a side of a layer follows one variable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darts_core.elastic.variables import Choices, Variable

__all__ = ["LayerRow", "NetworkCost", "Side"]


@dataclass(frozen=True)
class Side:
    """The widths of one side of a layer.

    Attributes:
        widths: at which the layer is timed, rising.
        lost: variable -> channels that each of its options takes away.
    """

    widths: tuple[int, ...]
    lost: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def weights(self, given: Mapping[str, Any]) -> Any:
        """How much each width counts, as a vector that sums to 1."""
        if len(self.widths) == 1:
            return None
        if len(self.lost) == 1:
            return given[next(iter(self.lost))]
        # several variables share the side: the two timed widths around the expected one
        first, last = self.widths[0], self.widths[-1]
        width = float(last)
        for name, counts in self.lost.items():
            width = width - given[name] @ _like(given[name], counts)
        places = _like(given[next(iter(self.lost))], range(len(self.widths)))
        at = (width - first) / (last - first) * (len(self.widths) - 1)
        return (1.0 - abs(places - at)).clip(0.0)


def _like(array: Any, values: Any) -> Any:
    plain = [float(value) for value in values]
    if isinstance(array, Tensor):
        return torch.tensor(plain, dtype=array.dtype, device=array.device)
    return np.asarray(plain)


@dataclass(frozen=True)
class LayerRow:
    """One layer: its sides, its time in ms at [input width, output width], and the depth that it needs.

    Attributes:
        name: its path.
        ins, outs: its sides; a layer of one side has the other of one width.
        ms: times.
        needs: (depth variable, the options at which the layer runs); None where it always does.
    """

    name: str
    ins: Side
    outs: Side
    ms: tuple[tuple[float, ...], ...]
    needs: tuple[str, tuple[bool, ...]] | None = None

    def cost(self, given: Mapping[str, Any], table: Any) -> Any:
        """Expected ms."""
        rows, columns = self.ins.weights(given), self.outs.weights(given)
        found = table[0] if rows is None else rows @ table
        found = found[0] if columns is None else found @ columns
        if self.needs is not None:
            name, runs = self.needs
            found = found * (given[name] @ _like(given[name], runs))
        return found


class NetworkCost:
    """The expected cost of sub-networks under weights over every variable's options, and the cost of one.

    Args:
        variables: of the elastic network.
        rows: of its layers.
        unit: "ms", or a word for a count.
        slope: factor of the layers' sum.
        overhead: what every sub-network costs beside it.
    """

    def __init__(
        self,
        variables: Sequence[Variable],
        rows: Sequence[LayerRow],
        *,
        unit: str = "ms",
        slope: float = 1.0,
        overhead: float = 0.0,
    ) -> None:
        self.variables, self.rows, self.unit = tuple(variables), tuple(rows), unit
        self.slope, self.overhead = slope, overhead
        self._tables = [np.asarray(row.ms) for row in self.rows]
        self._known: dict[tuple[int, ...], float] = {}

    def __call__(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Expected cost, a scalar; differentiable."""
        like = next(iter(weights.values()))
        tables = [torch.as_tensor(t, dtype=like.dtype, device=like.device) for t in self._tables]
        parts = [row.cost(weights, t) for row, t in zip(self.rows, tables, strict=True)]
        return self.slope * torch.stack(parts).sum() + self.overhead

    def of(self, choices: Choices) -> float:
        """The cost of one sub-network."""
        return self.slope * self.layers(choices) + self.overhead

    def layers(self, choices: Choices) -> float:
        """The sum over its layers, before slope and overhead."""
        key = tuple(choices[variable.name] for variable in self.variables)
        if key not in self._known:
            given = {
                v.name: np.asarray([float(option == choices[v.name]) for option in v.options])
                for v in self.variables
            }
            pairs = zip(self.rows, self._tables, strict=True)
            self._known[key] = float(sum(row.cost(given, table) for row, table in pairs))
        return self._known[key]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `latency.json`."""
        return {
            "unit": self.unit,
            "slope": self.slope,
            "overhead": self.overhead,
            "layers": {row.name: [list(line) for line in row.ms] for row in self.rows},
        }
