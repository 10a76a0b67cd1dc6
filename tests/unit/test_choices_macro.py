"""The MobileNet-like space: alphas, exact plain networks, sizes; the toy and RobustDARTS spaces."""

import numpy as np
import pytest
import torch

from darts_core.architecture import Architecture
from darts_core.errors import ConfigError
from darts_core.spaces import SPACES, get_space
from darts_core.spaces.mobilenet import MobileNetSpace
from darts_core.spaces.toy import PLANTED, planted_images
from darts_core.supernet import Supernet, build, count, create_supernet

SIZES = {"channels": 8, "layers": 3, "num_classes": 4, "in_channels": 3}


def test_mobilenet_labels():
    space = get_space("mobilenet")
    assert len(space.choices) == 3 * (2 + 3 * 2)
    assert space.options("stage2.width") == (0.5, 0.75, 1.0)
    assert space.options("stage3.block3.kernel") == (3, 5, 7)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_found_mobilenet_is_cut_exactly_and_has_the_size_of_a_fresh_one(seed):
    torch.manual_seed(seed)
    net = create_supernet(get_space("mobilenet"), image_size=8, **SIZES)
    for _ in range(2):
        net(torch.randn(4, 3, 8, 8))
    net.eval()
    architecture = net.space.random(np.random.default_rng(seed))
    plain = net.build(architecture)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(plain(x), net(x, net.one_hot(architecture)), atol=1e-4, rtol=1e-3)
    fresh = build(architecture, **SIZES)
    assert count(fresh, (3, 8, 8)) == count(plain, (3, 8, 8))
    fresh.drop_path_prob = 0.3
    assert fresh.train()(x).shape == (2, 4)


def test_a_mobilenet_scales_with_channels_and_its_depth_is_chosen_whatever_the_layers():
    architecture = get_space("mobilenet").random(np.random.default_rng(3))
    small = build(architecture, **SIZES)
    large = build(architecture, **{**SIZES, "channels": 16})
    assert count(large).params > 3 * count(small).params
    assert count(build(architecture, **{**SIZES, "layers": 8})) == count(small)


def test_a_macro_space_of_ones_own():
    space = MobileNetSpace.make(
        "mine", strides=(2,), kernels=(3,), expansions=(1, 2), widths=(1.0,), depths=(1, 2)
    )
    sizes = {"channels": 4, "layers": 2, "num_classes": 2, "in_channels": 1, "image_size": 8}
    net = create_supernet(space, **sizes)
    assert net(torch.randn(2, 1, 8, 8)).shape == (2, 2)
    assert net.build()(torch.randn(2, 1, 8, 8)).shape == (2, 2)


@pytest.mark.parametrize("name", ["s1", "s2", "s3", "s4"])
def test_robustdarts_spaces_search_and_build(name):
    space = get_space(name)
    torch.manual_seed(0)
    net = Supernet(space, channels=4, layers=3, num_classes=3)
    assert net(torch.randn(2, 3, 8, 8)).shape == (2, 3)
    architecture = space.random(np.random.default_rng(0))
    if name == "s1":
        for kind in space.cell_kinds:
            allowed = space.allowed(kind)
            assert (allowed.sum(1) == 2).all()
            for source, target, op in architecture.cell(kind).edges:
                assert allowed[space.edges.index((source, target)), space.ops.index(op)]
    plain = build(architecture, channels=4, layers=3, num_classes=3)
    assert plain(torch.randn(2, 3, 8, 8)).shape == (2, 3)
    with torch.no_grad():
        assert torch.isfinite(net(torch.randn(2, 3, 8, 8), net.one_hot(architecture))).all()


def test_one_hot_weights_are_those_of_the_architecture():
    space = get_space("nasbench201")
    net = Supernet(space, channels=4, layers=1, num_classes=3)
    architecture = space.random(np.random.default_rng(1))
    weights = net.one_hot(architecture)
    assert weights["cell"].sum(1).tolist() == [1.0] * 6
    assert space.discretize({"cell": weights["cell"].numpy()}) == architecture
    with pytest.raises(ConfigError, match="has no"):
        net.one_hot(
            Architecture.from_text("|sep_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|")
        )


def test_rebuild_changes_space_and_depth_in_place():
    net = Supernet(get_space("darts"), channels=4, layers=3, num_classes=3)
    net.rebuild(get_space("s2"), layers=4)
    assert len(net.cells) == 4
    assert {tuple(a.shape) for a in net.alphas()} == {(14, 2)}
    assert net(torch.randn(2, 3, 8, 8)).shape == (2, 3)
    with pytest.raises(ConfigError, match="layers"):
        net.rebuild(get_space("s2"), layers=0)


def test_planted_images_carry_their_class_at_one_distance_only():
    images, labels = planted_images(3000, strengths=(0.95, 0.95), seed=1)
    values = images.astype(float) - 128
    for channel, right in ((0, 1), (1, 4)):
        sign = 2 * ((labels // 2 if channel else labels) % 2) - 1
        for distance in (1, 2, 3, 4):
            product = values[:, channel, :, :-distance] * values[:, channel, :, distance:]
            signed = (sign * product.mean((1, 2)) / values[:, channel].var()).mean()
            if distance == right:
                assert signed > 0.8
            elif distance % right == 0 and distance // right % 2:
                assert signed > 0.5  # odd multiples inherit it, and no candidate compares them
            else:
                assert abs(signed) < 0.05
    assert PLANTED == ("nor_conv_3x3", "dil_conv_3x3")


def test_every_registered_space_draws_and_describes_itself():
    for entry in SPACES.entries():
        drawn = entry.value.random(np.random.default_rng(0))
        assert drawn.space == entry.value.name
        assert entry.description


def test_a_model_of_a_macro_space_is_told_the_size_of_images_that_are_not_square(monkeypatch):
    from torch import nn

    from darts_core.spaces import ChoiceSpace
    from darts_core.supernet import LayerChoice, create_supernet, macro

    def factory(space, *, channels, layers, num_classes, in_channels, image_size):
        height, width = image_size
        inner = [nn.Linear(in_channels * height * width, channels) for _ in range(2)]
        head = nn.Linear(channels, num_classes)
        return nn.Sequential(nn.Flatten(), LayerChoice(inner, label="inner"), head)

    monkeypatch.setattr(macro.CHOICE_MODELS, "_entries", dict(macro.CHOICE_MODELS._entries))
    macro.register_choice_model("flat", description="one layer")(factory)
    space = ChoiceSpace.of("flat", {"inner": ["0", "1"]}, skeleton="flat")
    net = create_supernet(space, channels=3, layers=1, num_classes=2, image_size=(4, 6))
    assert net.input_shape == (3, 4, 6)
    assert net(torch.zeros(2, 3, 4, 6)).shape == (2, 2)
    square = create_supernet(space, channels=3, layers=1, num_classes=2, image_size=4)
    assert square.input_shape == (3, 4, 4)


def test_a_network_of_ones_own_is_told_the_height_wherever_a_search_makes_one(monkeypatch):
    """Its finalists and what is timed or counted for its cost, as its training is."""
    from types import SimpleNamespace

    from darts_core.settings import from_plain
    from darts_core.stages.cost import network_timer
    from darts_core.stages.finalist_training import Sizes
    from darts_core.stages.schema import SearchStage
    from darts_core.supernet.build import NETWORKS

    space, config = get_space("convnet"), from_plain(SearchStage, {"device": "cpu"})
    monkeypatch.setattr(NETWORKS, "_entries", dict(NETWORKS._entries))
    NETWORKS.put(space.skeleton, lambda _, **sizes: sizes, description="what it is given")
    bundle = SimpleNamespace(input_shape=(1, 8, 6), num_outputs=3, in_channels=1)
    found = space.random(np.random.default_rng(0))
    timer = network_timer(config, bundle.input_shape, 3, torch.device("cpu"))
    for make in (Sizes(config, bundle).make, timer.make):
        assert make(found)["image_size"] == 8
