"""Strategies: how alpha and params move."""

from darts_core.strategies.alignment import CellAlignment
from darts_core.strategies.auxiliary_skip import AuxiliarySkip
from darts_core.strategies.base import Batch, SearchSettings, StepStats, Strategy
from darts_core.strategies.baselines import RandomSearch, RegularizedEvolution
from darts_core.strategies.early_stop import OperationEarlyStopping
from darts_core.strategies.first_order import FirstOrder
from darts_core.strategies.perturbation import PerturbationSelection
from darts_core.strategies.progressive import Progressive, Stage
from darts_core.strategies.sampled import RandomSampling
from darts_core.strategies.single_level import SingleLevel
from darts_core.strategies.smooth import SmoothAdversarial, SmoothRandom
from darts_core.strategies.unrolled import Unrolled
from darts_core.strategies.zero_cost import ZeroCost

__all__ = [
    "AuxiliarySkip",
    "Batch",
    "CellAlignment",
    "FirstOrder",
    "OperationEarlyStopping",
    "PerturbationSelection",
    "Progressive",
    "RandomSampling",
    "RandomSearch",
    "RegularizedEvolution",
    "SearchSettings",
    "SingleLevel",
    "SmoothAdversarial",
    "SmoothRandom",
    "Stage",
    "StepStats",
    "Strategy",
    "Unrolled",
    "ZeroCost",
]
