"""The generic weighted sum."""

import pytest
import torch

from darts_kernels import weighted_sum as op
from darts_kernels.testing import assert_matches
from darts_kernels.weighted_sum import weighted_sum, weighted_sum_reference


def inputs(count=4, shape=(3, 5, 7), dtype=torch.float64):
    xs = [torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(count)]
    return xs, torch.randn(count, dtype=dtype, requires_grad=True)


def test_values_and_gradients(rng):
    xs, weights = inputs()
    assert torch.allclose(weighted_sum(xs, weights), weighted_sum_reference(xs, weights))
    assert torch.autograd.gradcheck(lambda w, *x: weighted_sum(x, w), (weights, *xs))


def test_one_hot_and_permutation(rng):
    xs, weights = inputs()
    one_hot = torch.eye(4, dtype=torch.float64)[2]
    assert torch.equal(weighted_sum(xs, one_hot), xs[2])
    order = [2, 0, 3, 1]
    permuted = weighted_sum([xs[i] for i in order], weights[order])
    assert torch.allclose(permuted, weighted_sum(xs, weights))


def test_registration(rng):
    xs, weights = inputs(3, (2, 3), torch.float32)
    torch.library.opcheck(op._weighted_sum, (xs, weights))


def test_frozen_weights_keep_no_inputs(rng):
    xs, weights = inputs()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        out = weighted_sum(xs, weights.detach())
    assert [t.shape for t in kept] == [weights.shape]
    grads = torch.autograd.grad(out.sum(), xs)
    assert all(
        torch.equal(g, torch.full_like(g, w.item())) for g, w in zip(grads, weights, strict=True)
    )


def test_only_wanted_gradients(rng):
    xs, weights = inputs()
    xs[1] = xs[1].detach()
    grad = torch.randn_like(xs[0])
    out = weighted_sum(xs, weights)
    right = torch.autograd.grad(weighted_sum_reference(xs, weights), [weights, xs[0], xs[3]], grad)
    for a, b in zip(torch.autograd.grad(out, [weights, xs[0], xs[3]], grad), right, strict=True):
        assert torch.allclose(a, b)


def test_the_launchers_keep_the_digits_of_fp64(rng):
    # one part in 2^30: a sum in fp32 would round it away
    xs = [torch.tensor([1.0], dtype=torch.float64), torch.tensor([2.0**-30], dtype=torch.float64)]
    weights = torch.ones(2, dtype=torch.float64)
    assert op._forward(xs, weights).item() == 1.0 + 2.0**-30
    (dx,), dweights = op._backward(xs[0] + xs[1], xs, weights, [True, False], True)
    assert dx.item() == 1.0 + 2.0**-30
    assert dweights.tolist() == [1.0 + 2.0**-30, (1.0 + 2.0**-30) * 2.0**-30]


def test_channels_last_stays(rng):
    xs, weights = inputs(3, (2, 4, 5, 3))
    last = [x.detach().contiguous(memory_format=torch.channels_last) for x in xs]
    out = weighted_sum(last, weights)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(out, weighted_sum_reference(xs, weights))


@pytest.mark.parametrize(
    ("count", "weights", "message"),
    [(0, 0, "1 to 16"), (17, 17, "1 to 16"), (3, 2, r"need weights \[3\]")],
)
def test_wrong_arguments(count, weights, message):
    with pytest.raises(ValueError, match=message):
        weighted_sum([torch.ones(2)] * count, torch.ones(weights))


def test_mixed_dtypes_are_refused():
    with pytest.raises(ValueError, match="one shape, dtype"):
        weighted_sum([torch.ones(2), torch.ones(2, dtype=torch.float64)], torch.ones(2))


@pytest.mark.interpret
@pytest.mark.parametrize(("count", "shape"), [(1, (1,)), (3, (2, 5, 7)), (4, (1031,)), (2, (0, 3))])
def test_bodies(rng, poison, count, shape):
    xs = [torch.randn(shape) for _ in range(count)]
    weights, grad = torch.randn(count), torch.randn(shape)
    assert_matches(op._forward(xs, weights), weighted_sum_reference(xs, weights))
    grads, grad_weights = op._backward(grad, xs, weights, [True] * count, True)
    for k in range(count):
        assert_matches(grads[k], weights[k] * grad)
    right = torch.stack([(grad.double() * x.double()).sum() for x in xs])
    assert torch.allclose(grad_weights.double(), right, atol=1e-4)


@pytest.mark.interpret
@pytest.mark.parametrize("wanted", [[True, False, True], [False, False, True]])
def test_bodies_with_frozen_weights(rng, poison, wanted):
    weights, grad = torch.randn(3), torch.randn(1100)
    before = grad.clone()
    grads, _ = op._backward(grad, [], weights, wanted, False)
    right = [weights[k] * grad for k in range(3) if wanted[k]]
    for found, exact in zip(grads, right, strict=True):
        assert_matches(found, exact)
    assert torch.equal(grad, before)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_on_the_gpu(rng, poison, dtype):
    xs = [torch.randn(64, 16, 31, 33, device="cuda").to(dtype).requires_grad_() for _ in range(5)]
    weights = torch.randn(5, device="cuda", requires_grad=True)
    out, grad = weighted_sum(xs, weights), torch.randn(64, 16, 31, 33, device="cuda").to(dtype)
    exact_xs = [x.detach().double().requires_grad_() for x in xs]
    exact_weights = weights.detach().double().requires_grad_()
    exact = weighted_sum_reference(exact_xs, exact_weights)
    plain = weighted_sum_reference(xs, weights)
    assert_matches(out, exact, plain)
    found = torch.autograd.grad(out, [weights, *xs], grad)
    right = torch.autograd.grad(exact, [exact_weights, *exact_xs], grad.double())
    usual = torch.autograd.grad(plain, [weights, *xs], grad)
    for f, r, u in zip(found, right, usual, strict=True):
        assert_matches(f, r, u)
