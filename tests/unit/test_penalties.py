"""Penalties on the alphas: beta-DARTS exactly, with any relaxation, told how far the search is; cost."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from darts_core.commands.compose import compose, session
from darts_core.errors import ConfigError
from darts_core.penalties import AlphaPenalty, Beta
from darts_core.relax import Softmax
from darts_core.relax.dirichlet import Dirichlet
from darts_core.spaces import get_space
from darts_core.stages.cost import penalties
from darts_core.stages.search_setup import alpha_penalties
from darts_core.strategies import FirstOrder, SearchSettings
from darts_core.supernet import LayerChoice, ModuleSupernet, Supernet, build
from darts_core.supernet.count import count


def test_beta_pulls_every_logit_down_in_proportion_to_its_weight():
    torch.manual_seed(0)
    alphas = {
        "normal": torch.randn(3, 4, dtype=torch.float64, requires_grad=True),
        "reduce": torch.randn(2, 4, dtype=torch.float64, requires_grad=True),
    }
    loss = Beta(start=1.0, end=9.0).of_alphas({**alphas, "extra": torch.ones(5)}, 0.25)
    found = torch.autograd.grad(loss, [*alphas.values()])
    for alpha, gradient in zip(alphas.values(), found, strict=True):
        torch.testing.assert_close(gradient, 3.0 * alpha.softmax(-1).detach() / 5)


def test_beta_leaves_disallowed_operations_alone():
    alpha = torch.tensor([[0.5, -torch.inf, 0.5]], requires_grad=True)
    loss = Beta(1.0, 1.0).of_alphas({"cell": alpha}, 0.0)
    assert float(loss.detach()) == pytest.approx(0.5 + torch.log(torch.tensor(2.0)).item())
    (gradient,) = torch.autograd.grad(loss, [alpha])
    assert gradient.tolist() == [[0.5, 0.0, 0.5]]


def supernet(relaxation):
    torch.manual_seed(0)
    layers = LayerChoice([nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 3, padding=1)], label="layer")
    return ModuleSupernet(
        nn.Sequential(layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), relaxation=relaxation
    )


def batch():
    return torch.randn(4, 1, 5, 5), torch.tensor([0, 1, 0, 1])


def alpha_loss(relaxation, penalties, progress):
    net = supernet(relaxation)
    net.progress.fill_(progress)
    strategy = FirstOrder()
    strategy.setup(net, SearchSettings(), penalties)
    torch.manual_seed(1)
    net.generator = torch.Generator().manual_seed(2)
    loss, _ = strategy.alpha_loss(batch())
    return float(loss.detach()), net


@pytest.mark.parametrize("make", [Softmax, Dirichlet])
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_the_alpha_loss_grows_by_beta_at_the_search_s_progress_with_any_relaxation(make, progress):
    without, net = alpha_loss(make(), [], progress)
    beta = Beta(0.0, 4.0)
    found, _ = alpha_loss(make(), [beta], progress)
    decay = torch.logsumexp(net.named_alphas()["layer"], -1).mean()
    assert found - without == pytest.approx(4.0 * progress * float(decay.detach()), abs=1e-5)


def test_a_relaxation_s_own_penalty_is_told_the_progress():
    class Fading(Softmax):
        def penalty(self, alphas, progress=1.0):
            return 2.0 * progress * torch.stack([a.exp().sum() for a in alphas.values()]).sum()

    (begin, net), (end, _) = (alpha_loss(Fading(), [], p) for p in (0.0, 1.0))
    extra = 2.0 * net.named_alphas()["layer"].exp().sum()
    assert end - begin == pytest.approx(float(extra.detach()), abs=1e-5)


def settings(*overrides):
    with session() as extra:
        return compose("search", ["data=digits", *overrides], extra)


def test_the_group_makes_the_penalty_and_nothing_by_default():
    assert alpha_penalties(settings()) == []
    (found,) = alpha_penalties(settings("penalty=beta", "penalty.end=7"))
    assert isinstance(found, Beta)
    assert (found.start, found.end) == (0.0, 7)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="from 0 to"):
            Beta(end=wrong)
    with pytest.raises(ConfigError, match="Did you mean"):
        settings("penalty=bta")
    with pytest.raises(ConfigError, match=r"penalty\b.* takes"):
        settings("penalty=beta", "penalty._target_=darts_core.relax.Softmax")
    assert isinstance(found, AlphaPenalty)


@pytest.mark.parametrize(
    ("relaxation", "penalties"), [(Softmax(), [Beta(1.0, 1.0)]), (Dirichlet(anchor=1.0), [])]
)
def test_what_an_edge_may_not_choose_is_nothing_to_a_penalty(relaxation, penalties):
    torch.manual_seed(0)
    space = get_space("s1")
    net = Supernet(space, channels=2, layers=3, num_classes=3, in_channels=1, relaxation=relaxation)
    strategy = FirstOrder()
    strategy.setup(net, SearchSettings(), penalties)
    gradients, _, _ = strategy.alpha_gradients((torch.randn(4, 1, 8, 8), torch.arange(4) % 3))
    for kind, gradient in zip(net.named_alphas(), gradients, strict=True):
        allowed = torch.from_numpy(space.allowed(kind))
        assert torch.isfinite(gradient).all()
        assert (gradient[~allowed] == 0).all()
        assert (gradient[allowed] != 0).any()


@pytest.fixture(scope="module")
def counting():
    given = ["search.channels=1", "search.layers=1", "latency.cost=macs", "latency.budget=1e6"]
    with session() as extra:
        return compose("search", given, extra)


@pytest.mark.parametrize("what", ["macs", "params"])
@pytest.mark.parametrize("space", ["nasbench201", "darts"])
def test_a_budget_that_is_counted_is_one_of_the_whole_network(space, what, counting):
    """What stands around the chosen operations, the stem above all, is most of a small network."""
    settings = replace(counting, latency=replace(counting.latency, cost=what))
    shape, cells = (1, 4, 4), get_space(space)
    (charged,) = penalties(settings, cells, shape, 10, torch.device("cpu"))
    found = cells.random(np.random.default_rng(5))
    network = count(build(found, 1, 1, 10, in_channels=1, image_size=4), shape)
    size = network.macs / 1e6 if what == "macs" else network.params / 1e3
    assert charged.cost.of(found) == pytest.approx(size, rel=1e-5)
    mixed = charged.cost(Supernet(cells, channels=1, layers=1, in_channels=1).one_hot(found))
    assert float(mixed) == pytest.approx(size, rel=1e-5)


def test_an_unfinished_search_that_counted_the_chosen_operations_alone_goes_on_so(
    tmp_path, counting
):
    settings = replace(counting, latency=replace(counting.latency, cost="params"))

    def overhead(folder):
        folder.mkdir(exist_ok=True)
        cells = get_space("nasbench201")
        (charged,) = penalties(settings, cells, (1, 4, 4), 10, torch.device("cpu"), folder=folder)
        (folder / "checkpoint.pt").touch()
        return charged.cost.overhead

    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "checkpoint.pt").touch()
    assert overhead(tmp_path / "old") == overhead(tmp_path / "old") == 0.0
    assert overhead(tmp_path / "new") == overhead(tmp_path / "new") > 0.0
