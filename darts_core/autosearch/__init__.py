"""AutoSearch: bring your own training code.

Inside a trial:

    from darts_core import autosearch

    def train():
        lr = autosearch.config["lr"]
        for epoch in range(10):
            ...
            autosearch.reporter(accuracy=accuracy)

Everything is loaded on first use; the names a trial needs require the standard library alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from darts_core.autosearch.api import SearchResult, run
    from darts_core.autosearch.backbones import (
        DenseConv,
        DenseFC,
        ResNet18,
        ResNet34,
        ResNet50,
        ResNet101,
    )
    from darts_core.autosearch.contract import Config, StopTrial
    from darts_core.autosearch.elastic_network import backward, elastic
    from darts_core.autosearch.loading import load
    from darts_core.autosearch.measure import count_params, latency_ms
    from darts_core.autosearch.module_search import searchable
    from darts_core.autosearch.networks import network
    from darts_core.supernet.choices import DepthChoice, LayerChoice, WidthChoice

    config: Config
    trial_id: str
    output_dir: str
    checkpoint_dir: str
    seed: int
    device: str
    phase: str

__all__ = [
    "DenseConv",
    "DenseFC",
    "DepthChoice",
    "LayerChoice",
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "ResNet101",
    "SearchResult",
    "StopTrial",
    "WidthChoice",
    "backward",
    "checkpoint_dir",
    "config",
    "count_params",
    "device",
    "elastic",
    "latency_ms",
    "load",
    "network",
    "output_dir",
    "phase",
    "report",
    "reporter",
    "run",
    "searchable",
    "seed",
    "trial_id",
]

_TRIAL = (
    "config",
    "trial_id",
    "output_dir",
    "checkpoint_dir",
    "seed",
    "device",
    "phase",
    "reporter",
    "report",
)
_ELSEWHERE = {
    "run": "autosearch.api",
    "SearchResult": "autosearch.api",
    "searchable": "autosearch.module_search",
    "elastic": "autosearch.elastic_network",
    "backward": "autosearch.elastic_network",
    "load": "autosearch.loading",
    "network": "autosearch.networks",
    "StopTrial": "autosearch.contract",
    "latency_ms": "autosearch.measure",
    "count_params": "autosearch.measure",
    **dict.fromkeys(
        ("ResNet18", "ResNet34", "ResNet50", "ResNet101", "DenseConv", "DenseFC"),
        "autosearch.backbones",
    ),
    **dict.fromkeys(("DepthChoice", "LayerChoice", "WidthChoice"), "supernet.choices"),
}


def __getattr__(name: str) -> Any:
    if name in _TRIAL:
        from darts_core.autosearch.contract import current

        return getattr(current(), name)
    if name in _ELSEWHERE:
        module = importlib.import_module(f"darts_core.{_ELSEWHERE[name]}")
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
