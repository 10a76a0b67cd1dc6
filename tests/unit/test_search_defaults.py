"""Defaults that follow from what is searched: alpha's learning rate, crop and flip."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_guards import bundle, supernet

from darts_core.augment import Augment
from darts_core.augment.by_kind import augment_for
from darts_core.checkpoint import load_checkpoint, save_checkpoint
from darts_core.commands.compose import compose, session
from darts_core.data import RawData, make_bundle
from darts_core.errors import ConfigError
from darts_core.search import SearchConfig, search
from darts_core.settings import from_plain, to_plain
from darts_core.settings.rates import LARGEST_RATE, PAPER_RATE, PAPER_STEPS, alpha_learning_rate
from darts_core.settings.search import Space
from darts_core.stages.search_setup import _mirrored_before
from darts_core.strategies import FirstOrder, SearchSettings
from darts_core.tasks import Classification
from darts_core.train.config import TrainConfig
from darts_core.train.trainer import Trainer


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


def test_no_image_is_mirrored_unasked_under_regression_but_what_began_so_goes_on_so(tmp_path):
    images, numbers = np.zeros((40, 3, 32, 32), np.uint8), np.arange(40.0)
    numbered, model = make_bundle("n", RawData(images, numbers, ("x",), "n")), torch.nn.Linear(1, 1)
    config = TrainConfig(batch_size=4)
    assert (numbered.task.mirrors, Classification().mirrors) == (False, True)
    asked = augment_for((3, 32, 32), replace(config, flip=True), mirrors=False)
    assert (asked.flip, augment_for((3, 32, 32), config).flip) == (True, True)

    def begun():
        return Trainer(model, numbered, config, ("params",), 0, torch.device("cpu"))

    path = tmp_path / "checkpoint.pt"
    assert (begun().augment.crop_padding, begun().augment.flip) == (4, False)
    begun().save(path, 0)
    content = load_checkpoint(path)
    del content["mirrors"]  # as an older program wrote it
    for older in (False, True, True):
        again = begun()
        again.resume(path)
        assert again.augment.flip is older
        again.save(path, 0)
        if not older:
            save_checkpoint(path, content)
    assert [_mirrored_before(tmp_path), _mirrored_before(tmp_path)] == [True, True]
    (tmp_path / "new").mkdir()
    assert not _mirrored_before(tmp_path / "new")
    path.rename(tmp_path / "new" / path.name)
    assert not _mirrored_before(tmp_path / "new")


def test_options_that_no_space_reads_are_refused():
    with pytest.raises(ConfigError, match=r"space\.options=\{'width': 3\} is read by no space"):
        Space(options={"width": 3})
    # as it stands in the files of older searches
    older = {"name": "darts", "ops": None, "description": "", "options": {}}
    assert to_plain(from_plain(Space, older)) == older
