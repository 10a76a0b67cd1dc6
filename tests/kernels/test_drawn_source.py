"""Sparse weights of cells with dense convolutions: what is not drawn is neither written nor read."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from darts_core.relax import GumbelStraightThrough
from darts_core.spaces import get_space
from darts_core.supernet import Supernet
from darts_kernels import source as source_file
from darts_kernels.conv_stats import ConvShape
from darts_kernels.drawn import source_flags, source_flags_reference
from darts_kernels.source import source, source_reference
from darts_kernels.source_pool import source_pool, source_pool_reference
from darts_kernels.testing import assert_matches

from .cells import away_from_zero, check_cell, make_cell
from .test_dense import CASES, case, check_gradients, leaves, low

NASBENCH201 = get_space("nasbench201").ops
MIXED = ["nor_conv_3x3", "nor_conv_1x1", "max_pool_3x3", "avg_pool_3x3", "none", "skip_connect"]


def one_hot(mix, columns):
    """`mix` with all but one column of each row zero (-1: the whole row)."""
    mask = torch.tensor([[k == drawn for k in range(mix.shape[1])] for drawn in columns])
    return (mix.detach() * mask.to(mix)).requires_grad_()


def test_reference_of_the_flags():
    mix = torch.tensor([[0.0, 2.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.5]])
    # two convolutions of two edges, then a pool and a skip
    assert source_flags_reference(mix, 2).tolist() == [0, 1, 1, 0, 0, 1]


def test_flags_are_the_references(device, rng, poison):
    for filters, slots in ((1, 1), (2, 4), (3, 4)):
        mix = torch.rand(3, slots, generator=rng) * (torch.rand(3, slots, generator=rng) < 0.4)
        found = source_flags(mix.to(device), filters)
        assert torch.equal(found.cpu(), source_flags_reference(mix, filters))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "maximum"), [(3, False), (5, False), (3, True), (5, True)])
def test_pools(device, rng, poison, stride, kernel, maximum):
    x = away_from_zero((2, 5, 7, 6), rng).to(device).contiguous(memory_format=torch.channels_last)
    flags = torch.tensor([0, 1], dtype=torch.int32, device=device)
    right, where = source_pool_reference(x.double(), kernel, stride, maximum=maximum)
    found, places = source_pool(x, kernel, stride, flags[1:], maximum=maximum)
    assert_matches(found, right)
    assert (places is None) == (where is None)
    assert places is None or torch.equal(places, where)
    nothing, _ = source_pool(x, kernel, stride, flags[:1], maximum=maximum)
    assert nothing.isnan().all(), "a pool that is not drawn was written"


def drawn_case(columns, **options):
    """`case` with one-hot mixing weights, sparse and in all operations."""
    run, mix, *rest = case(edges=len(columns), **options)
    return (dataclasses.replace(run, sparse=True), one_hot(mix, columns), *rest)


# columns: the convolutions, max pools, average pools, skip
DRAWS = [(0, 1), (1, -1), (2, 0), (-1, -1), (2, 2)]


@pytest.fixture(params=[False, True])
def several_steps(request, monkeypatch):
    """Small tiles of which a program takes several, or the usual ones."""
    if request.param:
        from darts_kernels import conv_backward, conv_stats, dense

        monkeypatch.setattr(dense, "_MOST_PARTS", 1)
        monkeypatch.setattr(dense.Branches, "block", 16)
        monkeypatch.setattr(ConvShape, "block", 16)
        monkeypatch.setattr(conv_stats, "_MOST_PARTS", 2)
        monkeypatch.setattr(conv_backward, "_PROGRAMS", 8)


@pytest.mark.parametrize("options", [o for o in CASES if o.get("edges", 2) > 1])
@pytest.mark.parametrize("columns", DRAWS)
def test_bodies(device, rng, poison, several_steps, options, columns):
    options = {k: v for k, v in options.items() if k != "edges"}
    if "before" in options:
        options["before"] = tuple(e for e in options["before"] if e < 2)
    exact = drawn_case(columns, **options)
    if all(column < 0 for column in columns) and not options.get("before"):
        exact[1].data[0, 0] = 1e-3  # something must reach the sums
    check_source(exact, device)


def test_filters_may_lie_in_any_memory_format(monkeypatch):
    given = []

    def apply(run, mix, present, x, *tensors):
        given.extend(tensors)
        return ()

    monkeypatch.setattr(source_file, "_Source", SimpleNamespace(apply=apply))
    run, mix, x, weights, before = drawn_case((0, 1))
    assert max(w.shape[-1] for w in weights) > 1
    last = [w.detach().contiguous(memory_format=torch.channels_last) for w in weights]
    source(run, mix, x, last, before)
    assert len(given) >= len(weights)
    for found, exact in zip(given, weights, strict=False):
        assert found.is_contiguous()
        assert torch.equal(found, exact)


def test_several_operations_of_an_edge(device, rng, poison):
    run, mix, *rest = case(edges=2, channels=18, avg_pools=(3,), max_pools=(3,), pool_norm=True)
    mix = (mix.detach() * torch.tensor([[1, 1, 0, 1, 0], [0, 1, 0, 0, 1.0]])).requires_grad_()
    check_source((dataclasses.replace(run, sparse=True), mix, *rest), device)


def check_source(exact, device):
    """Sums, gradients and running statistics against all operations in fp64, of which most have weight 0."""
    run, mix = exact[0], exact[1]
    right = source_reference(*exact)
    grads = [torch.randn_like(out) for out in right]
    exact_grads = list(torch.autograd.grad(right, leaves(*exact), grads))
    exact_grads[0] = exact_grads[0] * (mix.detach() != 0)
    here, usual = low(*exact), low(*exact)
    plain = source_reference(*usual)
    plain_grads = torch.autograd.grad(plain, leaves(*usual), [g.float() for g in grads])
    run = dataclasses.replace(
        run, running_mean=run.running_mean.to(device), running_var=run.running_var.to(device)
    )
    there = (run, *(on(t, device) for t in here[1:]))
    found = source(*there)
    for out, exact_out, plain_out in zip(found, right, plain, strict=True):
        assert_matches(out, exact_out, plain_out, floor=2e-6, name="sum")
    found_grads = torch.autograd.grad(found, leaves(*there), [g.float().to(device) for g in grads])
    floor_grads = [g.cpu() for g in found_grads]
    check_gradients_where(floor_grads, exact_grads, grads, plain_grads)
    live = source_flags_reference(mix.detach(), len(run.dilations)).bool()
    channels = exact[2].shape[1]
    rows = live[: run.running_mean.numel() // channels].repeat_interleave(channels).to(device)
    assert (run.running_mean[~rows] == 0).all()
    assert (run.running_var[~rows] == 1).all()
    assert (run.running_var[rows] != 1).all()


def check_gradients_where(found, exact, grads, plain):
    """Gradients that are zero must be so exactly; the others within the budget."""
    kept = [i for i, g in enumerate(exact) if i == 0 or g.any()]
    for i, gradient in enumerate(found):
        assert i in kept or not gradient.any(), f"gradient {i} of what is not drawn"
    check_gradients(*([part[i] for i in kept] for part in (found, exact)), grads,
                    [plain[i] for i in kept])  # fmt: skip
    assert not found[0][exact[0] == 0].any(), "mixing weights of what is not drawn"


def on(value, device):
    if isinstance(value, list):
        return [on(item, device) for item in value]
    return None if value is None else value.detach().to(device).requires_grad_()


def test_evaluation_and_frozen_params(device, rng, poison):
    exact = drawn_case((1, 2), avg_pools=(3,), pool_norm=True)
    run, mix, x, weights, before = low(*exact)
    rows = run.running_mean.numel()
    mean, var = torch.randn(rows).to(device), torch.rand(rows).to(device) + 0.5
    fixed = dataclasses.replace(run, running_mean=mean, running_var=var, momentum=0.0, train=False)
    mix, x, weights = on(mix, device), on(x, device), on(weights, device)
    outs = source(fixed, mix, x, [w.detach() for w in weights], before)
    all_of_them = dataclasses.replace(fixed, sparse=False)
    right = source(all_of_them, mix, x, [w.detach() for w in weights], before)
    grads = [torch.randn_like(out) for out in outs]
    for found, usual in zip(outs, right, strict=True):
        assert_matches(found, usual, floor=5e-6)
    found, usual = (torch.autograd.grad(o, [mix, x], grads) for o in (outs, right))
    assert_matches(found[0], usual[0] * (mix != 0), floor=1e-5)
    assert_matches(found[1], usual[1], floor=1e-5)


# of the edges 0-1, 0-2, 1-2, 0-3, 1-3, 2-3: none, skip, 1x1, 3x3, average pool
@pytest.mark.parametrize("drawn", [(3, 2, 4, 1, 3, 0), (2, 0, 3, 4, 1, 2), (1, 3, 3, 0, 0, 4)])
def test_the_nasbench201_cell(device, rng, poison, drawn):
    cell = make_cell(NASBENCH201, channels=3, nodes=3)
    check_cell(cell, rng, device=device, drawn=drawn, floor=1e-5)


# of the edges 0-2, 1-2, 0-3, 1-3, 2-3; no relu behind a pool alone, whose even steps may normalise to 0
@pytest.mark.parametrize(
    ("reduces", "drawn"),
    [
        (False, (0, 2, 3, 5, 1)),
        (False, (2, 5, 1, 3, 0)),
        (True, (0, 2, 3, 1, 1)),
        (True, (2, 0, 1, 3, 0)),
        (True, (1, 4, 4, 3, 2)),
    ],
)
def test_a_cell_with_pools_and_reductions(device, rng, poison, reduces, drawn):
    # a strided identity is a module, which is evaluated under the mask
    ops = MIXED[:-1] if reduces else MIXED
    cell = make_cell(ops, channels=4, inputs=2, nodes=2, reduces=reduces)
    # a running mean near zero has fewer digits than the convolution
    check_cell(cell, rng, device=device, height=6, width=5, drawn=drawn, floor=1e-5)


def test_partial_channels(device, rng, poison):
    ops = ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3"]
    cell = make_cell(ops, channels=4, nodes=2, inputs=2, groups=2)
    check_cell(cell, rng, device=device, height=5, width=6, drawn=(3, 2, 1, 0, 3), floor=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize(("channels", "side"), [(16, 32), (64, 8), (20, 15)])
def test_the_nasbench201_cell_on_the_gpu(rng, poison, precision, channels, side):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    floor = {"fp32": 5e-4, "tf32": 5e-3, "bf16": 2e-2}[precision]
    cell = make_cell(NASBENCH201, channels=channels, nodes=3, norm_after_pool=False)
    check_cell(cell, rng, batch=16, height=side, width=side, device="cuda", precision=precision,
               drawn=(3, 2, 4, 1, 3, 2), floor=floor)  # fmt: skip


@pytest.mark.gpu
def test_a_drawn_nasbench201_step_waits_for_nothing_and_is_recorded(rng):
    from darts_core.search.captured import CapturedStep
    from darts_core.strategies import FirstOrder, SearchSettings

    net = Supernet(
        get_space("nasbench201"), channels=8, layers=1, relaxation=GumbelStraightThrough()
    )
    net.cuda().train().use_path("fused")
    x = torch.randn(8, 3, 16, 16, device="cuda")
    net(x).square().sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        net(x).square().sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    strategy = FirstOrder()
    strategy.setup(net, SearchSettings(), [])
    batches = [(torch.randn(8, 3, 16, 16).cuda(), torch.randint(10, (8,)).cuda()) for _ in range(2)]
    step = CapturedStep(strategy, tuple(batches))
    losses = [float(step(*batches).params_loss) for _ in range(5)]
    assert step._graphs, "the step ran without a graph"
    assert all(loss == loss for loss in losses)
