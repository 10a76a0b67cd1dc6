"""Dense convolutions of all edges of a state, their norms and sums."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from darts_core.spaces import get_space
from darts_kernels.dense import SourceRun, source_sum, source_sum_reference
from darts_kernels.moments import column_moments, column_moments_reference
from darts_kernels.relu_conv import relu_conv
from darts_kernels.testing import assert_matches

from .cells import away_from_zero, check_cell, make_cell

NASBENCH201 = get_space("nasbench201").ops


def tensors(edges, filters, pools, skip, present, *, channels, size=(5, 4), batch=2):
    """Weights, convolutions, pools, skip and sums in fp64."""

    def draw(width):
        return torch.randn(batch, width, *size, dtype=torch.float64, requires_grad=True)

    return (
        torch.rand(edges, filters + pools + skip, dtype=torch.float64, requires_grad=True),
        [draw(edges * channels) for _ in range(filters)],
        [draw(channels) for _ in range(pools)],
        draw(channels) if skip else None,
        [draw(channels) if there else None for there in present],
    )


def leaves(weights, ys, pools, skip, before):
    return [weights, *ys, *pools, *(x for x in (skip, *before) if x is not None)]


def low(case, device="cpu", dtype=torch.float32):
    def one(x, kind=dtype):
        return None if x is None else x.detach().to(device, kind).requires_grad_()

    weights, ys, pools, skip, before = case
    return (one(weights, torch.float32), [one(y) for y in ys], [one(q) for q in pools], one(skip),
            [one(x) for x in before])  # fmt: skip


def statistics(case, channels, pool_norm):
    weights, ys, pools, *_ = case
    rows = (len(weights) * len(ys) + pool_norm * len(pools)) * channels
    return torch.zeros(rows), torch.ones(rows)


def test_reference_is_the_modules(rng):
    weights, ys, pools, skip, before = tensors(2, 2, 1, True, [True, False], channels=3)
    norm = nn.BatchNorm2d(3, affine=False).double()
    for pool_norm in (False, True):
        outs = source_sum_reference(weights, ys, pools, skip, before, pool_norm=pool_norm)
        for e in range(2):
            terms = [norm(y[:, 3 * e : 3 * e + 3]) for y in ys]
            terms += [norm(pools[0]) if pool_norm else pools[0], skip]
            right = sum(w * term for w, term in zip(weights[e], terms, strict=True))
            right = right + before[e] if e == 0 else right
            assert torch.allclose(outs[e], right, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_are_those_of_torch(rng, stride):
    x = away_from_zero((2, 3, 7, 6), rng).double().requires_grad_()
    weights = [torch.randn(n, 3, k, k).double().requires_grad_() for n, k in ((6, 1), (3, 3))]
    found = relu_conv(x, weights, [1, 2], stride, tf32=False)
    z = F.relu(x)
    right = [F.conv2d(z, weights[0], None, stride), F.conv2d(z, weights[1], None, stride, 2, 2)]
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(found, right, strict=True))
    grads = [torch.randn_like(y) for y in right]
    exact = torch.autograd.grad(right, [x, *weights], grads)
    for a, b in zip(torch.autograd.grad(found, [x, *weights], grads), exact, strict=True):
        assert torch.allclose(a, b, atol=1e-10)
    frozen = relu_conv(x, [w.detach() for w in weights], [1, 2], stride, tf32=False)
    assert torch.allclose(torch.autograd.grad(frozen, x, grads)[0], exact[0], atol=1e-10)
    assert not torch.backends.cudnn.deterministic, "the process's setting came back"


def test_wrong_arguments():
    run, y = SourceRun(torch.zeros(2), torch.ones(2)), torch.ones(1, 2, 2, 2)
    for ys, sums in (([], [None]), ([y], [None]), ([y, y], [None, None])):
        with pytest.raises(ValueError, match="source_sum got"):
            source_sum(run, torch.ones(1, 2), ys, [], None, sums)


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
    # edges, convolutions, pools, skip, sums before, channels, normalised pools
    (3, 2, 1, True, [True, False, True], 5, False),
    (1, 1, 2, False, [False], 3, True),
    (2, 2, 2, True, [False, True], 18, True),
    (1, 1, 0, False, [True], 4, False),
]


@pytest.mark.interpret
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("several_steps", [False, True])
def test_bodies(rng, poison, monkeypatch, case, several_steps):
    from darts_kernels import dense

    if several_steps:
        monkeypatch.setattr(dense, "_MOST_PARTS", 1)
        monkeypatch.setattr(dense._Sizes, "block", 16)
    *shape, channels, pool_norm = case
    exact = tensors(*shape, channels=channels)
    right = source_sum_reference(*exact, pool_norm=pool_norm)
    grads = [torch.randn_like(out) for out in right]
    exact_grads = torch.autograd.grad(right, leaves(*exact), grads)
    here = low(exact)
    mean, var = statistics(exact, channels, pool_norm)
    found = source_sum(SourceRun(mean, var, pool_norm=pool_norm), *here)
    for out, exact_out in zip(found, right, strict=True):
        assert_matches(out, exact_out, name="sum")
    found_grads = torch.autograd.grad(found, leaves(*here), [g.float() for g in grads])
    for gradient, exact_gradient in zip(found_grads, exact_grads, strict=True):
        assert_matches(gradient, exact_gradient, name="gradient")
    norm = nn.BatchNorm2d(mean.numel(), affine=False).double()
    norm(torch.cat([*exact[1], *(exact[2] if pool_norm else [])], dim=1).detach())
    assert_matches(mean, norm.running_mean, name="running mean")
    assert_matches(var, norm.running_var, name="running variance")


@pytest.mark.interpret
def test_running_statistics_in_evaluation(rng, poison):
    exact = tensors(2, 1, 1, True, [False, False], channels=3)
    here = low(exact)
    mean, var = torch.randn(9), torch.rand(9) + 0.5
    run = SourceRun(mean.clone(), var.clone(), 0.0, train=False, pool_norm=True)
    found = source_sum(run, *here)
    weights, (y,), (q,), skip, _ = exact
    scale = lambda x, rows: F.batch_norm(x, mean[rows].double(), var[rows].double())  # noqa: E731
    parts = scale(y, slice(0, 6)).chunk(2, 1)
    pool = scale(q, slice(6, 9))
    right = [
        w[0] * part + w[1] * pool + w[2] * skip for w, part in zip(weights, parts, strict=True)
    ]
    grads = [torch.randn_like(out) for out in right]
    for out, exact_out in zip(found, right, strict=True):
        assert_matches(out, exact_out)
    usual = torch.autograd.grad(right, leaves(*exact), grads)
    kernel = torch.autograd.grad(found, leaves(*here), [g.float() for g in grads])
    for gradient, exact_gradient in zip(kernel, usual, strict=True):
        assert_matches(gradient, exact_gradient)
    assert torch.equal(run.running_mean, mean)


@pytest.mark.interpret
def test_the_nasbench201_cell(rng, poison):
    check_cell(make_cell(NASBENCH201, channels=3, nodes=3), rng)


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
