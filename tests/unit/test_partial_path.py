"""Partial channels: the bypass' rule, the batched path against the modules, searches, checkpoints."""

import copy

import pytest
import torch
import torch.nn.functional as F
from path_cases import batches, images

from darts_core.relax import Dirichlet, GumbelStraightThrough, PartialChannels
from darts_core.spaces import get_space
from darts_core.strategies import FirstOrder, SearchSettings
from darts_core.supernet import Supernet
from darts_core.supernet.describe import describe_plan
from darts_core.supernet.mixed_op import MixedOp
from darts_core.supernet.packed import PackedCell
from darts_core.supernet.plan import plan_cell


def sparse_partial():
    relaxation = GumbelStraightThrough()
    relaxation.channel_fraction = 2
    return relaxation


RELAXATIONS = {
    "PC-DARTS": lambda: PartialChannels(4),
    "DrNAS": lambda: Dirichlet(channel_fraction=2),
    "GDAS": GumbelStraightThrough,
    "partial and sparse": sparse_partial,
}


FEW = ("none", "max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3")


def nets(relaxation, layers=3, channels=8, ops=FEW):
    torch.manual_seed(0)
    space = get_space("darts")
    plain = Supernet(
        space.with_ops(ops) if ops else space,
        channels=channels,
        layers=layers,
        in_channels=1,
        relaxation=RELAXATIONS[relaxation](),
    ).double()
    with torch.no_grad():
        for alpha in plain.alphas():
            alpha.normal_()
    fast = copy.deepcopy(plain)
    assert fast.use_path("auto") == "batched"
    assert all(isinstance(cell, PackedCell) for cell in fast.cells)
    return plain, fast


def seeded(net, seed=0):
    net.generator = torch.Generator().manual_seed(seed)
    return net


@pytest.mark.parametrize("stride", [1, 2])
def test_an_edge_is_the_papers_equation(stride):
    mixed = MixedOp(
        ("none", "skip_connect", "sep_conv_3x3"),
        6,
        stride,
        norm_after_pool=True,
        channel_fraction=3,
    ).double()
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    weights = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    found = mixed(x, weights)
    inner = 0.2 * mixed.ops[1](x[:, :2]) + 0.3 * mixed.ops[2](x[:, :2])
    rest = F.max_pool2d(x[:, 2:], 2, 2, ceil_mode=True) if stride == 2 else x[:, 2:]
    for channel in range(2):
        # output channels of one index stand together: mixed, then each group of the rest
        torch.testing.assert_close(found[:, 3 * channel], inner[:, channel])
        for group in (1, 2):
            bypassed = 0.6 * rest[:, 2 * (group - 1) + channel]
            torch.testing.assert_close(found[:, 3 * channel + group], bypassed)


def assert_same_state(one, two):
    left, right = one.state_dict(), two.state_dict()
    assert left.keys() == right.keys()
    for name, value in left.items():
        # a packed cell counts its passes once for all its norms, and nothing reads the count
        if not (name.endswith("num_batches_tracked") and one.relaxation.sparse):
            assert torch.allclose(right[name], value, atol=1e-10), name


@pytest.mark.parametrize(
    ("side", "layers", "ops"),
    [
        (7, 2, FEW),
        (18, 1, ("none", "max_pool_3x3", "skip_connect", "dil_conv_3x3")),
        pytest.param(8, 3, None, marks=pytest.mark.full),
    ],
)
@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_same_values_gradients_and_statistics(relaxation, side, layers, ops, cpu_form):
    plain, fast = nets(relaxation, layers, 4, ops)
    x = images(2, side)
    for seed in range(2):  # the second pass updates statistics that are no longer the initial ones
        right, found = seeded(plain, seed)(x), seeded(fast, seed)(x)
        assert torch.allclose(found, right, atol=1e-10)
    grad = torch.randn_like(right)
    (right * grad).sum().backward()
    (found * grad).sum().backward()
    moved = 0.0
    for a, b in zip(fast.alphas(), plain.alphas(), strict=True):
        if b.grad is None:
            assert a.grad is None or not a.grad.any()
            continue
        assert torch.allclose(a.grad, b.grad, atol=1e-10)
        moved += float(b.grad.abs().sum())
    assert moved > 0
    exact = dict(plain.named_parameters())
    for i, cell in enumerate(fast.cells):
        for binding in cell.plan.params:
            gradient = exact[f"cells.{i}.{binding.module}.{binding.name}"].grad
            packed = cell.packed.grad[binding.start : binding.start + binding.count]
            if gradient is None:
                assert not packed.any()
            else:
                assert torch.allclose(packed, gradient.reshape(-1), atol=1e-10)
    assert_same_state(plain, fast)
    right, found = seeded(plain.eval(), 5)(x), seeded(fast.eval(), 5)(x)
    assert torch.allclose(found, right, atol=1e-10)
    assert torch.allclose(
        fast(x, fast.expected_weights()), plain(x, plain.expected_weights()), atol=1e-10
    )


def test_drawn_operations_of_cells_with_dense_convolutions():
    torch.manual_seed(0)
    space, relaxation = get_space("nasbench201"), GumbelStraightThrough()
    plain = Supernet(space, channels=4, layers=1, in_channels=1, relaxation=relaxation).double()
    with torch.no_grad():
        plain.alphas()[0][:, 0] -= 5.0  # rarely `none`: something reaches the output
    fast = copy.deepcopy(plain)
    assert fast.use_path("auto") == "batched"
    x = images(4, 8)
    for seed in range(2):
        right, found = seeded(plain, seed)(x), seeded(fast, seed)(x)
        assert torch.allclose(found, right, atol=1e-10)
    grad = torch.randn_like(right)
    (right * grad).sum().backward()
    (found * grad).sum().backward()
    (expected,), (alpha,) = plain.alphas(), fast.alphas()
    assert expected.grad.abs().sum() > 0
    assert torch.allclose(alpha.grad, expected.grad, atol=1e-10)
    assert_same_state(plain, fast)
    weights = plain.expected_weights()
    assert torch.allclose(fast.eval()(x, weights), plain.eval()(x, weights), atol=1e-10)


@pytest.mark.parametrize("relaxation", ["PC-DARTS", "GDAS"])
def test_state_dicts_cross_both_ways(relaxation):
    plain, fast = nets(relaxation, layers=1)
    other = copy.deepcopy(plain)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    fast.load_state_dict(other.state_dict())
    x = images()
    assert torch.allclose(seeded(fast)(x), seeded(other)(x), atol=1e-10)
    plain.load_state_dict(fast.state_dict())
    assert_same_state(other, plain)
    fast.use_path("plain")
    assert torch.allclose(seeded(fast)(x), seeded(other)(x), atol=1e-10)


@pytest.mark.parametrize("relaxation", ["PC-DARTS", "GDAS"])
def test_same_search(relaxation):
    results, losses = [], []
    for net in nets(relaxation, layers=1, channels=4):
        seeded(net, 3)
        strategy = FirstOrder()
        strategy.setup(net, SearchSettings(alpha_learning_rate=0.01), [])
        losses.append([float(strategy.step(*batches(step)).params_loss) for step in range(20)])
        results.append([alpha.detach() for alpha in net.alphas()])
    assert max((a - b).abs().max() for a, b in zip(*results, strict=True)) <= 1e-5
    torch.testing.assert_close(*(torch.tensor(loss) for loss in losses), atol=1e-6, rtol=0)


def test_plan_of_a_partial_cell():
    plain, _ = nets("PC-DARTS", ops=None)
    plan = plan_cell(plain.cells[1], 8 * 2)
    assert plan.layout is not None
    assert (plan.layout.channels, plan.layout.groups, plan.layout.width) == (4, 4, 16)
    numbers = {n for n, _ in plain.cells[1].named_parameters()}
    assert {f"{b.module}.{b.name}" for b in plan.params} == numbers
    whole = Supernet(get_space("darts"), channels=8, layers=3, in_channels=1)
    full = describe_plan(plan_cell(whole.cells[1], 16).layout, 64, 8, 8)
    part = describe_plan(plan.layout, 64, 8, 8)
    # a quarter of the channels is mixed, and the rest moves through the cell
    ratio = sum(r["bytes"] for r in part) / sum(r["bytes"] for r in full)
    assert 0.25 < ratio < 0.6
    assert sum(r["flops"] for r in part) < 0.25 * sum(r["flops"] for r in full)


def test_explain_prints_a_partial_cell(capsys):
    from darts_core.cli import main

    sizes = ["channels=8", "layers=1", "size=8", "bandwidth=100"]
    assert main(["explain", "relax=partial_channels", *sizes]) == 0
    out = capsys.readouterr().out
    assert "operations see 4 of 16 channels" in out
    assert "wave 3" in out
    assert main(["explain", "relax=partial", *sizes]) != 0
    assert "partial_channels" in capsys.readouterr().err
