"""A given network made elastic: one training, and a sub-network for every budget."""

from darts_core.elastic.front import pick
from darts_core.elastic.network import Elastic, elastic
from darts_core.elastic.norms import recalibrate
from darts_core.elastic.sandwich import Sandwich

__all__ = ["Elastic", "Sandwich", "elastic", "pick", "recalibrate"]
