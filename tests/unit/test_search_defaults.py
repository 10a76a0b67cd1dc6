"""Defaults that follow from what is searched: alpha's learning rate, crop and flip."""

import pytest
import torch
from test_guards import bundle, supernet

from darts_core.augment import Augment
from darts_core.commands.compose import compose, session
from darts_core.errors import ConfigError
from darts_core.search import SearchConfig, search
from darts_core.settings import from_plain, to_plain
from darts_core.settings.rates import LARGEST_RATE, PAPER_RATE, PAPER_STEPS, alpha_learning_rate
from darts_core.settings.search import Space
from darts_core.strategies import FirstOrder, SearchSettings
from darts_core.train.config import TrainConfig


def test_the_rate_of_alpha_is_the_papers_at_its_length_and_grows_for_fewer_steps():
    assert alpha_learning_rate(PAPER_STEPS) == PAPER_RATE == 3e-4
    assert alpha_learning_rate(PAPER_STEPS // 10) == pytest.approx(3e-3)
    assert alpha_learning_rate(10 * PAPER_STEPS) == PAPER_RATE
    assert alpha_learning_rate(9) == alpha_learning_rate(0) == LARGEST_RATE


def test_the_steps_are_those_in_which_alpha_moves():
    config = SearchConfig(epochs=50, batch_size=64)
    assert config.alpha_learning_rate is None
    assert config.settled(390).alpha_learning_rate == PAPER_RATE
    half = SearchConfig(epochs=50, batch_size=64, alpha_warmup_epochs=25)
    assert half.settled(390).alpha_learning_rate == pytest.approx(2 * PAPER_RATE)
    given = SearchConfig(alpha_learning_rate=0.5)
    assert given.settled(390) is given


def test_a_search_moves_alpha_by_the_rate_of_its_length():
    def alphas(**settings):
        net = supernet()
        config = SearchConfig(epochs=1, batch_size=8, evaluate=False, **settings)
        search(net, FirstOrder(), bundle(), config)
        return net.alphas()[0].detach()

    rate = alpha_learning_rate(bundle().steps("params", 8))
    assert torch.equal(alphas(), alphas(alpha_learning_rate=rate))
    assert not torch.equal(alphas(), alphas(alpha_learning_rate=3e-4))


def test_a_strategy_outside_a_search_has_the_papers_rate():
    strategy = FirstOrder()
    strategy.setup(supernet(), SearchSettings())
    assert strategy.alpha_optimizer.param_groups[0]["lr"] == PAPER_RATE


@pytest.mark.parametrize(
    ("shape", "usual"), [((3, 32, 32), True), ((1, 32, 32), False), ((3, 64, 64), False)]
)
def test_crop_and_flip_are_the_papers_for_small_colour_images_and_off_for_others(shape, usual):
    made = Augment.of(shape)
    assert (made is not None) is usual
    if usual:
        assert (made.crop_padding, made.flip, made.cutout) == (4, True, 0)


def test_what_is_given_counts_for_every_image():
    assert Augment.of((3, 32, 32), crop_padding=0, flip=False) is None
    assert Augment.of((1, 8, 8), crop_padding=1) == Augment(crop_padding=1, flip=False)
    assert Augment.of((3, 32, 32), flip=False) == Augment(crop_padding=4, flip=False)


@pytest.mark.parametrize("node", ["search", "train"])
def test_the_command_and_python_leave_crop_and_flip_to_the_images(node):
    with session() as extra:
        config = getattr(compose("run", [], extra), node)
    assert (config.crop_padding, config.flip, config.cutout) == (None, None, 0)
    made = TrainConfig()
    assert (made.crop_padding, made.flip, made.cutout) == (None, None, 0)


def test_options_that_no_space_reads_are_refused():
    with pytest.raises(ConfigError, match=r"space\.options=\{'width': 3\} is read by no space"):
        Space(options={"width": 3})
    # as it stands in the files of older searches
    older = {"name": "darts", "ops": None, "description": "", "options": {}}
    assert to_plain(from_plain(Space, older)) == older
