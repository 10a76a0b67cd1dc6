"""Each relaxation against a closed form, an enumeration, or a Monte-Carlo estimate."""

import itertools

import pytest
import torch

from darts_core.errors import ConfigError
from darts_core.relax import (
    Concrete,
    Dirichlet,
    GumbelStraightThrough,
    PartialChannels,
    ReinMax,
    Sigmoid,
    Softmax,
)
from darts_core.relax.dirichlet import dirichlet_kl_to_uniform
from darts_core.relax.reinmax import reinmax_gradient_path
from darts_core.spaces import get_space

ALL = [
    Softmax(),
    Sigmoid(),
    GumbelStraightThrough(),
    Concrete(),
    ReinMax(),
    Dirichlet(),
    PartialChannels(),
]
ROWS = 60_000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def many_rows(alpha):
    """One alpha row repeated, so that one call draws many samples."""
    return alpha.repeat(ROWS, 1)


ALPHA = torch.tensor([[0.7, -0.4, 0.1, 1.2]], dtype=torch.float64)


@pytest.mark.parametrize("relaxation", ALL, ids=lambda r: type(r).__name__)
def test_weights_are_finite_and_a_disallowed_operation_gets_neither_weight_nor_gradient(relaxation):
    free = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.zeros(5, 4, dtype=torch.bool)
    mask[1, 2] = mask[3, 0] = True
    alpha = free.masked_fill(mask, float("-inf"))
    weights = relaxation.weights(alpha, torch.tensor(0.5), generator())
    assert weights.shape == (5, 4)
    assert torch.isfinite(weights).all()
    assert (weights[mask] == 0).all()
    if not isinstance(relaxation, Sigmoid):
        torch.testing.assert_close(weights.sum(-1), torch.ones(5, dtype=torch.float64))
    (gradient,) = torch.autograd.grad((weights * torch.randn_like(weights)).sum(), free)
    assert torch.isfinite(gradient).all()
    assert (gradient[mask] == 0).all()
    assert gradient.abs().sum() > 0
    evaluated = relaxation.evaluate(alpha.detach())
    assert (evaluated[mask] == 0).all()
    penalty = relaxation.penalty({"cell": alpha})
    assert penalty is None or torch.isfinite(penalty)


@pytest.mark.parametrize("relaxation", ALL, ids=lambda r: type(r).__name__)
def test_the_same_generator_state_gives_the_same_weights(relaxation):
    first = relaxation.weights(ALPHA, 0.3, generator(7))
    torch.testing.assert_close(first, relaxation.weights(ALPHA, torch.tensor(0.3), generator(7)))


@pytest.mark.parametrize("relaxation", [GumbelStraightThrough(), ReinMax()])
def test_one_hot_samples_have_the_softmax_frequencies(relaxation):
    weights = relaxation.weights(many_rows(ALPHA), 0.5, generator())
    assert ((weights - weights.round()).abs() < 1e-12).all()
    expected = torch.softmax(ALPHA[0], 0)
    deviation = (expected * (1 - expected) / ROWS).sqrt()
    assert ((weights.mean(0) - expected).abs() < 5 * deviation).all()


def test_gumbel_gradient_is_that_of_the_tempered_softmax_at_the_same_noise():
    relaxation = GumbelStraightThrough(2.0, 1.0)
    alpha = ALPHA.clone().requires_grad_()
    upstream = torch.randn(1, 4, dtype=torch.float64)
    (found,) = torch.autograd.grad(
        (relaxation.weights(alpha, 0.5, generator(3)) * upstream).sum(), alpha
    )
    noise = -torch.empty_like(ALPHA).exponential_(generator=generator(3)).log()
    soft = torch.softmax((ALPHA + noise) / 1.5, -1)[0]
    jacobian = (torch.diag(soft) - torch.outer(soft, soft)) / 1.5
    torch.testing.assert_close(found[0], jacobian @ upstream[0])


def test_concrete_anneals_exponentially_and_its_largest_entry_has_the_softmax_frequencies():
    relaxation = Concrete(1.0, 0.25)
    assert relaxation.temperature(0.5) == pytest.approx(0.5)
    assert float(relaxation.temperature(torch.tensor(1.0))) == pytest.approx(0.25)
    weights = relaxation.weights(many_rows(ALPHA), 1.0, generator())
    frequencies = torch.nn.functional.one_hot(weights.argmax(-1), 4).double().mean(0)
    torch.testing.assert_close(frequencies, torch.softmax(ALPHA[0], 0), atol=0.01, rtol=0)


def test_concrete_at_a_low_temperature_averages_to_the_softmax():
    weights = Concrete(0.01, 0.01).weights(many_rows(ALPHA), 0.0, generator())
    torch.testing.assert_close(weights.mean(0), torch.softmax(ALPHA[0], 0), atol=0.01, rtol=0)


def quadratic(sample, matrix, vector):
    return 0.5 * sample @ matrix @ sample + vector @ sample


def test_reinmax_is_unbiased_for_a_quadratic_loss_and_straight_through_is_not():
    torch.manual_seed(1)
    half = torch.randn(4, 4, dtype=torch.float64)
    matrix, vector = half + half.T, torch.randn(4, dtype=torch.float64)
    alpha = ALPHA[0].clone().requires_grad_()
    probability = torch.softmax(alpha, 0)
    points = torch.eye(4, dtype=torch.float64)
    values = torch.stack([quadratic(point, matrix, vector) for point in points])
    (exact,) = torch.autograd.grad((probability * values).sum(), alpha)

    def expected(path):
        total = torch.zeros(4, dtype=torch.float64)
        for point, p in zip(points, probability.detach(), strict=True):
            leaf = ALPHA[0].clone().requires_grad_()
            (g,) = torch.autograd.grad(quadratic(path(leaf, point), matrix, vector), leaf)
            total += p * g
        return total

    def straight_through(leaf, point):
        soft = torch.softmax(leaf, 0)
        return point + soft - soft.detach()

    def heun(leaf, point):
        return reinmax_gradient_path(leaf[None], point[None], 1.0)[0]

    torch.testing.assert_close(expected(heun), exact)
    assert (expected(straight_through) - exact).norm() > 0.1 * exact.norm()


def test_dirichlet_samples_have_the_mean_and_variance_of_the_distribution():
    weights = Dirichlet().weights(many_rows(ALPHA), 0.0, generator())
    concentration = torch.nn.functional.elu(ALPHA[0]) + 1
    reference = torch.distributions.Dirichlet(concentration)
    torch.testing.assert_close(weights.mean(0), reference.mean, atol=0.005, rtol=0)
    torch.testing.assert_close(weights.var(0), reference.variance, atol=0.005, rtol=0)
    torch.testing.assert_close(Dirichlet().evaluate(ALPHA)[0], reference.mean)


def test_dirichlet_pathwise_gradient_averages_to_the_gradient_of_the_mean():
    alpha = ALPHA.clone().requires_grad_()
    upstream = torch.tensor([1.0, -2.0, 0.5, 0.3], dtype=torch.float64)
    weights = Dirichlet().weights(alpha.expand(ROWS, 4), 0.0, generator())
    (found,) = torch.autograd.grad((weights @ upstream).mean(), alpha)
    (exact,) = torch.autograd.grad((Dirichlet().evaluate(alpha)[0] @ upstream), alpha)
    torch.testing.assert_close(found, exact, atol=0.01, rtol=0.05)


def test_dirichlet_anchor_is_the_kl_divergence():
    concentration = torch.rand(3, 5, dtype=torch.float64) * 3 + 0.1
    reference = torch.distributions.kl_divergence(
        torch.distributions.Dirichlet(concentration),
        torch.distributions.Dirichlet(torch.ones_like(concentration)),
    )
    everything = torch.ones(3, 5, dtype=torch.bool)
    torch.testing.assert_close(dirichlet_kl_to_uniform(concentration, everything), reference)
    only = everything.clone()
    only[:, 2] = False
    torch.testing.assert_close(
        dirichlet_kl_to_uniform(concentration, only),
        dirichlet_kl_to_uniform(concentration[:, [0, 1, 3, 4]], only[:, [0, 1, 3, 4]]),
    )


def test_zero_one_loss_is_the_papers_and_vanishes_at_one_half():
    alpha = torch.tensor([[0.0, 2.0], [-1.0, 3.0]], dtype=torch.float64, requires_grad=True)
    loss = Sigmoid(10.0).penalty({"normal": alpha})
    torch.testing.assert_close(loss, -10 * ((torch.sigmoid(alpha) - 0.5) ** 2).mean())
    (gradient,) = torch.autograd.grad(loss, alpha)
    assert gradient[0, 0] == 0
    # descending the loss moves every weight away from one half
    assert gradient[0, 1] < 0 < gradient[1, 0]


def test_what_an_edge_may_not_choose_is_no_term_of_the_zero_one_loss():
    """It was a term that is 0: with four of six operations closed, the loss was a third of what was asked."""
    alpha = torch.tensor([[0.3, 2.0, -1.0, 0.5, 0.1, 0.9]], dtype=torch.float64)
    closed = alpha.clone()
    closed[0, 2:] = -torch.inf
    torch.testing.assert_close(
        Sigmoid(10.0).penalty({"normal": closed}), Sigmoid(10.0).penalty({"normal": alpha[:, :2]})
    )


def test_edge_normalisation_sums_to_one_over_the_edges_of_each_node():
    space = get_space("darts")
    relaxation = PartialChannels()
    shapes = relaxation.extra_alphas(space)
    assert shapes == {"edge_normal": (14,), "edge_reduce": (14,)}
    extras = {name: torch.randn(shape) for name, shape in shapes.items()}
    scale = relaxation.edge_scale("normal", extras, space)
    beta = extras["edge_normal"]
    start = 0
    for incoming in (2, 3, 4, 5):
        part = slice(start, start + incoming)
        torch.testing.assert_close(scale[part], torch.softmax(beta[part], 0))
        start += incoming


def test_edge_logits_receive_their_gradient():
    space = get_space("nasbench201")
    beta = torch.randn(6, requires_grad=True)
    scale = PartialChannels().edge_scale("cell", {"edge_cell": beta}, space)
    (gradient,) = torch.autograd.grad((scale * torch.arange(6.0)).sum(), beta)
    assert gradient[1:].abs().min() > 0  # the first node has one edge, whose softmax is constant
    assert gradient[0] == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sigmoid(-1),
        lambda: GumbelStraightThrough(0.0),
        lambda: Concrete(1.0, 0.0),
        lambda: ReinMax(0.5),
        lambda: Dirichlet(-1),
        lambda: PartialChannels(0),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(ConfigError, match="not"):
        make()


def test_every_relaxation_gives_another_gradient():
    """None is a copy of another: the gradients for one alpha differ pairwise."""
    upstream = torch.tensor([[1.0, -2.0, 0.5, 0.3]], dtype=torch.float64)
    gradients = []
    for relaxation in ALL:
        alpha = ALPHA.clone().requires_grad_()
        weights = relaxation.weights(alpha, 0.5, generator(5))
        gradients.append(torch.autograd.grad((weights * upstream).sum(), alpha)[0])
    same = [
        (type(ALL[i]).__name__, type(ALL[j]).__name__)
        for i, j in itertools.combinations(range(len(ALL)), 2)
        if torch.allclose(gradients[i], gradients[j])
    ]
    assert same == [("Softmax", "PartialChannels")]  # these two differ in channels and edges


def test_the_softmax_of_evaluation_has_the_temperature_of_training():
    colder = Softmax(0.25)
    torch.testing.assert_close(colder.evaluate(ALPHA), colder.weights(ALPHA, 0.5, None))
    assert float(colder.evaluate(ALPHA).max()) > float(Softmax().evaluate(ALPHA).max())
