"""Strategies: how alpha and params move."""

from darts_core.strategies.base import Batch, SearchSettings, StepStats, Strategy
from darts_core.strategies.first_order import FirstOrder
from darts_core.strategies.unrolled import Unrolled

__all__ = ["Batch", "FirstOrder", "SearchSettings", "StepStats", "Strategy", "Unrolled"]
