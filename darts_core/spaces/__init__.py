"""Search spaces: what may be chosen, as data."""

from darts_core.spaces import conv1d as conv1d
from darts_core.spaces import convnet as convnet
from darts_core.spaces import darts as darts
from darts_core.spaces import mobilenet as mobilenet
from darts_core.spaces import nasbench201 as nasbench201
from darts_core.spaces import resnet as resnet
from darts_core.spaces import robustdarts as robustdarts
from darts_core.spaces import toy as toy
from darts_core.spaces import transformers as transformers
from darts_core.spaces.base import SPACES, SearchSpace, get_space, register_space
from darts_core.spaces.choices import ChoiceSpace

__all__ = ["SPACES", "ChoiceSpace", "SearchSpace", "get_space", "register_space"]
