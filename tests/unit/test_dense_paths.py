"""Cells with dense convolutions: the batched path against the module path, and the plan."""

import copy
import dataclasses
import itertools
import sys

import pytest
import torch
from path_cases import assert_same_state, batches, images
from torch import nn

from darts_core.ops import OPS, register_op
from darts_core.relax import PartialChannels
from darts_core.spaces import get_space
from darts_core.strategies import FirstOrder, SearchSettings, Unrolled
from darts_core.supernet import Supernet
from darts_core.supernet.branches import branch_of
from darts_core.supernet.dense import BatchedDenseCell
from darts_core.supernet.describe import describe_plan
from darts_core.supernet.mixed_op import MixedOp, lean_sum
from darts_core.supernet.plan import plan_cell

if "test_gelu_conv" not in OPS:

    @register_op("test_gelu_conv", description="a user's operation without primitives")
    def _gelu_conv(channels: int, stride: int, *, affine: bool) -> nn.Module:
        return nn.Sequential(nn.GELU(), nn.Conv2d(channels, channels, 3, stride, 1))


SPACES = {
    "nasbench201": get_space("nasbench201"),
    # stride 2, normalised pools, preprocessing, reductions, a user's operation and a depthwise one
    "mixed": get_space("darts").with_ops(
        ["nor_conv_1x1", "test_gelu_conv", "max_pool_3x3", "none", "skip_connect", "nor_conv_3x3",
         "avg_pool_3x3", "dil_conv_3x3"]
    ),
}  # fmt: skip


def nets(space, channels=2, layers=1):
    plain = Supernet(SPACES[space], channels=channels, layers=layers, in_channels=1).double()
    fast = copy.deepcopy(plain)
    assert fast.use_path("auto") == "batched"
    assert any(isinstance(cell, BatchedDenseCell) for cell in fast.cells)
    return plain, fast


def params_by_name(net):
    """Gradients under the module path's names."""
    found = {name: p.grad for name, p in net.named_parameters() if not name.endswith("packed")}
    for i, cell in enumerate(net.cells):
        for b in getattr(getattr(cell, "plan", None), "params", []):
            gradient = cell.packed.grad[b.start : b.start + b.count]
            found[f"cells.{i}.{b.module}.{b.name}"] = gradient
    return found


@pytest.mark.parametrize("side", [8, 7])
@pytest.mark.parametrize("space", SPACES)
def test_same_values_gradients_and_statistics(space, side):
    plain, fast = nets(space, layers=3 if space == "mixed" else 1)
    x = images(side=side)
    right, found = plain(x), fast(x)
    assert torch.allclose(found, right, atol=1e-10)
    grad = torch.randn_like(right)
    (right * grad).sum().backward()
    (found * grad).sum().backward()
    for a, b in zip(fast.alphas(), plain.alphas(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-10)
    exact, packed = params_by_name(plain), params_by_name(fast)
    assert exact.keys() == packed.keys()
    for name, gradient in exact.items():
        assert torch.allclose(packed[name].reshape(-1), gradient.reshape(-1), atol=1e-10), name
    assert_same_state(plain, fast)
    assert torch.allclose(fast.eval()(x), plain.eval()(x), atol=1e-10)


@pytest.mark.parametrize(
    ("space", "strategy", "steps"),
    [("nasbench201", FirstOrder, 20), ("nasbench201", Unrolled, 2), ("mixed", FirstOrder, 2)],
)
def test_same_search(space, strategy, steps):
    plain, fast = nets(space)
    results = []
    for net in (plain, fast):
        found = strategy()
        found.setup(net, SearchSettings(alpha_learning_rate=0.01), [])
        for step in range(steps):
            found.step(*batches(step))
        results.append([alpha.detach() for alpha in net.alphas()])
    assert max((a - b).abs().max() for a, b in zip(*results, strict=True)) <= 1e-5
    assert max(alpha.abs().max() for alpha in results[0]) > 0.01
    assert_same_state(plain, fast)


@pytest.mark.parametrize("space", SPACES)
def test_states_cross_both_ways(space):
    plain, fast = nets(space)
    one, two = FirstOrder(), FirstOrder()
    one.setup(plain, SearchSettings(), [])
    two.setup(fast, SearchSettings(), [])
    one.step(*batches(0))
    fast.load_state_dict(plain.state_dict())
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    one.step(*batches(1)), two.step(*batches(1))
    assert_same_state(plain, fast)
    saved, again = two.state_dict()["optimizer"], one.state_dict()["optimizer"]
    assert saved["state"].keys() == again["state"].keys()
    for index, values in again["state"].items():
        momentum = saved["state"][index]["momentum_buffer"]
        assert torch.allclose(momentum, values["momentum_buffer"], atol=1e-10)
    fast.use_path("plain")
    assert not any(isinstance(cell, BatchedDenseCell) for cell in fast.cells)
    x = images()
    assert torch.allclose(fast(x), plain(x), atol=1e-10)


def test_no_weight_gradient_with_frozen_params():
    _, fast = nets("nasbench201")
    for parameter in fast.parameters():
        parameter.requires_grad_(False)
    fast(images()).sum().backward()
    assert all(parameter.grad is None for parameter in fast.parameters())
    assert all(alpha.grad.abs().max() > 0 for alpha in fast.alphas())


def test_plan():
    net = Supernet(SPACES["nasbench201"], channels=4, layers=1, in_channels=1)
    plan = plan_cell(net.cells[0], 4)
    layout = plan.layout
    assert layout.filters == ((1, 1), (3, 1))
    assert (layout.slots, layout.loose) == ((2, 3, 4, 1), ())
    assert layout.params == sum(p.numel() for p in net.cells[0].parameters())
    spans = sorted((b.start, b.start + b.count) for b in plan.params)
    assert spans[0][0] == 0
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    rows = describe_plan(layout, 64, 8, 8)
    assert [(row["sources"], row["edges"]) for row in rows] == [([0], 3), ([1], 2), ([2], 1)]
    # 1 and 9 taps, 4 x 4 channels, 6 edges, three products
    assert sum(row["flops"] for row in rows) == 2 * 3 * 10 * 16 * 6 * 64 * 64


def test_what_is_not_the_same_on_every_edge_runs_as_a_module():
    net = Supernet(SPACES["nasbench201"], channels=4, layers=1, in_channels=1)
    cell = net.cells[0]
    cell.mixed[4].ops[3] = nn.Conv2d(4, 4, 3, padding=1)
    assert plan_cell(cell, 4).layout.loose == (3,)
    for mixed in cell.mixed:
        mixed.ops[2] = mixed.ops[3] = nn.Identity()
    assert plan_cell(cell, 4).layout is None


def test_affine_and_even_convolutions_have_no_form():
    from darts_core.ops.conv import ReluConvNorm

    assert branch_of(ReluConvNorm(2, 2, 5, 1, affine=False)).filters == ((5, 1),)
    assert branch_of(ReluConvNorm(2, 2, 5, 1, affine=True)) is None
    assert branch_of(ReluConvNorm(2, 2, 4, 1, affine=False)) is None


@pytest.mark.parametrize("fraction", [1, 2])
def test_lean_and_plain_sums_agree(fraction):
    space = dataclasses.replace(SPACES["mixed"], norm_after_pool=False)
    mixed = MixedOp(space.ops, 4, 2, norm_after_pool=False, channel_fraction=fraction).double()
    lean = copy.deepcopy(mixed)
    lean.lean = True
    x, weights = torch.randn(2, 4, 6, 6).double(), torch.rand(8).double().requires_grad_()
    right, found = mixed(x, weights), lean(x, weights)
    assert torch.allclose(found, right, atol=1e-12)
    exact = torch.autograd.grad(right.square().sum(), [weights, *mixed.parameters()])
    grads = torch.autograd.grad(found.square().sum(), [weights, *lean.parameters()])
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(grads, exact, strict=True))


def test_lean_sum_needs_no_triton_where_there_is_no_gpu(monkeypatch):
    """There is none for macOS, where NAS-Bench-201 is searched on a CPU."""
    for name in ("triton", "darts_kernels.weighted_sum"):
        monkeypatch.setitem(sys.modules, name, None)
    weight, x, base = torch.rand(()), torch.randn(3), torch.randn(3)
    assert torch.equal(lean_sum([(weight, x)], base), base + weight * x)


def test_partial_channels_need_no_triton_where_there_is_no_gpu(monkeypatch):
    for name in ("triton", "darts_kernels.partial"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "darts_kernels.join", raising=False)
    space = get_space("nasbench201")
    net = Supernet(space, channels=8, layers=1, in_channels=1, relaxation=PartialChannels())
    assert net.use_path("auto") == "batched"
    assert isinstance(net.cells[0], BatchedDenseCell)
    assert net(torch.randn(2, 1, 8, 8)).isfinite().all()


def test_lean_sum_takes_any_number_of_terms():
    xs, weights = torch.randn(40, 2, 3).double(), torch.rand(40).double()
    base = torch.randn(2, 3).double()
    found = lean_sum(list(zip(weights, xs, strict=True)), base)
    assert torch.allclose(found, base + torch.einsum("k,kij->ij", weights, xs))
    assert lean_sum([], base) is base
    with pytest.raises(ValueError, match="at least one"):
        lean_sum([])


def test_explain_prints_the_waves(capsys):
    from darts_core.cli import main

    arguments = ["space=nasbench201", "layers=1", "channels=4", "size=8", "bandwidth=10"]
    assert main(["explain", *arguments]) == 0
    out = capsys.readouterr().out
    assert "wave 0: from states [0], 3 edges" in out
    assert "floor" in out
    assert "module by module" not in out
