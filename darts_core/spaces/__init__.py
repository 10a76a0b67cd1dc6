"""Search spaces: what may be chosen, as data."""

from darts_core.spaces import darts as darts
from darts_core.spaces import nasbench201 as nasbench201
from darts_core.spaces.base import SPACES, SearchSpace, get_space, register_space

__all__ = ["SPACES", "SearchSpace", "get_space", "register_space"]
