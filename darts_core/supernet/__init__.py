"""The supernet, plain networks, and their sizes."""

from darts_core.supernet.build import build
from darts_core.supernet.count import Count, count
from darts_core.supernet.network import Supernet, frozen_statistics

__all__ = ["Count", "Supernet", "build", "count", "frozen_statistics"]
