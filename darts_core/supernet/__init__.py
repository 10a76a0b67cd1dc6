"""The supernet, plain networks, and their sizes."""

from darts_core.supernet import toy as toy
from darts_core.supernet.build import build
from darts_core.supernet.choices import DepthChoice, HeadChoice, LayerChoice, WidthChoice
from darts_core.supernet.count import Count, count
from darts_core.supernet.macro import create_supernet
from darts_core.supernet.module_supernet import ModuleSupernet
from darts_core.supernet.network import Supernet
from darts_core.supernet.statistics import frozen_statistics, under_batch_statistics

__all__ = [
    "Count",
    "DepthChoice",
    "HeadChoice",
    "LayerChoice",
    "ModuleSupernet",
    "Supernet",
    "WidthChoice",
    "build",
    "count",
    "create_supernet",
    "frozen_statistics",
    "under_batch_statistics",
]
