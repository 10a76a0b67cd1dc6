"""The calls that the batched path is made of, against plain torch in fp64."""

import pytest
import torch
import torch.nn.functional as F

from darts_core.supernet.batched_run import inside, outside, samples_of
from darts_core.supernet.mixing import EPSILON, Norms, Term, mix, moments, norm_relu
from darts_core.supernet.separable import Branch, separable

FILTERS = [(1, 1), (3, 1), (5, 1), (3, 2), (5, 2), (7, 3)]


def numbers(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def assert_same(found, right):
    for a, b in zip(found, right, strict=True):
        assert torch.allclose(a, b, atol=1e-10)


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (2, 3), (1, 1)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("samples", "channels"), [(2, 4), (1, 16), (3, 2)])
def test_separable_convolutions(size, stride, samples, channels):
    xs = [numbers(2 * samples, channels, *size) for _ in range(2)]
    taps = numbers(2, channels * sum(kernel**2 for kernel, _ in FILTERS))
    points = numbers(2, len(FILTERS), channels, channels)
    branches = [Branch(edge, edge, f) for edge in range(2) for f in range(len(FILTERS))]
    right = []
    for branch in branches:
        (kernel, dilation), before = FILTERS[branch.filter], FILTERS[: branch.filter]
        start = channels * sum(k**2 for k, _ in before)
        weight = taps[branch.edge, start : start + channels * kernel**2]
        padding = kernel // 2 * dilation
        weight = weight.view(channels, 1, kernel, kernel)
        d = F.conv2d(xs[branch.of], weight, None, stride, padding, dilation, channels)
        right.append(F.conv2d(d, points[branch.edge, branch.filter][:, :, None, None]))
    zs = [inside(x, samples) for x in xs]
    images = separable(zs, branches, FILTERS, stride, taps, points, samples)
    found = [outside([image], samples) for image in images]
    grads = [torch.randn_like(y) for y in right]
    leaves = [*xs, taps, points]
    wanted = torch.autograd.grad(right, leaves, grads)
    assert_same(found, right)
    assert_same(torch.autograd.grad(found, leaves, grads), wanted)


@pytest.mark.parametrize("batch", [True, False])
def test_norms_are_formed_by_those_who_read_them(batch):
    groups, samples, channels = 2, 3, 4
    xs = [numbers(groups * samples, channels, 5, 6) for _ in range(3)]
    ys = [inside(2 * x + 1, samples) for x in xs]
    mean, var = torch.randn(2, channels).double(), torch.rand(2, channels).double() + 0.5
    if batch:
        mean, var = moments([y.detach() for y in ys[:2]], samples)
        assert_same([mean[0]], [(2 * xs[0].detach() + 1).mean((0, 2, 3))])
    norms = Norms(mean, (var + EPSILON).rsqrt(), batch)
    normed = [
        F.batch_norm(2 * x + 1, mean[i].clone(), var[i].clone(), training=batch, eps=EPSILON)
        for i, x in enumerate(xs[:2])
    ]
    normed.append(2 * xs[2] + 1)
    terms = [Term(0, 0), Term(1, 1), Term(1, 0), Term(2, 0), Term(2, 1)]
    weights = numbers(len(terms))
    right = [
        sum(weights[i] * normed[term.of] for i, term in enumerate(terms) if term.to == target)
        for target in range(2)
    ]
    found = [outside([image], samples) for image in mix(ys, terms, weights, norms)]
    right.append(normed[1].relu())
    found.append(outside(norm_relu(ys[1:2], norms.of([1])), samples))
    grads = [torch.randn_like(y) for y in right]
    wanted = torch.autograd.grad(right, [weights, *xs], grads)
    assert_same(found, right)
    assert_same(torch.autograd.grad(found, [weights, *xs], grads), wanted)


@pytest.mark.parametrize(
    ("batch", "channels", "samples"),
    [(1, 2, 1), (7, 8, 7), (7, 64, 1), (30, 8, 15), (32, 2, 32), (64, 2, 64), (64, 64, 2), (64, 256, 1)],
)  # fmt: skip
def test_as_many_samples_lie_beside_each_other_as_divide_the_batch_and_have_room(
    batch, channels, samples, monkeypatch
):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert samples_of(batch, channels) == samples
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert samples_of(batch, channels) == 1
