"""The space of small stacks of convolutions: labels, exact plain networks, exact costs, bad input."""

import numpy as np
import pytest
import torch
from torch import nn

from darts_core.errors import ConfigError
from darts_core.latency import choice_size_model
from darts_core.spaces import get_space
from darts_core.spaces.convnet import convnet_space
from darts_core.supernet import build, count, create_supernet

SIZES = {"channels": 4, "num_classes": 3, "in_channels": 1}
HAND_DRAWN = {"levels": 3, "level1.width": 1, "level2.width": 3, "level3.width": 3}


def drawn(**changes):
    """The architecture of plain 3x3 convolutions with some choices made otherwise."""
    space = get_space("convnet")
    return space.discretize(
        {
            label: np.array([[float(o == changes.get(label, options[0])) for o in options]])
            for label, options in space.choices
        }
    )


def test_the_smallest_and_the_largest_stack():
    least, most = drawn(), drawn(**{"levels": 3, "level2.depth": 2, "level3.depth": 2})
    for architecture, convolutions in ((least, 2), (most, 5)):
        net = build(architecture, **SIZES)
        kinds = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
        pools = [m for m in net.modules() if isinstance(m, torch.nn.MaxPool2d)]
        assert len(kinds) == convolutions
        assert len(pools) == architecture.choice("levels") - 1


def test_a_network_of_known_size():
    """1->16, pool, 16->48, pool, 48->48, each 3x3 with a norm, and a classifier of 10."""
    net = build(drawn(**HAND_DRAWN), channels=16, num_classes=10, in_channels=1)
    size = count(net, (1, 8, 8))
    assert size.params == 9 * (16 + 16 * 48 + 48 * 48) + 2 * (16 + 48 + 48) + 490
    assert size.macs == 9 * (16 * 64 + 16 * 48 * 16 + 48 * 48 * 4) + 480


def test_a_separable_convolution_is_depthwise_and_pointwise():
    net = build(drawn(**{"level2.conv1": "sep_5x5"}), **SIZES)
    shapes = [tuple(m.weight.shape) for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert shapes == [(4, 1, 3, 3), (4, 1, 5, 5), (4, 4, 1, 1)]


@pytest.mark.parametrize(("space", "side"), [("convnet", 8), ("convnet_deep", 16)])
@pytest.mark.parametrize("seed", range(4))
def test_a_found_stack_is_cut_exactly_and_has_the_size_of_a_fresh_one(seed, space, side):
    torch.manual_seed(seed)
    net = create_supernet(get_space(space), image_size=side, **SIZES)
    for _ in range(2):
        net(torch.randn(4, 1, side, side))
    net.eval()
    architecture = net.space.random(np.random.default_rng(seed))
    plain, x = net.build(architecture), torch.randn(2, 1, side, side)
    torch.testing.assert_close(plain(x), net(x, net.one_hot(architecture)), atol=1e-4, rtol=1e-3)
    fresh = build(architecture, **SIZES)
    assert count(fresh, (1, side, side)) == count(plain, (1, side, side))
    fresh.drop_path_prob = 0.3
    assert fresh.train()(x).shape == (2, 3)


def test_a_shortcut_adds_what_comes_in():
    chosen = {"level2.depth": 2, "level2.shortcut2": "add"}
    net, x = build(drawn(**chosen), **SIZES).eval(), torch.randn(2, 1, 8, 8)
    second = net.body[1][1][1][0]
    torch.nn.init.zeros_(second.conv.weight)
    before = net.body[1][1][0](net.body[1][0](net.body[0](x)))
    torch.testing.assert_close(second(before), before)


@pytest.mark.parametrize(("name", "side"), [("convnet", 8), ("convnet_deep", 16)])
@pytest.mark.parametrize("what", ["macs", "params"])
def test_costs_are_exact_for_every_network(what, name, side):
    space = get_space(name)
    x = torch.randn(2, 1, side, side)
    cost = choice_size_model(space, lambda a: build(a, **SIZES), x, what)
    rng = np.random.default_rng(5)
    for _ in range(5):
        architecture = space.random(rng)
        size = count(build(architecture, **SIZES), (1, side, side))
        expected = size.macs / 1e6 if what == "macs" else size.params / 1e3
        assert cost.of(architecture) == pytest.approx(expected, rel=1e-4)


def test_a_stack_can_be_described_without_memory():
    with torch.device("meta"):
        described = create_supernet(get_space("convnet"), image_size=8, **SIZES)
    real = create_supernet(get_space("convnet"), image_size=8, **SIZES)
    shapes = [{k: v.shape for k, v in net.state_dict().items()} for net in (described, real)]
    assert shapes[0] == shapes[1]
    assert {value.device.type for value in described.state_dict().values()} == {"meta"}


def test_what_does_not_fit_is_refused():
    space = get_space("convnet")
    with pytest.raises(ConfigError, match="4x4 pixels, not 3x8"):
        create_supernet(space, image_size=(3, 8), **SIZES)
    with pytest.raises(ConfigError, match="8x8 pixels, not 7x7"):
        create_supernet(get_space("convnet_deep"), image_size=(7, 7), **SIZES)
    with pytest.raises(ConfigError, match="one largest width"):
        convnet_space("mine", levels=(1, 2), widths=((1, 2), (1, 3)), depths=((1,), (1,)))
    with pytest.raises(ConfigError, match="3 levels; widths name fewer"):
        convnet_space("mine", levels=(3,), widths=((1,), (2,)), depths=((1,), (1,), (1,)))
    with pytest.raises(ConfigError, match="3 levels; widths and depths name fewer"):
        convnet_space("mine", levels=(3,), widths=((1,), (2,)), depths=((1,), (1,)))
    with pytest.raises(ConfigError, match="auxiliary"):
        build(drawn(), **SIZES, auxiliary=True)


def test_a_space_of_stacks_of_ones_own():
    space = convnet_space(
        "mine",
        levels=(1, 2),
        widths=(1, 2),
        depths=((1, 2, 3), (1,)),
        kinds=("conv_3x3", "sep_3x3"),
    )
    net = create_supernet(space, image_size=4, **SIZES)
    assert net(torch.randn(2, 1, 4, 4)).shape == (2, 3)
    assert net.build()(torch.randn(2, 1, 4, 4)).shape == (2, 3)


@pytest.mark.parametrize("depths", [((2,), (2,)), ((1,), (3,))])
def test_a_level_of_one_depth_has_so_many_convolutions(depths):
    """It had one convolution, whatever the depth, and choices of layers that were not there."""
    space = convnet_space("mine", levels=(2,), widths=(1, 2), depths=depths)
    net = create_supernet(space, image_size=4, **SIZES)
    assert set(net._choices) == {label for label, _ in space.choices}
    wanted = sum(own[0] for own in depths)
    for network in (net.module, net.build()):
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        assert len(norms) == wanted
        if network is not net.module:
            assert network(torch.randn(2, 1, 4, 4)).shape == (2, 3)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"levels": ()}, "levels from 1 and widths"),
        ({"levels": (0, 1)}, "levels from 1 and widths"),
        ({"widths": ()}, "levels from 1 and widths"),
        ({"depths": ((), (1,))}, "'level1.depth' of space 'mine' needs different options"),
    ],
)
def test_a_stack_of_nothing_is_refused(wrong, says):
    with pytest.raises(ConfigError, match=says):
        convnet_space("mine", **{"levels": (1,), "widths": (1,), "depths": ((1,), (1,)), **wrong})
