"""Supernet and plain networks: shapes, odd sizes, drop-path, state, and bad arguments."""

import pytest
import torch

from darts_core import Architecture, Supernet, build, count, get_space
from darts_core.errors import ArchitectureError, ConfigError
from darts_core.ops import OPS, create_op
from darts_core.spaces import SearchSpace
from darts_core.supernet import create_supernet


@pytest.mark.parametrize("name", list(OPS))
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [8, 7])
def test_every_operation_keeps_the_shape_rule(name: str, stride: int, size: int) -> None:
    op = create_op(name, 4, stride, affine=False)
    out = op(torch.randn(2, 4, size, size))
    assert out.shape == (2, 4, -(-size // stride), -(-size // stride))


@pytest.mark.parametrize("space", ["darts", "nasbench201"])
@pytest.mark.parametrize("size", [8, 9, 28])
def test_networks_take_odd_sizes(space: str, size: int) -> None:
    torch.manual_seed(0)
    supernet = Supernet(get_space(space), channels=4, layers=3, num_classes=3, in_channels=1)
    images = torch.randn(2, 1, size, size)
    assert supernet(images).shape == (2, 3)
    network = build(
        supernet.discretize(), channels=4, layers=3, num_classes=3, in_channels=1,
        auxiliary=space == "darts", image_size=size,
    )  # fmt: skip
    out = network(images)
    assert all(part.shape == (2, 3) for part in (out if isinstance(out, tuple) else (out,)))
    assert network.eval()(images).shape == (2, 3)


@pytest.mark.parametrize(("stem", "made_for", "given"), [("cifar", 32, 28), ("imagenet", 193, 192)])
def test_an_auxiliary_head_made_for_larger_images_says_so(
    stem: str, made_for: int, given: int
) -> None:
    sizes = {"channels": 2, "layers": 3, "auxiliary": True, "stem": stem}
    network = build(Architecture.named("DARTS_V2"), **sizes, image_size=made_for)
    with torch.no_grad():
        assert network(torch.randn(2, 3, made_for, made_for))[1].shape == (2, 10)
        with pytest.raises(ConfigError, match="image_size="):
            network(torch.randn(2, 3, given, given))


def test_images_too_small_for_the_imagenet_head_are_refused() -> None:
    with pytest.raises(ConfigError, match="7x7 or more, not 6"):
        build(Architecture.named("DARTS_V2"), 2, 3, auxiliary=True, stem="imagenet", image_size=192)


def test_average_pools_do_not_count_the_padding() -> None:
    op = create_op("avg_pool_3x3", 1, 1, affine=False)
    torch.testing.assert_close(op(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))


def test_supernet_norms_are_affine_less_inside_and_affine_in_the_stem() -> None:
    net = Supernet(get_space("darts"), channels=4, layers=3)
    affine = [
        name
        for name, module in net.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d) and module.affine
    ]
    assert affine == ["stem.1"]
    pools = [m for n, m in net.named_modules() if "MaxPool" in type(m).__name__]
    assert len(pools) == 14 * 3


def test_one_hot_weights_give_the_operations_own_output() -> None:
    torch.manual_seed(1)
    net = Supernet(get_space("nasbench201"), channels=4, layers=1).eval()
    mixed = net.cells[0].mixed[0]
    x = torch.randn(2, 4, 5, 5)
    for k in range(1, 5):
        weights = torch.zeros(5)
        weights[k] = 1.0
        torch.testing.assert_close(mixed(x, weights), mixed.ops[k](x))
    assert not mixed(x, torch.tensor([1.0, 0, 0, 0, 0])).any()


def test_alphas_travel_in_the_state_dict() -> None:
    first, second = (Supernet(get_space("nasbench201"), channels=4, layers=1) for _ in range(2))
    with torch.no_grad():
        first.alphas()[0].normal_()
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.alphas()[0], second.alphas()[0])
    assert first.discretize() == second.discretize()


def test_drop_path_scales_kept_paths_and_spares_skips() -> None:
    torch.manual_seed(0)
    net = build(Architecture.named("DARTS_V2"), channels=4, layers=3)
    images = torch.randn(4, 3, 8, 8)
    assert net.drop_path_prob == 0.0
    with torch.no_grad():
        same = [net(images) for _ in range(2)]
        assert torch.equal(*same)
        net.drop_path_prob = 0.5
        different = [net(images) for _ in range(2)]
        assert not torch.equal(*different)
        net.eval()
        assert torch.equal(net(images), net(images))
    with pytest.raises(ConfigError, match="below 1"):
        net.drop_path_prob = 1.0


def test_count_counts_convolutions_and_linear_layers() -> None:
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1, groups=1),
        torch.nn.Flatten(),
        torch.nn.Linear(4 * 36, 2),
    )
    size = count(net, (3, 6, 6))
    assert size.macs == 36 * 4 * 3 * 9 + 144 * 2
    assert size.params == 4 * 27 + 4 + 288 + 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"channels": 0}, "channels >= 1"),
        ({"layers": -1}, "layers >= 1"),
        ({"stem": "imagenett"}, "imagenet"),
    ],
)
def test_bad_sizes_end_in_a_sentence(arguments: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build(Architecture.named("DARTS_V2"), **arguments)


def test_an_unknown_operation_is_named() -> None:
    text = Architecture.named("DARTS_V2").text().replace("sep_conv_3x3", "sepconv_3x3", 1)
    with pytest.raises(ArchitectureError, match="Did you mean 'sep_conv_3x3'"):
        build(Architecture.from_text(text))


def test_a_channel_count_that_the_fraction_does_not_divide_is_refused() -> None:
    from darts_core.relax import Softmax

    partial = Softmax()
    partial.channel_fraction = 4
    net = Supernet(get_space("darts"), channels=8, layers=3, relaxation=partial)
    assert net(torch.randn(2, 3, 8, 8)).shape == (2, 10)
    with pytest.raises(ConfigError, match="cannot be split"):
        Supernet(get_space("darts"), channels=6, layers=3, relaxation=partial)


@pytest.mark.parametrize(
    ("skeleton", "fields", "says"),
    [
        ("darts", {"inputs": 1, "concat": True}, r"gives a cell inputs=2 states, not 1"),
        ("nasbench201", {"inputs": 2}, r"gives a cell inputs=1 states, not 2"),
        ("toy", {"inputs": 1}, r"gives a cell inputs=2 states, not 1"),
        ("nasbench201", {"inputs": 1, "concat": True}, r"use concat=False"),
        ("nasbench201", {"inputs": 1, "cell_kinds": ("a", "b")}, r"cell_kinds of one kind, not"),
        (
            "darts",
            {"inputs": 2, "cell_kinds": ("normal", "other")},
            r"\['normal', 'reduce'\], or one",
        ),
    ],
)
def test_cells_that_a_skeleton_cannot_stack_are_refused(skeleton, fields, says) -> None:
    """They ended in an IndexError, or were searched with places of their states taken by others."""
    given = {"cell_kinds": ("cell",), **fields}
    space = SearchSpace("own", ops=("nor_conv_1x1",), nodes=2, skeleton=skeleton, **given)
    with pytest.raises(ConfigError, match=says):
        Supernet(space, channels=2, layers=1 if skeleton == "toy" else 3)


def test_a_stem_of_cells_is_refused_for_a_space_of_choices() -> None:
    """It was passed over in silence."""
    with pytest.raises(ConfigError, match="leave out stem='imagenet'"):
        create_supernet(get_space("mobilenet"), channels=2, stem="imagenet", image_size=8)
