"""Relaxations: alpha to mixing weights."""

from darts_core.relax.base import Relaxation
from darts_core.relax.softmax import Softmax

__all__ = ["Relaxation", "Softmax"]
