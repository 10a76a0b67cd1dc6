"""What is added to the alpha loss: functions of the alphas, and of the cost of the mixing weights."""

from darts_core.penalties.base import AlphaPenalty
from darts_core.penalties.beta import Beta
from darts_core.penalties.cost import BudgetPenalty, SoftPenalty

__all__ = ["AlphaPenalty", "Beta", "BudgetPenalty", "SoftPenalty"]
