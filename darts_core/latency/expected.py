"""Expected cost of a supernet, differentiable in alpha.

    E[cost] = overhead + slope * sum over kinds, edges e and operations k of p_ek * cost_ek

cost_ek sums the table's times over all cells of the kind. p_ek is the operation's share of its edge's
mixing weights, or, in spaces that keep only some edges of a node (DARTS), the share among the
operations other than `none` times the edge's share of the kept edges: a one-hot choice then costs
exactly what its network does.

Where `none` may be chosen (NAS-Bench-201), an edge costs time only if it is alive: its source changes
with the input and its target reaches an output, as an exported network keeps what is the same for
every input as a constant and leaves out what nothing reads. With q_e the weight of `none`,

    still_j = prod over e = (i, j) of (q_e + (1 - q_e) still_i)       still = 0 for inputs
    live_i = 1 - prod over e = (i, j) of (1 - live_j (1 - q_e))       live = 1 for outputs

and the factor of an edge is (1 - still_source) live_target. It is exact for a one-hot choice.
Source: ProxylessNAS, arXiv:1812.00332, section 3.3 (the sum); edge share and aliveness are ours.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from darts_core.architecture import Architecture, CellChoice
from darts_core.errors import LatencyError, unknown_name
from darts_core.latency.edge_shapes import Place, find_places
from darts_core.latency.table import LatencyTable
from darts_core.ops import create_op
from darts_core.ops.macs import macs_by_module
from darts_core.runlog import config_hash
from darts_core.spaces import SearchSpace

log = logging.getLogger("darts_core")

__all__ = [
    "CostModel",
    "fit_overhead",
    "latency_model",
    "size_model",
]


class CostModel(nn.Module):
    """Cost of a mixture or of an architecture, in `unit`.

    Args:
        space: whose edges and operations index the costs.
        costs: kind -> [E, K], summed over the cells of that kind.
        unit: "ms", "MMACs" or "params", for texts.
        overhead: added to every network.
        slope: factor of the sum.
        lean: edges that are not alive cost nothing, which holds for the time of exported networks but
            not for their MACs and params.

    Attributes:
        fit_key: where `LatencyTable.fits` keeps overhead and slope of this skeleton and batch.
    """

    _chosen_1K: Tensor
    _same_node_EE: Tensor

    def __init__(
        self,
        space: SearchSpace,
        costs: Mapping[str, np.ndarray[Any, Any]],
        *,
        unit: str = "ms",
        overhead: float = 0.0,
        slope: float = 1.0,
        lean: bool = False,
    ) -> None:
        super().__init__()
        self.space = space
        self.lean = lean and space.keep_edges is None and "none" in space.ops
        self.unit = unit
        self.fit_key = ""
        self.overhead, self.slope = overhead, slope
        for kind, cost in costs.items():
            if cost.shape != space.alpha_shapes()[kind]:
                raise LatencyError(
                    f"Costs of {kind!r} have shape {cost.shape}, not {space.alpha_shapes()[kind]}."
                )
            self.register_buffer(f"cost_{kind}", torch.tensor(cost, dtype=torch.float32))
        chosen = [[float(op != "none") for op in space.ops]]
        self.register_buffer("_chosen_1K", torch.tensor(chosen))
        same = [[float(a[1] == b[1]) for b in space.edges] for a in space.edges]
        self.register_buffer("_same_node_EE", torch.tensor(same))

    def forward(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Expected cost, a scalar.

        Args:
            weights: mixing weights [E, K] by cell kind.
        """
        total: Tensor | None = None
        for kind in self.space.cell_kinds:
            cost_EK = getattr(self, f"cost_{kind}")
            share_EK = self._probability(weights[kind].to(cost_EK))
            part_EK = share_EK * cost_EK
            if self.lean:
                part_EK = part_EK * self._alive(share_EK)[:, None]
            part = part_EK.sum()
            total = part if total is None else total + part
        assert total is not None
        return self.overhead + self.slope * total

    def _probability(self, weight_EK: Tensor) -> Tensor:
        if self.space.keep_edges is None:
            # rows of some relaxations do not add up to 1: sigmoids, weights of edges times operations
            return weight_EK / weight_EK.sum(1, keepdim=True).clamp_min(1e-12)
        chosen_EK = weight_EK * self._chosen_1K
        strength_E = chosen_EK.sum(1)
        shared_E = (self._same_node_EE @ strength_E) / self.space.keep_edges
        # an edge is kept once at most
        whole_E = torch.where(strength_E > shared_E, strength_E, shared_E)
        # a sample may draw `none` on all edges of a node: divided by next to nothing, its gradient would
        # drown those of all other steps in the moments of alpha's optimizer
        whole_E = torch.where(whole_E > 1e-12, whole_E, torch.ones_like(whole_E))
        return chosen_EK / whole_E[:, None]

    def _alive(self, weight_EK: Tensor) -> Tensor:
        """[E]: how far each edge's source changes with the input and its target reaches an output."""
        none_E = 1.0 - (weight_EK * self._chosen_1K).sum(1)
        space = self.space
        states = space.inputs + space.nodes
        still = [weight_EK.new_zeros(()) for _ in range(states)]
        for node in range(space.inputs, states):
            still[node] = weight_EK.new_ones(())
            for row, (source, target) in enumerate(space.edges):
                if target == node:
                    still[node] = still[node] * (none_E[row] + (1 - none_E[row]) * still[source])
        dead = [weight_EK.new_ones(()) for _ in range(states)]
        for state in range(states - 1, -1, -1):
            if state in space.output_states:
                dead[state] = weight_EK.new_zeros(())
                continue
            for row, (source, target) in enumerate(space.edges):
                if source == state:
                    dead[state] = dead[state] * (1 - (1 - dead[target]) * (1 - none_E[row]))
        return torch.stack([(1 - still[i]) * (1 - dead[j]) for i, j in space.edges])

    def sum_of(self, architecture: Architecture) -> float:
        """The architecture's cost before overhead and slope."""
        rows = {edge: row for row, edge in enumerate(self.space.edges)}
        total = 0.0
        for kind, cell in architecture.cells:
            cost_EK = getattr(self, f"cost_{kind}")
            alive = self._alive_edges(cell) if self.lean else None
            for source, target, op in cell.edges:
                if op not in self.space.ops:
                    raise LatencyError(unknown_name("operation", op, self.space.ops))
                row = rows[(source, target)]
                factor = 1.0 if alive is None else float(alive[row])
                total += factor * float(cost_EK[row, self.space.ops.index(op)])
        return total

    def _alive_edges(self, cell: CellChoice) -> Tensor:
        """[E], 0 or 1: the edges of a chosen cell that an exported network computes."""
        weight_EK = torch.zeros(len(self.space.edges), len(self.space.ops))
        rows = {edge: row for row, edge in enumerate(self.space.edges)}
        weight_EK[:, self.space.ops.index("none")] = 1.0
        for source, target, op in cell.edges:
            weight_EK[rows[(source, target)]] = 0.0
            if op in self.space.ops:
                weight_EK[rows[(source, target)], self.space.ops.index(op)] = 1.0
        return self._alive(weight_EK.to(self._chosen_1K))

    def least(self) -> float:
        """The cost of the cheapest architecture."""
        total = 0.0
        for kind in self.space.cell_kinds:
            cost_EK = getattr(self, f"cost_{kind}").cpu()
            never_EK = ~torch.from_numpy(self.space.allowed(kind))
            cost_EK = cost_EK.masked_fill(never_EK, float("inf"))
            if self.space.keep_edges is None:
                total += float(cost_EK.min(1).values.sum())
                continue
            real = [column for column, op in enumerate(self.space.ops) if op != "none"]
            least_E = cost_EK[:, real].min(1).values
            for node in {target for _, target in self.space.edges}:
                rows = [row for row, edge in enumerate(self.space.edges) if edge[1] == node]
                total += float(least_E[rows].sort().values[: self.space.keep_edges].sum())
        return self.overhead + self.slope * total

    def of(self, architecture: Architecture) -> float:
        """The architecture's predicted cost."""
        return self.overhead + self.slope * self.sum_of(architecture)


def latency_model(
    table: LatencyTable,
    space: SearchSpace,
    supernet: nn.Module,
    input_shape: Sequence[int],
    *,
    batch: int,
    device: str | torch.device | None = None,
) -> CostModel:
    """Expected latency in milliseconds from measured times.

    Args:
        table: from `build_table`.
        space: the searched space.
        supernet: with the channels and layers of the network to be built; not necessarily the
            one that is searched.
        input_shape: (C, H, W).
        batch: images a call; one of the table's.
        device: refuse a table of other hardware.

    Raises:
        LatencyError: rows are missing, or the table is of another device.
    """
    if device is not None:
        table.require_device(device)
    places = find_places(supernet, input_shape)
    costs = _costs(space, places, lambda p, op: table.ms(p, op, batch))
    key = _fit_key(space, places, batch)
    if key not in table.fits:
        log.info(
            "the latency table has no end-to-end fit for this space and size: expected times are "
            "sums of operations until `darts-core latency check` or a search adds the overhead"
        )
    fit = table.fits.get(key, {})
    model = CostModel(
        space, costs, unit="ms",
        overhead=float(fit.get("overhead_ms", 0.0)), slope=float(fit.get("slope", 1.0)), lean=True,
    )  # fmt: skip
    model.fit_key = key
    return model


def _fit_key(space: SearchSpace, places: Sequence[Place], batch: int) -> str:
    """Names the fit of one skeleton: its space, its cells' shapes and the batch."""
    digest = config_hash({"places": [str(place) for place in places], "ops": list(space.ops)})
    return f"{space.name}/{digest}/b{batch}"


def size_model(
    space: SearchSpace, supernet: nn.Module, input_shape: Sequence[int], what: str
) -> CostModel:
    """Expected "macs" (in millions) or "params" (in thousands) of the chosen operations.

    Raises:
        LatencyError: `what` is neither.
    """
    if what not in ("macs", "params"):
        raise LatencyError(unknown_name("cost", what, ("latency", "macs", "params")))
    known: dict[tuple[Any, ...], float] = {}

    def cost(place: Place, op: str) -> float:
        key = (op, place.channels, place.height, place.width, place.stride)
        if key not in known:
            known[key] = _size(place, op, what)
        return known[key]

    unit = "MMACs" if what == "macs" else "kparams"
    return CostModel(space, _costs(space, find_places(supernet, input_shape), cost), unit=unit)


def _costs(space: SearchSpace, places: Sequence[Place], cost: Any) -> dict[str, Any]:
    costs = {kind: np.zeros(shape) for kind, shape in space.alpha_shapes().items()}
    for place in places:
        for column, op in enumerate(space.ops):
            costs[place.kind][place.edge, column] += cost(place, op)
    return costs


def _size(place: Place, op: str, what: str) -> float:
    module = create_op(op, place.channels, place.stride, affine=True).eval()
    if what == "params":
        return sum(p.numel() for p in module.parameters()) / 1e3
    sample = torch.zeros(1, place.channels, place.height, place.width)
    macs = sum(macs_by_module(module, sample).values())
    return macs / 1e6


def fit_overhead(sums_ms: Sequence[float], measured_ms: Sequence[float]) -> dict[str, Any]:
    """Overhead and slope that turn sums of table rows into networks' times.

    Medians (Theil and Sen): one network timed beside other work among few must not move all predictions.

    Returns:
        overhead_ms, slope, n and the root mean square error, for `LatencyTable.fits`.

    Raises:
        LatencyError: fewer than three networks, or all of one sum.
    """
    if len(sums_ms) < 3 or len(sums_ms) != len(measured_ms) or np.ptp(sums_ms) == 0:
        raise LatencyError("The overhead needs at least 3 networks of different sums to be fitted.")
    sums, measured = np.asarray(sums_ms), np.asarray(measured_ms)
    left, right = np.triu_indices(len(sums), 1)
    apart = sums[left] != sums[right]
    slope = np.median((measured[left] - measured[right])[apart] / (sums[left] - sums[right])[apart])
    if slope <= 0:
        # more work cannot take less time: the networks differ by less than the noise
        slope = 1.0
    overhead = np.median(measured - slope * sums)
    if overhead + slope * sums.min() / 2 <= 0:
        # noise again: networks not much smaller would be expected to take less than nothing
        overhead, slope = 0.0, np.median(measured / sums)
    residual = measured - (overhead + slope * sums)
    return {
        "overhead_ms": float(overhead),
        "slope": float(slope),
        "n": len(sums_ms),
        "rmse_ms": float(np.sqrt(np.mean(residual**2))),
    }
