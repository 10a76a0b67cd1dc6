"""Every operation, space, relaxation and strategy that ships passes its contract.

Relaxations are searched with first order and strategies with softmax: not the product.
"""

import copy
from pathlib import Path

import pytest
import yaml

from darts_core.errors import ConfigError
from darts_core.ops import OPS
from darts_core.search import SearchConfig
from darts_core.spaces import SPACES
from darts_core.stages.targets import instantiate
from darts_core.strategies import FirstOrder
from darts_core.supernet import create_supernet
from darts_core.testing import (
    OperationContract,
    RelaxationContract,
    SpaceContract,
    StrategyContract,
)

CONF = Path(__file__).resolve().parents[2] / "conf"
RELAX = sorted(path.stem for path in (CONF / "relax").glob("*.yaml"))
STRATEGIES = sorted(path.stem for path in (CONF / "strategy").glob("*.yaml"))

# sizes for a tiny cell; everything else is the file's
SMALLER = {
    "p_darts": {
        "stages": [
            {"skip_dropout": 0.0},
            {"extra_layers": 1, "operations": 3, "skip_dropout": 0.4},
        ],
        "rest_share": 0.0,
    },
    "drnas_progressive": {
        "stages": [{"channel_fraction": 2}, {"operations": 3, "channel_fraction": 1}]
    },
    "rsps": {"samples": 4, "batches": 1, "finalists": 2},
    "random_search": {"candidates": 2},
    "zero_cost": {"samples": 4, "warm_start": 1.0},
    "regularized_evolution": {"candidates": 2, "population": 1},
    "oles": {"interval": 1, "threshold": 0.1},
    "smooth_adversarial": {"ascent_steps": 2},
    "partial_channels": {"channel_fraction": 2},
}


def made(group, name):
    node = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
    assert node["description"]
    return lambda: instantiate(group, {**copy.deepcopy(node), **SMALLER.get(name, {})})


class TestOperations(OperationContract):
    @pytest.fixture(params=[entry.name for entry in OPS.entries()])
    def operation(self, request):
        return request.param


class TestSpaces(SpaceContract):
    @pytest.fixture(params=[entry.name for entry in SPACES.entries()])
    def space(self, request):
        space = SPACES[request.param]
        self.sizes = {**SpaceContract.sizes, "layers": layers_of(space)}
        return space


def layers_of(space):
    return {"toy": 1, "nasbench201": 1, "convnet": 2}.get(space.skeleton, 3)


class TestRelaxations(RelaxationContract):
    @pytest.fixture(params=RELAX)
    def relaxation(self, request):
        return made("relax", request.param)()


class TestRelaxationsSearched(StrategyContract):
    @pytest.fixture(params=RELAX)
    def make_strategy(self, request):
        self.make_relaxation = made("relax", request.param)
        return FirstOrder


class TestStrategies(StrategyContract):
    @pytest.fixture(params=STRATEGIES)
    def make_strategy(self, request):
        return made("strategy", request.param)


# the same over the DARTS space: two kinds of cells, two inputs, factorised reductions


@pytest.mark.full
class TestRelaxationsSearchedOverDarts(TestRelaxationsSearched):
    space, layers = "darts", 3


@pytest.mark.full
class TestStrategiesOverDarts(TestStrategies):
    space, layers = "darts", 3


@pytest.mark.full
class TestStrategiesOnModules(TestStrategies):
    path = "plain"


# a space of choices: widths, depths and layers in place of cells

CELLS_ONLY = {"p_darts", "drnas_progressive", "darts_minus"}


@pytest.mark.full
class TestStrategiesOverChoices(StrategyContract):
    space, layers = "mobilenet", 3

    @pytest.fixture(params=[name for name in STRATEGIES if name not in CELLS_ONLY])
    def make_strategy(self, request):
        return made("strategy", request.param)


@pytest.mark.full
class TestRelaxationsOverChoices(StrategyContract):
    space, layers = "mobilenet", 3

    @pytest.fixture(params=[name for name in RELAX if name != "partial_channels"])
    def make_strategy(self, request):
        self.make_relaxation = made("relax", request.param)
        return FirstOrder


@pytest.mark.full
class TestStrategiesOverStacks(TestStrategiesOverChoices):
    space, layers = "convnet", 2


@pytest.mark.full
class TestRelaxationsOverStacks(TestRelaxationsOverChoices):
    space, layers = "convnet", 2


@pytest.mark.parametrize("name", sorted(CELLS_ONLY))
def test_a_strategy_that_needs_cells_says_so(name):
    net = create_supernet(SPACES["mobilenet"], image_size=8, channels=4, layers=3, num_classes=3,
                          in_channels=1)  # fmt: skip
    with pytest.raises(ConfigError, match="mobilenet"):
        made("strategy", name)().setup(net, SearchConfig())


def test_the_whole_list_is_there():
    assert set(RELAX) == {
        "softmax", "sigmoid", "gumbel", "concrete", "reinmax", "dirichlet", "partial_channels",
        "dropout",
    }  # fmt: skip
    assert set(STRATEGIES) == {
        "first_order", "unrolled", "single_level", "smooth_random", "smooth_adversarial",
        "darts_minus", "lambda_darts", "oles", "darts_pt", "p_darts", "drnas_progressive", "rsps",
        "random_search", "regularized_evolution", "zero_cost",
    }  # fmt: skip
