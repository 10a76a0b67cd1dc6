"""What is added to the alpha loss besides cost (see `latency.penalties`): functions of the alphas."""

from darts_core.penalties.base import AlphaPenalty
from darts_core.penalties.beta import Beta

__all__ = ["AlphaPenalty", "Beta"]
