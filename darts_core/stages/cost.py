"""Latency-aware search: the `latency` node as penalties on the mixing weights, and its table's place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from darts_core.architecture import Architecture
from darts_core.errors import ConfigError, LatencyError, unknown_name
from darts_core.latency import (
    ChoiceCost,
    CostModel,
    LatencyTable,
    build_table,
    choice_latency_model,
    choice_size_model,
    default_batch_sizes,
    default_runtime,
    device_name,
    latency_model,
    size_model,
)
from darts_core.latency.check import fit_networks
from darts_core.latency.deployed import DTYPES
from darts_core.latency.networks import NetworkTimer, Reference
from darts_core.latency.rows import ROUND_SECONDS
from darts_core.latency.table import open_table, table_settings
from darts_core.latency.within import TOLERANCE, fastest
from darts_core.models.baselines import baseline
from darts_core.penalties import BudgetPenalty, SoftPenalty
from darts_core.runlog import write_json
from darts_core.sample_inputs import draw_inputs
from darts_core.settings import Latency
from darts_core.spaces import ChoiceSpace, SearchSpace
from darts_core.stages.progress import progress_bar
from darts_core.stages.schema import SearchStage
from darts_core.supernet import build, create_supernet
from darts_core.supernet.build import NETWORKS, height_of
from darts_core.supernet.count import count

__all__ = [
    "baseline_of",
    "cost_model",
    "make_choice_model",
    "make_table",
    "network_timer",
    "open_choice_table",
    "penalties",
    "table_path",
]

log = logging.getLogger("darts_core")


def table_path(
    out: str | Path, device: torch.device, runtime: str | None, precision: str = "fp32"
) -> Path:
    """The table of this hardware, runtime and precision; all spaces share it, as its rows are keyed by
    operation and shape.
    """
    runtime = runtime or default_runtime(device)
    threads = f"{torch.get_num_threads()}threads-" if device.type == "cpu" else ""
    name = "".join(c if c.isalnum() else "-" for c in device_name(device)).strip("-").lower()
    while "--" in name:
        name = name.replace("--", "-")
    ending = "" if precision == "fp32" else f"-{precision}"
    return Path(out).expanduser() / "latency" / f"{name}-{threads}{runtime}{ending}.json"


def _dtype(precision: str) -> torch.dtype:
    if precision not in DTYPES:
        raise ConfigError(unknown_name("precision", precision, DTYPES))
    return DTYPES[precision]


def make_table(
    space: SearchSpace,
    supernet: nn.Module,
    image_shape: tuple[int, int, int],
    *,
    path: Path,
    device: torch.device,
    runtime: str | None = None,
    precision: str = "fp32",
    batch_sizes: tuple[int, ...] | None = None,
    seconds: float = ROUND_SECONDS,
) -> LatencyTable:
    """The table in `path`, with every row that `supernet` needs measured.

    Raises:
        ConfigError: unknown precision.
        LatencyError: the table belongs to another device, runtime or precision.
    """
    dtype = _dtype(precision)
    with progress_bar("latency table") as progress:
        return build_table(
            supernet,
            space.ops,
            image_shape,
            path=path,
            device=device,
            runtime=runtime,
            dtype=dtype,
            batch_sizes=batch_sizes,
            seconds=seconds,
            progress=progress,
        )


def cost_model(
    config: SearchStage,
    space: SearchSpace,
    image_shape: Sequence[int],
    num_classes: int,
    device: torch.device,
    *,
    in_channels: int | None = None,
    whole: bool = True,
) -> CostModel | ChoiceCost:
    """Expected cost of the network that will be built, differentiable in the mixing weights.

    Without `whole` what is counted in cells is the chosen operations alone.

    Raises:
        LatencyError: the table belongs to another device or lacks rows.
    """
    node, network = config.latency, config.search
    channels, layers = node.channels or network.channels, node.layers or network.layers
    space.check_inputs(image_shape)
    if isinstance(space, ChoiceSpace):
        return _choice_cost(
            config, space, image_shape, num_classes, device, in_channels or image_shape[0]
        )
    shape = (image_shape[0], image_shape[1], image_shape[2])
    target = create_supernet(
        space,
        channels=channels,
        layers=layers,
        num_classes=num_classes,
        in_channels=shape[0],
        image_size=shape[1:],
    )
    if node.cost != "latency":
        model = size_model(space, target, shape, node.cost)
        if whole:
            _count_the_rest(model, node.cost, target.sizes, shape)
        return model
    batch = node.batch or max(default_batch_sizes(device))
    runtime = node.runtime
    if node.table:
        path, table = _given_table(node, node.table, device)
    else:
        precision = node.precision
        path = table_path(config.out, device, runtime, precision)
        log.info("latency table %s", path)
        table = make_table(
            space, target, shape, path=path, device=device, runtime=runtime, precision=precision,
            batch_sizes=(batch,),
        )  # fmt: skip
    model = latency_model(table, space, target, shape, batch=batch, device=device)
    if model.fit_key in table.fits:
        return model
    timer = network_timer(config, shape, num_classes, device, runtime=table.runtime)
    _fit(model, timer, table, path)
    return latency_model(table, space, target, shape, batch=batch, device=device)


def _count_the_rest(
    model: CostModel, what: str, sizes: Mapping[str, Any], shape: Sequence[int]
) -> None:
    """Add what stands around the chosen operations, the same in every network: a budget is one of it all."""
    if model.space.skeleton not in NETWORKS:
        log.warning(
            "the skeleton %s has no plain network: the cost is that of the chosen operations alone",
            model.space.skeleton,
        )
        return
    some = model.space.random(np.random.default_rng(0))
    network = build(some, **sizes, image_size=height_of(shape))
    if what == "macs":
        whole = count(network, shape).macs / 1e6
    else:  # without a forward pass, whose first one takes seconds of imports
        whole = sum(p.numel() for p in network.parameters()) / 1e3
    model.overhead = whole - model.of(some)


def _counts_all(folder: Path) -> bool:
    """Whether the search in `folder` counts whole networks; one that an older program began does not."""
    path = folder / "counted.json"
    if not path.is_file() and not (folder / "checkpoint.pt").is_file():
        write_json(path, {"schema_version": 1, "whole": True})
    if path.is_file():
        return True
    log.warning(
        "an older program began this search: as then, MACs and params are those of the chosen operations "
        "alone, without stem, preprocessing and classifier"
    )
    return False


def _given_table(node: Latency, text: str, device: torch.device) -> tuple[Path, LatencyTable]:
    """The table of `latency.table`, which must be of what networks are timed in: nothing else is comparable.

    Raises:
        ConfigError: unknown precision.
        LatencyError: there is none, or it is of another device, runtime, precision or number of threads.
    """
    path = Path(text).expanduser()
    LatencyTable.load(path)  # one that is not there is not to be begun
    return path, open_choice_table(path, device, node.runtime, node.precision)


def _fit(
    model: CostModel | ChoiceCost, timer: NetworkTimer, table: LatencyTable, path: Path
) -> None:
    """Put overhead and slope of the model's networks into the table, and into its file if they are sure."""
    fit = fit_networks(model, timer)
    table.fits[model.fit_key] = fit
    if fit["disturbed"]:
        log.warning(
            "%d of %d networks were timed beside other work: what is expected of networks may be off, "
            "and is fitted anew by the next search",
            fit["disturbed"],
            fit["n"],
        )
    else:
        table.save(path)


def _choice_cost(
    config: SearchStage,
    space: ChoiceSpace,
    shape: Sequence[int],
    num_classes: int,
    device: torch.device,
    in_channels: int,
) -> ChoiceCost:
    """As `cost_model`, of the plain networks that the choices lead to."""
    node = config.latency
    channels, layers = node.channels or config.search.channels, node.layers or config.search.layers

    def make(found: Architecture) -> nn.Module:
        return build(
            found,
            channels=channels,
            layers=layers,
            num_classes=num_classes,
            in_channels=in_channels,
            image_size=height_of(shape),
        )

    sample = draw_inputs(shape, 2, vocabulary=in_channels)
    if node.cost != "latency":
        return choice_size_model(space, make, sample, node.cost)
    batch = node.batch or max(default_batch_sizes(device))
    if node.table:
        path, table = _given_table(node, node.table, device)
    else:
        path = table_path(config.out, device, node.runtime, node.precision)
        table = open_choice_table(path, device, node.runtime, node.precision)
    model = make_choice_model(space, make, sample, table, path=path, batch=batch, device=device)
    if model.fit_key not in table.fits:
        timer = network_timer(
            config, shape, num_classes, device, in_channels=in_channels, runtime=table.runtime
        )
        _fit(model, timer, table, path)
        model.adopt(table.fits[model.fit_key])
    return model


def open_choice_table(
    path: Path, device: torch.device, runtime: str | None, precision: str
) -> LatencyTable:
    """The table in `path`, or an empty one for this device, runtime and precision.

    Raises:
        ConfigError: unknown precision.
        LatencyError: the table belongs to another device, runtime or precision.
    """
    dtype = _dtype(precision)
    home, name, _ = table_settings(device, runtime, dtype, None)
    return open_table(path, home, name, dtype)


def make_choice_model(
    space: ChoiceSpace,
    make: Callable[[Architecture], nn.Module],
    sample: torch.Tensor,
    table: LatencyTable,
    *,
    path: Path,
    batch: int,
    device: torch.device,
    seconds: float = ROUND_SECONDS,
) -> ChoiceCost:
    """`choice_latency_model` with a progress bar."""
    log.info("latency table %s", path)
    with progress_bar("latency table") as progress:
        return choice_latency_model(
            space, make, sample, table,
            path=path, batch=batch, device=device, seconds=seconds, progress=progress,
        )  # fmt: skip


def network_timer(
    config: SearchStage,
    image_shape: Sequence[int],
    num_classes: int,
    device: torch.device,
    *,
    in_channels: int | None = None,
    runtime: str | None = None,
) -> NetworkTimer:
    """What times the networks that the `latency` node speaks of."""
    node, network = config.latency, config.search
    sizes: dict[str, Any] = {
        "num_classes": num_classes,
        "in_channels": in_channels or image_shape[0],
        "image_size": height_of(image_shape),
    }
    sizes["channels"] = node.channels or network.channels
    sizes["layers"] = node.layers or network.layers
    return NetworkTimer(
        lambda found: build(found, **sizes),
        image_shape,
        batch=node.batch or max(default_batch_sizes(device)),
        device=device,
        runtime=runtime or node.runtime or default_runtime(device),
        dtype=DTYPES[node.precision],
        wait_seconds=node.wait_seconds,
        reference=(
            Reference(partial(baseline_of, node, image_shape, num_classes), node.baseline_ms)
            if node.baseline_ms is not None
            else None
        ),
    )


def baseline_of(node: Latency, image_shape: Sequence[int], num_classes: int) -> nn.Module:
    """The hand-designed network of the `latency` node."""
    # of tokens a network reads as many as it predicts, and at least the numbers that are drawn to time it
    in_channels = max(num_classes, 2) if len(image_shape) == 1 else int(image_shape[0])
    return baseline(node.baseline, num_classes, in_channels, node.baseline_width)


def _require_reachable(
    cost: CostModel | ChoiceCost, budget: float, timer: NetworkTimer | None
) -> None:
    """Refuse a budget that even the cheapest network misses: as measured, where time is the cost."""
    least, how, word = cost.least(), "is expected to take", "smallest"
    if timer is not None:
        # a prediction alone must not end a command
        least, how = timer(fastest(cost.space, cost)).median_ms, "takes"
        word = "fastest"
    if budget * TOLERANCE < least:
        raise LatencyError(
            f"The budget of {budget:g} {cost.unit} is below the {word} network of this space and size, "
            f"which {how} {least:.3g} {cost.unit}; raise the budget, or lower search.channels or "
            "search.layers."
        )


def penalties(
    config: SearchStage,
    space: SearchSpace,
    image_shape: Sequence[int],
    num_classes: int,
    device: torch.device,
    *,
    in_channels: int | None = None,
    reachable: bool = False,
    folder: Path | None = None,
) -> list[nn.Module]:
    """What the `latency` node adds to the alpha loss; nothing when it asks for nothing.

    With `reachable` it is known that a network of the space meets the budget. `folder` is the search's.

    Raises:
        LatencyError: no network of the space can meet the budget.
    """
    node = config.latency
    budget = node.budget_ms or node.budget
    if not node.strength and not budget:
        return []
    counted = node.cost != "latency" and not isinstance(space, ChoiceSpace)
    # drawing params to be timed or counted must not change what the search draws
    with torch.random.fork_rng(devices=[]):
        cost = cost_model(
            config, space, image_shape, num_classes, device, in_channels=in_channels,
            whole=not counted or folder is None or _counts_all(folder),
        )  # fmt: skip
    found: list[nn.Module] = []
    if node.strength:
        found.append(SoftPenalty(cost, strength=node.strength, target=node.target))
    if budget:
        timer = None
        if node.cost == "latency":
            timer = network_timer(config, image_shape, num_classes, device, in_channels=in_channels)
        if not reachable:
            with torch.random.fork_rng(devices=[]):
                _require_reachable(cost, budget, timer)
        found.append(BudgetPenalty(cost, budget=budget, rate=node.rate, firm=node.firm))
    return [penalty.to(device) for penalty in found]
