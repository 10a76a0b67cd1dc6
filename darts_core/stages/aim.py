"""What a search aims at: a part of what a hand-designed network takes on this device.

`latency.share` is kept like any budget; `aim` of `run` is not firm: where no network meets it, the search
goes on without it, and what was missed is told. What was measured and decided first lies in `budget.json`
of the search's folder, so that a search that goes on has the same aim.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darts_core.architecture import Architecture
from darts_core.data.kinds import kind_of
from darts_core.errors import ConfigError, LatencyError
from darts_core.latency.networks import NetworkTimer
from darts_core.latency.within import TOLERANCE
from darts_core.models.baselines import default_baseline, reads
from darts_core.runlog import read_json, write_json
from darts_core.settings import Latency
from darts_core.stages.budget import timed
from darts_core.stages.cost import baseline_of, network_timer
from darts_core.stages.schema import SearchStage

__all__ = ["aim_facts", "aimed_penalties", "with_budget"]

log = logging.getLogger("darts_core")
_LOADINGS = 3
_FILE = "budget.json"


def with_budget(
    config: SearchStage,
    image_shape: Sequence[int],
    num_classes: int,
    device: torch.device,
    folder: Path,
) -> SearchStage:
    """`config` with `latency.budget_ms` in place of `latency.share`, and the `latency.baseline_ms` that it
    comes from; what was measured is kept in `folder`.

    Raises:
        ConfigError: there is no such network, or it reads something else than the data hold.
        LatencyError: the network cannot be timed, and the share is firm.
    """
    node = config.latency
    if node.share is None:
        return config
    _check_reads(node.baseline, image_shape)
    path = folder / _FILE
    if not path.is_file():
        facts = {"share": node.share, "baseline": node.baseline, "width": node.baseline_width}
        try:
            with torch.random.fork_rng(devices=[]):
                taken = _time(config, image_shape, num_classes, device)
            facts |= {"latency_ms": taken, "budget_ms": node.share * taken}
        except LatencyError as error:
            if node.firm:
                raise
            facts |= {"latency_ms": None, "budget_ms": None, "missed": str(error)}
        write_json(path, facts)
    known = read_json(path)
    if known["budget_ms"] is None:
        log.warning("aims at no time: %s", known["missed"])
    else:
        log.info(
            "aims at %.2fx of %s's %.3g ms on this device: %.3g ms",
            node.share, node.baseline, known["latency_ms"], known["budget_ms"],
        )  # fmt: skip
    aimed = replace(node, share=None, budget_ms=known["budget_ms"], baseline_ms=known["latency_ms"])
    return replace(config, latency=aimed)


def _check_reads(name: str, shape: Sequence[int]) -> None:
    kind = kind_of(len(shape)).name
    if reads(name) != kind:
        raise ConfigError(
            f"latency.baseline={name} reads {reads(name)}, the data hold {kind} (samples of shape "
            f"{tuple(shape)}); name a network that reads these, such as latency.baseline="
            f"{default_baseline(kind)}."
        )


def _time(
    config: SearchStage, image_shape: Sequence[int], num_classes: int, device: torch.device
) -> float:
    """Milliseconds of the hand-designed network, as the search's own networks are timed."""
    node = config.latency
    if node.baseline_ms is not None:
        return node.baseline_ms
    timer = network_timer(config, image_shape, num_classes, device)
    timer.make = lambda _: baseline_of(node, image_shape, num_classes)
    # which network is timed does not hang on an architecture
    nothing = Architecture("baseline", choices=(("name", node.baseline),))
    return statistics.mean(timer(nothing).median_ms for _ in range(_LOADINGS))


def aimed_penalties(
    node: Latency, make: Callable[[bool], list[nn.Module]], folder: Path
) -> list[nn.Module]:
    """The penalties that `make` gives, or none where no network meets what is aimed at.

    Args:
        node: whose `budget_ms` is meant, if any.
        make: called with whether it is known that the budget can be met.
        folder: keeps what was decided.

    Raises:
        LatencyError: a firm budget cannot be met.
    """
    path = folder / _FILE
    if node.firm or node.budget_ms is None or not path.is_file():
        return make(False)
    known = read_json(path)
    if "missed" in known:
        return [] if known["missed"] else make(True)
    found, missed = [], ""
    try:
        found = make(False)
    except LatencyError as error:
        missed = str(error)
        log.warning("the search cannot meet what it aims at, and goes on without: %s", missed)
    write_json(path, {**known, "missed": missed})
    return found


def aim_facts(
    node: Latency,
    costed: Mapping[str, Any],
    found: Architecture,
    timer: NetworkTimer | None,
    folder: Path,
) -> dict[str, Any]:
    """What was aimed at and what is taken, for `result.json`; nothing without a budget of time.

    Args:
        node: after `with_budget`.
        costed: facts of `settle` about what was found.
        found: what the search returns.
        timer: of networks.
        folder: of the search.
    """
    path = folder / _FILE
    facts = {"budget_ms": node.budget_ms} | (read_json(path) if path.is_file() else {})
    budget = facts["budget_ms"]
    if timer is None or (budget is None and "missed" not in facts):
        return {}
    taken = costed.get("cost", {}).get("measured")
    if taken is None:
        try:
            with torch.random.fork_rng(devices=[]):
                taken = timed(timer)(found)
        except LatencyError as error:
            log.warning("the network found is not timed: %s", error)
    met = None not in (taken, budget) and taken <= TOLERANCE * budget
    return {"aim": {"missed": "", **facts, "found_ms": taken, "met": met}}
