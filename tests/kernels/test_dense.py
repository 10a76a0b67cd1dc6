"""Dense convolutions of all edges of a state, their norms and sums."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from darts_core.spaces import get_space
from darts_kernels.moments import column_moments, column_moments_reference
from darts_kernels.relu_conv import conv_backward, conv_forward, relu_conv_reference
from darts_kernels.source import source, source_reference
from darts_kernels.source_run import SourceRun
from darts_kernels.testing import assert_matches

from .cells import away_from_zero, check_cell, make_cell

NASBENCH201 = get_space("nasbench201").ops


def case(*, channels=3, edges=2, kernels=(1, 3), skip=True, before=(), size=(5, 4), batch=2, **run):
    """A run, mixing weights, a state, convolutions' weights and sums, in fp64."""
    rng = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
    run = {"dilations": (1,) * len(kernels), "skip": skip, **run}
    pools = len(run.get("max_pools", ())) + len(run.get("avg_pools", ()))
    rows = (edges * len(kernels) + (pools if run.get("pool_norm") else 0)) * channels
    made = SourceRun(torch.zeros(rows), torch.ones(rows), **run)

    def draw(*shape):
        return torch.randn(shape, generator=rng, dtype=torch.float64).requires_grad_()

    out = [-(-length // made.stride) for length in size]
    x = away_from_zero((batch, channels, *size), rng).double().requires_grad_()
    return (
        made,
        torch.rand(edges, made.slots, generator=rng, dtype=torch.float64).requires_grad_(),
        x,
        [draw(edges * channels, channels, k, k) for k in kernels],
        [draw(batch, channels, *out) if e in before else None for e in range(edges)],
    )


def leaves(_, mix, x, weights, before):
    return [mix, x, *weights, *(t for t in before if t is not None)]


def low(run, mix, x, weights, before):
    def one(t):
        return None if t is None else t.detach().float().requires_grad_()

    return run, one(mix), one(x), [one(w) for w in weights], [one(t) for t in before]


def check_gradients(found, exact, grads, plain=None):
    """Mixing weights first: sums whose terms may cancel, so their error is judged by the terms' size."""
    size = sum(float(g.norm()) for g in grads) * grads[0].numel() ** 0.5
    assert (found[0].double() - exact[0]).abs().max() <= 2e-7 * size, "mixing weights"
    for i in range(1, len(exact)):
        usual = None if plain is None else plain[i]
        assert_matches(found[i], exact[i], usual, floor=2e-6, name=f"gradient {i}")


def test_reference_is_the_modules(rng):
    for pool_norm in (False, True):
        given = case(max_pools=(3,), avg_pools=(3,), before=(0,), pool_norm=pool_norm)
        _, mix, x, weights, before = given
        norm = nn.BatchNorm2d(3, affine=False).double()
        for e, out in enumerate(source_reference(*given)):
            rows = slice(3 * e, 3 * e + 3)
            z = x.relu()
            terms = [
                norm(F.conv2d(z, weights[0][rows])),
                norm(F.conv2d(z, weights[1][rows], padding=1)),
            ]
            pools = [F.max_pool2d(x, 3, 1, 1), F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)]
            terms += [norm(q) if pool_norm else q for q in pools] + [x]
            right = sum(w * term for w, term in zip(mix[e], terms, strict=True))
            right = right if before[e] is None else right + before[e]
            assert torch.allclose(out, right, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_are_those_of_torch(rng, stride):
    x = away_from_zero((2, 3, 7, 6), rng).double().requires_grad_()
    weights = [torch.randn(n, 3, k, k).double().requires_grad_() for n, k in ((6, 1), (3, 3))]
    right = relu_conv_reference(x, weights, [1, 2], stride)
    found = conv_forward(x, weights, [1, 2], stride, tf32=False)
    assert all(torch.equal(a, b) for a, b in zip(found, right, strict=True))
    grads = [torch.randn_like(y) for y in right]
    exact = torch.autograd.grad(right, [x, *weights], grads)
    for wants_x, wants_weights in ((True, True), (True, False), (False, True)):
        dzs, dweights = conv_backward(
            x.detach(), grads, weights, [1, 2], stride, tf32=False, wants_x=wants_x,
            wants_weights=wants_weights,
        )  # fmt: skip
        assert (len(dzs), len(dweights)) == (2 * wants_x, 2 * wants_weights)
        if wants_x:
            assert torch.allclose(sum(dzs) * (x > 0), exact[0], atol=1e-10)
        for a, b in zip(dweights, exact[1:], strict=False):
            assert torch.allclose(a, b, atol=1e-10)
    assert not torch.backends.cudnn.deterministic, "the process's setting came back"


def test_wrong_arguments():
    run, mix, x, weights, before = case()
    for wrong in ([], weights[:1]):
        with pytest.raises(ValueError, match="source got"):
            source(run, mix, x, wrong, before)
    with pytest.raises(ValueError, match="source got"):
        source(run, mix[:, 1:], x, weights, before)
    with pytest.raises(ValueError, match="stride 2"):
        source(dataclasses.replace(run, stride=2), mix, x, weights, before)


@pytest.mark.interpret
@pytest.mark.parametrize(("block", "steps"), [(64, 1), (16, 4), (8, 3)])
def test_moments_of_large_means(rng, poison, block, steps):
    # a mean of a hundred deviations: E[x^2] - E[x]^2 in fp32 would lose half of the digits
    xs = [torch.randn(3, 20, 5, 4) + 100.0 for _ in range(2)]
    last = [x.contiguous(memory_format=torch.channels_last) for x in xs]
    found = column_moments(
        [(last, 20)], torch.zeros(40), torch.ones(40), momentum=0.1, train=True, pixels=60,
        block=block, steps=steps,
    )  # fmt: skip
    right = column_moments_reference([x.double() for x in xs])
    assert_matches(found[:, 0], right[:, 0])
    assert_matches(found[:, 1], right[:, 1], floor=2e-6)


CASES = [
    {"channels": 5, "edges": 3, "avg_pools": (3,), "before": (0, 2)},
    {
        "edges": 1,
        "kernels": (3,),
        "max_pools": (3,),
        "avg_pools": (5,),
        "pool_norm": True,
        "skip": False,
    },
    {"channels": 18, "max_pools": (3,), "avg_pools": (3,), "pool_norm": True, "before": (1,)},
    {"edges": 1, "kernels": (1,), "skip": False, "before": (0,)},
    {"stride": 2, "dilations": (1, 2), "max_pools": (3, 5), "avg_pools": (3, 5), "skip": False},
]


@pytest.mark.interpret
@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("several_steps", [False, True])
def test_bodies(rng, poison, monkeypatch, options, several_steps):
    from darts_kernels import dense

    if several_steps:
        monkeypatch.setattr(dense, "_MOST_PARTS", 1)
        monkeypatch.setattr(dense.Branches, "block", 16)
    exact = case(**options)
    right = source_reference(*exact)
    grads = [torch.randn_like(out) for out in right]
    exact_grads = torch.autograd.grad(right, leaves(*exact), grads)
    here, usual = low(*exact), low(*exact)
    found, plain = source(*here), source_reference(*usual)
    for out, exact_out, plain_out in zip(found, right, plain, strict=True):
        assert_matches(out, exact_out, plain_out, name="sum")
    low_grads = [g.float() for g in grads]
    found_grads = torch.autograd.grad(found, leaves(*here), low_grads)
    plain_grads = torch.autograd.grad(plain, leaves(*usual), low_grads)
    check_gradients(found_grads, exact_grads, grads, plain_grads)
    run, _, x, weights, _ = exact
    norm = nn.BatchNorm2d(run.running_mean.numel(), affine=False).double()
    pools = [F.max_pool2d(x, k, run.stride, k // 2) for k in run.max_pools]
    pools += [
        F.avg_pool2d(x, k, run.stride, k // 2, count_include_pad=False) for k in run.avg_pools
    ]
    ys = relu_conv_reference(x, weights, run.dilations, run.stride)
    norm(torch.cat([*ys, *(pools if run.pool_norm else [])], dim=1).detach())
    assert_matches(run.running_mean, norm.running_mean, name="running mean")
    assert_matches(run.running_var, norm.running_var, name="running variance")


@pytest.mark.interpret
def test_only_wanted_gradients(rng, poison):
    exact = case(avg_pools=(3,))
    grads = [torch.randn_like(out) for out in source_reference(*exact)]
    right = torch.autograd.grad(source_reference(*exact), leaves(*exact), grads)
    for frozen in (("x",), ("weights",), ("x", "weights")):
        run, mix, x, weights, before = low(*exact)
        x.requires_grad_("x" not in frozen)
        for weight in weights:
            weight.requires_grad_("weights" not in frozen)
        wanted = [t for t in leaves(run, mix, x, weights, before) if t.requires_grad]
        kept = [r for r, t in zip(right, leaves(run, mix, x, weights, before), strict=True)
                if t.requires_grad]  # fmt: skip
        outs = source(run, mix, x, weights, before)
        found = torch.autograd.grad(outs, wanted, [g.float() for g in grads])
        check_gradients(found, kept, grads)


@pytest.mark.interpret
def test_running_statistics_in_evaluation(rng, poison):
    exact = case(kernels=(3,), avg_pools=(3,), pool_norm=True)
    run, mix, x, weights, _ = exact
    mean, var = torch.randn(9), torch.rand(9) + 0.5
    fixed = dataclasses.replace(
        run, running_mean=mean.clone(), running_var=var, momentum=0.0, train=False
    )
    here = low(fixed, *exact[1:])
    found = source(*here)
    stacked = torch.cat([F.conv2d(x.relu(), weights[0], padding=1),
                         F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)], 1)  # fmt: skip
    *parts, pool = F.batch_norm(stacked, mean.double(), var.double()).chunk(3, 1)
    right = [w[0] * part + w[1] * pool + w[2] * x for w, part in zip(mix, parts, strict=True)]
    grads = [torch.randn_like(out) for out in right]
    for out, exact_out in zip(found, right, strict=True):
        assert_matches(out, exact_out)
    usual = torch.autograd.grad(right, leaves(*exact), grads)
    kernel = torch.autograd.grad(found, leaves(*here), [g.float() for g in grads])
    check_gradients(kernel, usual, grads)
    assert torch.equal(fixed.running_mean, mean)


@pytest.mark.interpret
def test_the_nasbench201_cell(rng, poison):
    check_cell(make_cell(NASBENCH201, channels=3, nodes=3), rng)


@pytest.mark.parametrize("reduces", [False, True])
def test_partial_channels(device, rng, poison, reduces):
    ops = ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3"]
    cell = make_cell(ops, channels=4, nodes=2, inputs=2, groups=2, reduces=reduces)
    check_cell(cell, rng, device=device, height=5, width=6)


@pytest.mark.interpret
@pytest.mark.parametrize("reduces", [False, True])
def test_dense_convolutions_among_other_operations(rng, poison, reduces):
    ops = ["nor_conv_3x3", "dil_conv_3x3", "max_pool_3x3", "none", "skip_connect", "nor_conv_1x1"]
    cell = make_cell(ops, inputs=2, nodes=2, reduces=reduces, preprocess=True)
    check_cell(cell, rng, height=6, width=5)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize(("channels", "side"), [(16, 32), (64, 8), (20, 15)])
def test_the_nasbench201_cell_on_the_gpu(rng, poison, precision, channels, side):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    floor = {"fp32": 5e-4, "tf32": 5e-3, "bf16": 2e-2}[precision]
    cell = make_cell(NASBENCH201, channels=channels, nodes=3, norm_after_pool=False)
    check_cell(cell, rng, batch=16, height=side, width=side, device="cuda", precision=precision,
               floor=floor)  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize("reduces", [False, True])
def test_dense_among_other_operations_on_the_gpu(rng, poison, reduces):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    ops = ["nor_conv_3x3", "dil_conv_3x3", "max_pool_3x3", "none", "skip_connect", "nor_conv_1x1"]
    cell = make_cell(ops, channels=16, inputs=2, nodes=2, reduces=reduces, preprocess=True)
    check_cell(cell, rng, batch=8, height=16, width=16, device="cuda", floor=5e-4)


@pytest.mark.gpu
def test_a_nasbench201_step_is_recorded(rng):
    from darts_core.search.captured import CapturedStep
    from darts_core.strategies import FirstOrder, SearchSettings
    from darts_core.supernet import Supernet

    net = Supernet(get_space("nasbench201"), channels=8, layers=1).cuda().train()
    assert net.use_path("auto") == "fused"
    strategy = FirstOrder()
    strategy.setup(net, SearchSettings(), [])
    batches = [(torch.randn(8, 3, 16, 16).cuda(), torch.randint(10, (8,)).cuda()) for _ in range(2)]
    step = CapturedStep(strategy, tuple(batches))
    losses = [float(step(*batches).params_loss) for _ in range(10)]
    assert step._graphs, "the step ran without a graph"
    assert losses[-1] < losses[0]
