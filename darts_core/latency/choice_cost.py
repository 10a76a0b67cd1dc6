"""Expected cost of a space of choices, differentiable in alpha.

    E[cost] = overhead + slope * sum over parts of sum over combinations of prod_l p_l * cost(combination)

A part of the network costs something else under every combination of the choices l on which it depends
(its kernel, the widths before and behind it, whether its block runs at all); p_l is the option's share of
the mixing weights. Choices are independent, so that the sum is the expectation, and a one-hot choice costs
exactly what its network does. Source: FBNetV2, arXiv:2004.05565, section 3.2 (effective shapes); the
sum over combinations, which needs no interpolation, is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from darts_core.architecture import Architecture
from darts_core.errors import LatencyError, unknown_name
from darts_core.latency.deployed import without_norms
from darts_core.latency.rows import ROUND_SECONDS
from darts_core.latency.survey import Network, Survey, bare, digest
from darts_core.latency.table import LatencyTable, fill_table
from darts_core.latency.units import Unit, find_units
from darts_core.latency.within import fastest
from darts_core.runlog import config_hash
from darts_core.spaces.choices import ChoiceSpace, Option

__all__ = ["ChoiceCost", "choice_latency_model", "choice_size_model"]

Make = Callable[[Architecture], nn.Module]


class ChoiceCost(nn.Module):
    """Cost of a mixture or of an architecture of a choice space, in `unit`.

    Args:
        space: of the choices.
        costs: labels -> an array with one axis a label, over its options: what depends on these choices
            together. No label: what always costs the same.
        unit: "ms", "MMACs" or "kparams", for texts.
        overhead: added to every network.
        slope: factor of the sum.

    Attributes:
        fit_key: where `LatencyTable.fits` keeps overhead and slope of this network and batch.
    """

    def __init__(
        self,
        space: ChoiceSpace,
        costs: Mapping[tuple[str, ...], np.ndarray[Any, Any]],
        *,
        unit: str = "ms",
        overhead: float = 0.0,
        slope: float = 1.0,
    ) -> None:
        super().__init__()
        self.space, self.unit = space, unit
        self.overhead, self.slope = overhead, slope
        self.fit_key = ""
        self._groups: list[tuple[tuple[str, ...], str]] = []
        for number, (labels, cost) in enumerate(costs.items()):
            shape = tuple(len(space.options(label)) for label in labels)
            if cost.shape != shape:
                raise LatencyError(f"Costs of {labels} have shape {cost.shape}, not {shape}.")
            self._groups.append((labels, f"cost_{number}"))
            self.register_buffer(f"cost_{number}", torch.tensor(cost, dtype=torch.float32))

    def forward(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Expected cost, a scalar.

        Args:
            weights: mixing weights [1, K] by label.
        """
        total: Tensor | float = 0.0
        shares: dict[str, Tensor] = {}  # of a label that many parts depend on, computed once
        for labels, name in self._groups:
            cost = self.get_buffer(name)
            for label in labels:  # the first axis each time
                if label not in shares:
                    weight_K = weights[label][0].to(cost)
                    # sigmoids do not add up to 1
                    shares[label] = weight_K / weight_K.sum().clamp_min(1e-12)
                cost = torch.tensordot(shares[label], cost, dims=1)
            total = total + cost
        return torch.as_tensor(self.overhead + self.slope * total)

    def sum_of(self, architecture: Architecture) -> float:
        """The architecture's cost before overhead and slope."""
        columns = self.space.index(architecture)
        return sum(
            float(self.get_buffer(name)[tuple(columns[label] for label in labels)])
            for labels, name in self._groups
        )

    def of(self, architecture: Architecture) -> float:
        """The architecture's predicted cost."""
        return self.overhead + self.slope * self.sum_of(architecture)

    def adopt(self, fit: Mapping[str, Any]) -> None:
        """Take overhead and slope from a row of `LatencyTable.fits`."""
        self.overhead, self.slope = float(fit["overhead_ms"]), float(fit["slope"])

    def least(self) -> float:
        """The cost of the cheapest architecture."""
        return self.of(fastest(self.space, self))


def choice_size_model(space: ChoiceSpace, make: Make, sample: Tensor, what: str) -> ChoiceCost:
    """Expected "macs" (in millions, a sample) or "params" (in thousands) of a space's networks.

    Args:
        space: of the choices.
        make: the plain network of an architecture.
        sample: [2, ...], an input of two samples.
        what: which.

    Raises:
        LatencyError: `what` is neither, or the cost of a layer cannot be expected.
    """
    if what not in ("macs", "params"):
        raise LatencyError(unknown_name("cost", what, ("latency", "macs", "params")))
    survey = Survey(space, make, sample)
    units = {path: survey.labels(path, whole=False) for path in survey.paths()}

    def cost(network: Network, path: str) -> float:
        part = network.get(path)
        return 0.0 if part is None else float(part.macs if what == "macs" else part.params)

    table = survey.tabulate(units, cost)
    scale, unit = (1e6, "MMACs") if what == "macs" else (1e3, "kparams")
    found = {
        path: {combination: value / scale for combination, (value, _) in entries.items()}
        for path, entries in table.items()
    }
    return ChoiceCost(space, _summed(space, units, found), unit=unit)


def choice_latency_model(
    space: ChoiceSpace,
    make: Make,
    sample: Tensor,
    table: LatencyTable,
    *,
    batch: int,
    device: torch.device,
    path: Any = None,
    seconds: float = ROUND_SECONDS,
    progress: Callable[[int, int], None] | None = None,
) -> ChoiceCost:
    """Expected latency in milliseconds, every part timed under every combination of its choices.

    Args:
        space: of the choices.
        make: the plain network of an architecture.
        sample: [2, ...], an input of two samples.
        table: of `device`; rows that it lacks are timed in its runtime and added.
        batch: samples a call.
        device: where.
        path: the table's file, written to while it grows; None: it is not written.
        seconds: time for the samples of one call in one round.
        progress: called with (rows done, rows in all).

    Raises:
        LatencyError: a part cannot run in the runtime, or its cost cannot be expected.
    """
    table.require_device(device)
    survey = Survey(space, make, sample, lambda network: without_norms(network, sample))
    units, where_bare = find_units(survey)

    def work_of(network: Network, path: str) -> str:
        timed = path not in where_bare or bare(network, path)
        return digest(network, path) if timed else ""

    seen = survey.tabulate(units, work_of)
    wanted: dict[str, Unit] = {}
    keys: dict[str, dict[tuple[Option, ...], str | None]] = {}
    for name, entries in seen.items():
        keys[name] = {}
        for combination, (work, plan) in entries.items():
            unit = Unit(survey, name, tuple(plan.items()), batch) if work else None
            key = unit.key(work) if unit is not None else None
            keys[name][combination] = key
            if unit is not None and key is not None:
                wanted.setdefault(key, unit)
    fill_table(table, wanted, path=path, device=device, seconds=seconds, progress=progress)
    costs = {
        name: {c: 0.0 if key is None else table.rows[key] for c, key in entries.items()}
        for name, entries in keys.items()
    }
    fit_key = f"{space.name}/{config_hash({'rows': sorted(wanted)})}/b{batch}"
    model = ChoiceCost(space, _summed(space, units, costs), unit="ms")
    model.fit_key = fit_key
    if fit_key in table.fits:
        model.adopt(table.fits[fit_key])
    return model


def _summed(
    space: ChoiceSpace,
    units: Mapping[str, tuple[str, ...]],
    costs: Mapping[str, Mapping[tuple[Option, ...], float]],
) -> dict[tuple[str, ...], np.ndarray[Any, Any]]:
    """The costs of all parts that depend on the same choices, added up."""
    found: dict[tuple[str, ...], np.ndarray[Any, Any]] = {}
    for path, labels in units.items():
        options = [space.options(label) for label in labels]
        total = found.setdefault(labels, np.zeros([len(o) for o in options]))
        for combination, cost in costs[path].items():
            at = tuple(o.index(c) for o, c in zip(options, combination, strict=True))
            total[at] += cost
    return found
