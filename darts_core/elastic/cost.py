"""What a sub-network costs on this device: every layer timed at the widths that it may have.

A layer has a row of input widths and one of output widths; its time at each pair is measured once, alone. A
sub-network's cost is overhead + slope * the sum over the layers that run, where overhead and slope are fitted
to end-to-end times of a few sub-networks (what lies between the layers, and their overlap). The same sum over
probabilities is the expected cost, exactly where a side of a layer follows one variable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from darts_core.elastic.network import Elastic
from darts_core.elastic.variables import Choices, Depth, Variable, Width
from darts_core.errors import LatencyError
from darts_core.latency import device_lock
from darts_core.prune.cost import LayerCosts
from darts_core.prune.groups import CONVOLUTIONS, NORMS

__all__ = ["LayerRow", "NetworkCost", "Side", "fit_cost", "measure_cost"]

_GRID = 5
_TIMED = (*CONVOLUTIONS, *NORMS, nn.Linear)


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


def _sides(net: Elastic, path: str, module: nn.Module, shape: Sequence[int]) -> tuple[Side, Side]:
    lost: dict[str, dict[str, tuple[int, ...]]] = {"in": {}, "out": {}}
    for variable in net.variables:
        if not isinstance(variable, Width):
            continue
        for member in variable.members:
            if member.name == path:
                counts = tuple(
                    sum(position >= option for position in member.positions)
                    for option in variable.options
                )
                lost[member.side][variable.name] = counts
    if isinstance(module, nn.Linear):
        whole = {"in": module.in_features, "out": module.out_features}
    elif isinstance(module, CONVOLUTIONS):
        whole = {"in": module.in_channels, "out": module.out_channels}
    else:
        whole = dict.fromkeys(("in", "out"), int(shape[1]))
    if not isinstance(module, nn.Linear) and not (
        isinstance(module, CONVOLUTIONS) and module.groups == 1
    ):
        # a depthwise layer, a norm: one width for both sides
        return Side((whole["in"],)), _side(whole["out"], {**lost["in"], **lost["out"]})
    return _side(whole["in"], lost["in"]), _side(whole["out"], lost["out"])


def _side(whole: int, lost: Mapping[str, tuple[int, ...]]) -> Side:
    if not lost:
        return Side((whole,))
    if len(lost) == 1:
        return Side(tuple(whole - count for count in next(iter(lost.values()))), lost)
    least = max(1, whole - sum(counts[0] for counts in lost.values()))
    grid = np.linspace(least, whole, _GRID).round().astype(int)
    return Side(tuple(int(width) for width in grid), lost)


def _needs(net: Elastic, path: str) -> tuple[str, tuple[bool, ...]] | None:
    for variable in net.variables:
        if isinstance(variable, Depth):
            for block in variable.blocks:
                if path == block or path.startswith(f"{block}."):
                    runs = tuple(block not in variable.skipped(n) for n in variable.options)
                    return variable.name, runs
    return None


def measure_cost(
    net: Elastic,
    input_shape: Sequence[int],
    batch: int,
    costs: LayerCosts,
    progress: Callable[[int, int], None] | None = None,
    known: Mapping[str, Any] | None = None,
) -> NetworkCost:
    """Time every layer of `net` at its widths; each shape once.

    Args:
        net: the elastic network.
        input_shape: of one example.
        batch: examples a call.
        costs: the clock of single layers.
        progress: called with (layers done, layers in all).
        known: what `to_dict` gave before: nothing is timed.

    Raises:
        LatencyError: `known` is of another network.
    """
    costs.observe(net.model, input_shape, batch)
    layers = [
        (path, module, shape)
        for path, (module, shape) in costs.layers.items()
        if isinstance(module, _TIMED) and not (costs.folded and isinstance(module, NORMS))
    ]
    rows = []
    with device_lock(costs.device):
        for number, (path, module, shape) in enumerate(layers):
            ins, outs = _sides(net, path, module, shape)
            needs = _needs(net, path)
            if known is not None:
                ms = _known(known, path, (len(ins.widths), len(outs.widths)))
            else:
                single = not isinstance(module, nn.Linear) and len(ins.widths) == 1
                ms = tuple(
                    tuple(
                        costs.layer_ms(path, *((o, o) if single and _one_sided(module) else (i, o)))
                        for o in outs.widths
                    )
                    for i in ins.widths
                )
            rows.append(LayerRow(path, ins, outs, ms, needs))
            if progress is not None:
                progress(number + 1, len(layers))
    fitted = known or {}
    return NetworkCost(
        net.variables, rows, unit="units" if costs.analytic else "ms",
        slope=float(fitted.get("slope", 1.0)), overhead=float(fitted.get("overhead", 0.0)),
    )  # fmt: skip


def _one_sided(module: nn.Module) -> bool:
    return not isinstance(module, nn.Linear) and getattr(module, "groups", 2) != 1


def _known(
    known: Mapping[str, Any], path: str, shape: tuple[int, int]
) -> tuple[tuple[float, ...], ...]:
    found = np.asarray((known.get("layers") or {}).get(path, []), dtype=float)
    if found.shape != shape or not np.isfinite(found).all():
        raise LatencyError(
            f"The saved latency table does not fit the layer {path!r} of this network; move the table away "
            "and it is measured anew."
        )
    return tuple(tuple(float(value) for value in line) for line in found)


def fit_cost(
    cost: NetworkCost,
    net: Elastic,
    timer: Callable[[nn.Module], float],
    *,
    seed: int = 0,
    count: int = 6,
) -> list[dict[str, Any]]:
    """Fit slope and overhead to end-to-end times of `count` sub-networks; the errors of the fit, in place.

    Args:
        cost: gets its slope and overhead.
        net: the elastic network.
        timer: ms of a plain network.
        seed: of the sub-networks between the largest and the smallest.
        count: how many are timed.
    """
    generator = np.random.default_rng(seed)
    chosen = [net.largest, net.smallest, *(net.draw(generator) for _ in range(count - 2))]
    times = np.asarray([timer(net.cut(choices)) for choices in chosen])
    sums = np.asarray([cost.layers(choices) for choices in chosen])
    # relative errors count, so that the small sub-networks are met as well
    system = np.stack([sums / times, 1.0 / times], axis=1)
    slope, overhead = np.linalg.lstsq(system, np.ones(len(times)), rcond=None)[0]
    if slope <= 0.0 or overhead < 0.0:
        slope, overhead = float((sums / times).sum() / ((sums / times) ** 2).sum()), 0.0
    cost.slope, cost.overhead = float(slope), float(overhead)
    return [
        {"predicted_ms": cost.of(choices), "measured_ms": float(ms), "choices": dict(choices)}
        for choices, ms in zip(chosen, times, strict=True)
    ]
