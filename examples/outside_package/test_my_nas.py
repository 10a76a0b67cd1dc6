"""The contracts that darts-core ships, for everything in this package: `pytest test_my_nas.py`."""

import my_nas.data
import my_nas.ops
import my_nas.space  # noqa: F401
import pytest
from my_nas.relax import NoisySoftmax
from my_nas.strategy import Seldom

from darts_core.data import load_data
from darts_core.spaces import get_space
from darts_core.testing import (
    DatasetContract,
    OperationContract,
    RelaxationContract,
    SpaceContract,
    StrategyContract,
)


class TestGatedConv(OperationContract):
    @pytest.fixture
    def operation(self):
        return "gated_conv_7x7"


class TestSmall(SpaceContract):
    @pytest.fixture
    def space(self):
        return get_space("small")


class TestNoisySoftmax(RelaxationContract):
    @pytest.fixture
    def relaxation(self):
        return NoisySoftmax()


class TestSeldom(StrategyContract):
    @pytest.fixture
    def make_strategy(self):
        return Seldom


class TestBars(DatasetContract):
    @pytest.fixture
    def bundle(self):
        return load_data("bars")

    @pytest.fixture
    def same_bundle(self):
        return load_data("bars")
