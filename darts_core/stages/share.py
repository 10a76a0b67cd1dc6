"""`latency.share`: a budget that is a part of what a hand-designed network takes on this device."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from darts_core.architecture import Architecture
from darts_core.models.baselines import baseline
from darts_core.runlog import read_json, write_json
from darts_core.stages.cost import network_timer
from darts_core.stages.schema import SearchStage

__all__ = ["with_budget"]

log = logging.getLogger("darts_core")
_LOADINGS = 3


def with_budget(
    config: SearchStage,
    image_shape: Sequence[int],
    num_classes: int,
    device: torch.device,
    folder: Path,
) -> SearchStage:
    """`config` with `latency.budget_ms` in place of `latency.share`; what was measured is kept in `folder`.

    Raises:
        ConfigError: there is no such network.
    """
    node = config.latency
    if node.share is None:
        return config
    path = folder / "budget.json"
    if not path.is_file():
        with torch.random.fork_rng(devices=[]):
            taken = _time(config, image_shape, num_classes, device)
        write_json(
            path,
            {"baseline": node.baseline, "width": node.baseline_width, "latency_ms": taken,
             "budget_ms": node.share * taken},
        )  # fmt: skip
    known = read_json(path)
    log.info(
        "budget %.4g ms: %g of the %.4g ms that %s takes",
        known["budget_ms"], node.share, known["latency_ms"], node.baseline,
    )  # fmt: skip
    return replace(config, latency=replace(node, share=None, budget_ms=known["budget_ms"]))


def _time(
    config: SearchStage, image_shape: Sequence[int], num_classes: int, device: torch.device
) -> float:
    """Milliseconds of the hand-designed network, as the search's own networks are timed."""
    node = config.latency
    timer = network_timer(config, image_shape, num_classes, device)
    # of tokens a network reads as many as it predicts
    in_channels = num_classes if len(image_shape) == 1 else int(image_shape[0])
    timer.make = lambda _: baseline(node.baseline, num_classes, in_channels, node.baseline_width)
    # which network is timed does not hang on an architecture
    nothing = Architecture("baseline", choices=(("name", node.baseline),))
    return statistics.mean(timer(nothing).median_ms for _ in range(_LOADINGS))
