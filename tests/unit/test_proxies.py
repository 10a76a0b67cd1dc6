"""Zero-cost proxies against closed forms on networks small enough to do by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from darts_core.errors import ConfigError
from darts_core.spaces import get_space
from darts_core.strategies import SearchSettings, ZeroCost
from darts_core.strategies.proxies import PROXIES, score
from darts_core.supernet import Supernet, build


class TwoLayers(nn.Module):
    """logits = B relu(A x), x a vector."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4, bias=False)
        self.relu = nn.ReLU()
        self.second = nn.Linear(4, 2, bias=False)

    def forward(self, x):
        return self.second(self.relu(self.first(x.flatten(1))))


def network():
    torch.manual_seed(0)
    return TwoLayers().double()


IMAGES = torch.randn(5, 3, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 1, 0, 1])


def flat_loss(net):
    a, b = net.first.weight, net.second.weight
    shapes = [a.numel(), b.numel()]

    def loss(vector):
        first, second = vector.split(shapes)
        hidden = torch.relu(IMAGES.flatten(1) @ first.view_as(a).T)
        return nn.functional.cross_entropy(hidden @ second.view_as(b).T, LABELS)

    return loss, torch.cat([a.detach().flatten(), b.detach().flatten()])


def test_snip_grad_norm_and_grasp_from_the_exact_gradient_and_hessian():
    net = network()
    loss, w = flat_loss(net)
    gradient = torch.autograd.functional.jacobian(loss, w)
    hessian = torch.autograd.functional.hessian(loss, w)
    assert score("snip", net, IMAGES, LABELS) == pytest.approx(float((gradient * w).abs().sum()))
    norms = gradient[:12].norm() + gradient[12:].norm()
    assert score("grad_norm", net, IMAGES, LABELS) == pytest.approx(float(norms))
    expected = -(hessian @ gradient) @ w
    assert score("grasp", net, IMAGES, LABELS) == pytest.approx(float(expected))


def test_synflow_is_layers_times_the_sum_over_all_paths():
    net = network()
    paths = net.second.weight.abs() @ net.first.weight.abs() @ torch.ones(3, dtype=torch.float64)
    # R is linear in each of the two layers, so each contributes R once
    assert score("synflow", net, IMAGES, LABELS) == pytest.approx(2 * float(paths.sum()))
    assert score("synflow", net, 7 * IMAGES, LABELS) == pytest.approx(2 * float(paths.sum()))


def test_synflow_looks_past_batch_norms():
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 1, bias=False)
    net = nn.Sequential(conv, nn.BatchNorm2d(3), nn.Flatten())
    images = torch.randn(4, 2, 1, 1)
    assert score("synflow", net, images, LABELS) == pytest.approx(
        float(conv.weight.abs().sum()), rel=1e-6
    )


def test_naswot_is_the_log_determinant_of_the_agreement_kernel():
    net = network()
    codes = (IMAGES.flatten(1) @ net.first.weight.T > 0).numpy()
    assert len(np.unique(codes[:4], axis=0)) == 4
    kernel = np.array([[(a == b).sum() for b in codes[:4]] for a in codes[:4]], dtype=float)
    expected = math.log(np.linalg.det(kernel))
    assert score("naswot", net, IMAGES[:4], LABELS[:4]) == pytest.approx(expected)
    # the fifth has the code of the fourth
    assert score("naswot", net, IMAGES, LABELS) == -math.inf
    with pytest.raises(ConfigError, match="ReLU"):
        score("naswot", nn.Sequential(nn.Flatten(), nn.Linear(3, 2).double()), IMAGES, LABELS)


def test_jacobian_covariance_of_a_linear_network_is_that_of_equal_maps():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False)).double()
    found = score("jacobian_covariance", linear, IMAGES, LABELS)
    # all rows are equal: one eigenvalue is 5, the others are 0
    k = 1e-5
    expected = -(math.log(5 + k) + 1 / (5 + k) + 4 * (math.log(k) + 1 / k))
    assert found == pytest.approx(expected, rel=1e-3)
    assert score("jacobian_covariance", network(), IMAGES, LABELS) > found


@pytest.mark.parametrize("name", sorted(PROXIES))
@pytest.mark.parametrize("space", ["nasbench201", "s3", "mobilenet", "convnet"])
def test_proxies_run_on_any_space_and_leave_no_trace(name, space):
    torch.manual_seed(0)
    layers = {"nasbench201": 1, "convnet": 2}.get(space, 3)
    architecture = get_space(space).random(np.random.default_rng(0))
    net = build(architecture, channels=4, layers=layers, num_classes=3)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    images, labels = torch.randn(4, 3, 8, 8), torch.arange(4) % 3
    value = score(name, net, images, labels)
    assert not math.isnan(value)
    assert net.training
    for key, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[key]), f"{name} changed {key}"
        assert tensor.dtype == before[key].dtype


def test_grasp_runs_through_attention():
    """The fast kernels of attention have no second derivative: the command ended in torch's error."""
    space = get_space("gpt_tiny")
    first = {label: np.eye(1, shape[1]) for label, shape in space.alpha_shapes().items()}
    architecture = space.discretize(first)
    assert architecture.choice("block1.mixer") == "attention"
    torch.manual_seed(0)
    net = build(architecture, channels=4, layers=1, num_classes=3, in_channels=5).double()
    tokens, targets = torch.arange(12).view(2, 6) % 5, torch.arange(12).view(2, 6) % 3

    def loss(logits, wanted):
        return nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())

    found = score("grasp", net, tokens, targets, loss)
    # -H g w by a difference of the gradients along g
    weights = [m.weight for m in net.modules() if isinstance(m, (nn.Linear, nn.Conv1d))]
    g = torch.autograd.grad(loss(net(tokens), targets), weights)
    sides = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            for w, direction in zip(weights, g, strict=True):
                w.add_(direction, alpha=step)
        sides.append(torch.autograd.grad(loss(net(tokens), targets), weights))
        with torch.no_grad():
            for w, direction in zip(weights, g, strict=True):
                w.sub_(direction, alpha=step)
    products = [(plus - minus) / 2e-5 for plus, minus in zip(*sides, strict=True)]
    expected = -sum(float((h * w.detach()).sum()) for h, w in zip(products, weights, strict=True))
    assert found == pytest.approx(expected, rel=1e-5)


def test_alone_it_ends_with_the_best_scored_and_as_a_warm_start_alpha_points_there():
    images, labels = torch.randn(6, 3, 8, 8), torch.arange(6) % 3

    def run(**options):
        torch.manual_seed(0)
        net = Supernet(get_space("nasbench201"), channels=4, layers=1, num_classes=3)
        net.generator = torch.Generator().manual_seed(4)
        strategy = ZeroCost("synflow", samples=6, **options)
        strategy.setup(net, SearchSettings())
        strategy.step((images, labels), (images, labels))
        return strategy, net

    alone, net = run()
    assert alone.architecture() == alone.best
    rng = np.random.default_rng(4)
    drawn = [net.space.random(rng) for _ in range(6)]
    assert alone.best in drawn
    without = net.space.discretize(net.final_weights())
    warm, net = run(warm_start=2.0)
    assert warm.architecture() == warm.best
    assert net.discretize() == warm.best != without
    with pytest.raises(ConfigError, match="synflow"):
        ZeroCost("sinflow")
