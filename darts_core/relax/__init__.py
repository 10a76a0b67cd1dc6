"""Relaxations: alpha to mixing weights."""

from darts_core.relax.base import Relaxation
from darts_core.relax.concrete import Concrete
from darts_core.relax.dirichlet import Dirichlet
from darts_core.relax.dropout import Dropout
from darts_core.relax.gumbel import GumbelStraightThrough
from darts_core.relax.partial_channels import PartialChannels
from darts_core.relax.reinmax import ReinMax
from darts_core.relax.sigmoid import Sigmoid
from darts_core.relax.softmax import Softmax

__all__ = [
    "Concrete",
    "Dirichlet",
    "Dropout",
    "GumbelStraightThrough",
    "PartialChannels",
    "ReinMax",
    "Relaxation",
    "Sigmoid",
    "Softmax",
]
