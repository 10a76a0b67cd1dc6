"""The latency table of an elastic network on one device: every layer timed once at its widths.

What lies between the layers, and their overlap, is in the slope and overhead that are fitted to end-to-end
times of a few sub-networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from torch import nn

from darts_core.elastic.cost import LayerRow, NetworkCost, Side
from darts_core.elastic.network import Elastic
from darts_core.elastic.variables import Depth, Width
from darts_core.errors import LatencyError
from darts_core.latency import device_lock
from darts_core.prune.cost import LayerCosts, channels_of
from darts_core.prune.groups import CONVOLUTIONS, NORMS
from darts_core.prune.slices import mixes

__all__ = ["fit_cost", "measure_cost"]

_GRID = 5
_DRAWN = 4
_TIMED = (*CONVOLUTIONS, *NORMS, nn.Linear)


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
    ins, outs = channels_of(module, shape)
    if mixes(module):
        return _side(ins, lost["in"]), _side(outs, lost["out"])
    return Side((ins,)), _side(outs, {**lost["in"], **lost["out"]})


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
    with nullcontext() if costs.analytic else device_lock(costs.device):
        for number, (path, module, shape) in enumerate(layers):
            ins, outs = _sides(net, path, module, shape)
            needs = _needs(net, path)
            if known is not None:
                ms = _known(known, path, (len(ins.widths), len(outs.widths)))
            else:
                two = mixes(module)
                ms = tuple(
                    tuple(costs.layer_ms(path, i if two else o, o) for o in outs.widths)
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
) -> list[dict[str, Any]]:
    """Fit slope and overhead to end-to-end times of six sub-networks; the errors of the fit, in place.

    Args:
        cost: gets its slope and overhead.
        net: the elastic network.
        timer: ms of a plain network.
        seed: of the sub-networks between the largest and the smallest.
    """
    generator = np.random.default_rng(seed)
    chosen = [net.largest, net.smallest, *(net.draw(generator) for _ in range(_DRAWN))]
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
