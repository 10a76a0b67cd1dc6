"""First and second order against exact gradients and a plain, obvious implementation; NaN as a metric."""

import copy
import math
from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darts_core import Supernet, get_space
from darts_core.relax import GumbelStraightThrough, Softmax
from darts_core.search import SearchConfig, search
from darts_core.strategies import FirstOrder, RandomSearch, SearchSettings, Strategy, Unrolled
from darts_core.strategies.base import Batch
from darts_core.testing import tiny_bundle


class Quadratic(nn.Module):
    """A bilevel problem with a closed form: params w, alphas a, quadratic losses."""

    def __init__(self, size: int = 5) -> None:
        super().__init__()
        matrix = torch.randn(size, size, dtype=torch.float64)
        self.train_hessian = matrix @ matrix.T / size + torch.eye(size, dtype=torch.float64)
        self.cross = torch.randn(size, 3, dtype=torch.float64)
        self.target = torch.randn(size, dtype=torch.float64)
        self.relaxation = Softmax()
        self.generator = None
        self.progress = torch.zeros(())
        self.w = nn.Parameter(torch.randn(size, dtype=torch.float64))
        self.a = nn.Parameter(torch.randn(3, dtype=torch.float64))

    def named_parameters(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        yield "w", self.w

    def alphas(self) -> list[nn.Parameter]:
        return [self.a]

    def open_alphas(self) -> dict[str, Tensor]:
        return {"a": self.a}

    def mixing_weights(self) -> dict[str, Tensor]:
        return {"a": self.a}

    def train_loss(self, w: Tensor, a: Tensor) -> Tensor:
        return w @ self.train_hessian @ w / 2 + w @ self.cross @ a

    def val_loss(self, w: Tensor, a: Tensor) -> Tensor:
        return ((w - self.target) ** 2).sum() / 2 + (a**2).sum() / 2


def use_quadratic_losses(strategy: Strategy, problem: Quadratic, batch_train: Batch) -> None:
    def loss(batch: Batch, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        function = problem.train_loss if batch is batch_train else problem.val_loss
        return function(problem.w, weights["a"]), torch.zeros(1, 2)

    strategy.loss = loss  # type: ignore[method-assign]


@pytest.mark.parametrize("plain_sgd", [True, False])
@pytest.mark.parametrize("steps_before", [0, 2])
def test_unrolled_gradient_is_the_exact_one_step_gradient(
    plain_sgd: bool, steps_before: int
) -> None:
    torch.manual_seed(3)
    problem = Quadratic()
    strategy = Unrolled(plain_sgd=plain_sgd)
    settings = SearchSettings(learning_rate=0.07, weight_decay=0.01, momentum=0.9, grad_clip=0.0)
    strategy.setup(problem, settings)  # type: ignore[arg-type]
    train, val = (torch.zeros(1), torch.zeros(1).long()), (torch.ones(1), torch.zeros(1).long())
    use_quadratic_losses(strategy, problem, train)
    for _ in range(steps_before):  # fills the momentum buffer
        strategy.params_step(train)

    # the exact gradient: differentiate through the update
    a = problem.a.detach().clone().requires_grad_()
    w = problem.w.detach().clone()
    gradient = problem.train_hessian @ w + problem.cross @ a
    update = gradient
    if not plain_sgd:
        update = gradient + 0.01 * w
        if steps_before:
            update = update + 0.9 * strategy.optimizer.state[problem.w]["momentum_buffer"]
    (exact,) = torch.autograd.grad(problem.val_loss(w - 0.07 * update, a), a)

    before = problem.w.detach().clone()
    (found,), _, _ = strategy.unrolled_gradients(train, val)
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-9)
    assert torch.equal(problem.w, before), "the virtual step must leave no trace"


def test_first_order_gradient_ignores_the_update() -> None:
    torch.manual_seed(4)
    problem = Quadratic()
    strategy = FirstOrder()
    strategy.setup(problem, SearchSettings())  # type: ignore[arg-type]
    train, val = (torch.zeros(1), torch.zeros(1).long()), (torch.ones(1), torch.zeros(1).long())
    use_quadratic_losses(strategy, problem, train)
    (found,), _, _ = strategy.alpha_gradients(val)
    torch.testing.assert_close(found, problem.a.detach())


def tiny_supernet() -> Supernet:
    torch.manual_seed(11)
    return Supernet(
        get_space("darts", ["none", "skip_connect", "max_pool_3x3", "sep_conv_3x3"]),
        channels=2,
        layers=3,
        num_classes=3,
        in_channels=1,
    ).double()


def batches(count: int) -> list[tuple[Batch, Batch]]:
    generator = torch.Generator().manual_seed(5)

    def draw() -> Batch:
        images = torch.randn(6, 1, 6, 6, dtype=torch.float64, generator=generator)
        return images, torch.randint(3, (6,), generator=generator)

    return [(draw(), draw()) for _ in range(count)]


def plain_loss(net: Supernet, batch: Batch) -> Tensor:
    return F.cross_entropy(net(batch[0]), batch[1])


def plain_alpha_gradient(
    net: Supernet, train: Batch, val: Batch, lr: float, buffers: list[Tensor] | None
) -> list[Tensor]:
    """The second-order gradient written down as the paper does, on deep copies."""
    params = list(net.parameters())
    gradients = torch.autograd.grad(plain_loss(net, train), params, allow_unused=True)
    virtual = copy.deepcopy(net)
    with torch.no_grad():
        for i, (p, q, g) in enumerate(zip(params, virtual.parameters(), gradients, strict=True)):
            g = torch.zeros_like(p) if g is None else g
            d = g + 3e-4 * p + (0.9 * buffers[i] if buffers else 0.0)
            q.copy_(p - lr * d)
    loss = plain_loss(virtual, val)
    outer = torch.autograd.grad(loss, virtual.alphas(), retain_graph=True)
    vector = torch.autograd.grad(loss, list(virtual.parameters()), allow_unused=True)
    vector = [torch.zeros_like(p) if v is None else v for p, v in zip(params, vector, strict=True)]
    eps = 0.01 / torch.cat([v.flatten() for v in vector]).norm()
    sides = []
    for sign in (1, -1):
        shifted = copy.deepcopy(net)
        with torch.no_grad():
            for q, v in zip(shifted.parameters(), vector, strict=True):
                q.add_(sign * eps * v)
        sides.append(torch.autograd.grad(plain_loss(shifted, train), shifted.alphas()))
    return [g - lr * (p - m) / (2 * eps) for g, p, m in zip(outer, sides[0], sides[1], strict=True)]


@pytest.mark.parametrize("second_order", [False, True])
def test_steps_equal_a_plain_implementation(second_order: bool) -> None:
    net = tiny_supernet()
    plain = copy.deepcopy(net)
    strategy: Strategy = Unrolled() if second_order else FirstOrder()
    strategy.setup(net, SearchSettings())
    sgd = torch.optim.SGD(plain.parameters(), 0.025, momentum=0.9, weight_decay=3e-4)
    adam = torch.optim.Adam(plain.alphas(), 3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    for train, val in batches(3):
        strategy.step(train, val)
        if second_order:
            filled = bool(sgd.state)
            buffers = (
                [sgd.state[p]["momentum_buffer"] for p in plain.parameters()] if filled else None
            )
            gradients = plain_alpha_gradient(plain, train, val, 0.025, buffers)
        else:
            gradients = list(torch.autograd.grad(plain_loss(plain, val), plain.alphas()))
        for alpha, gradient in zip(plain.alphas(), gradients, strict=True):
            alpha.grad = gradient
        adam.step()
        sgd.zero_grad()
        for alpha in plain.alphas():
            alpha.grad = None
        plain_loss(plain, train).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 5.0)
        sgd.step()
    for (name, mine), other in zip(net.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-11, msg=name)
    for mine, other in zip(net.alphas(), plain.alphas(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-10)


def test_the_unrolled_step_is_recorded_only_where_nothing_is_drawn() -> None:
    for relaxation, recorded in ((Softmax(), True), (GumbelStraightThrough(), False)):
        net, strategy = tiny_supernet(), Unrolled()
        net.relaxation, net.generator = relaxation, torch.Generator().manual_seed(3)
        before = net.generator.get_state()
        strategy.setup(net, SearchSettings())
        assert strategy.capturable == recorded
        assert torch.equal(net.generator.get_state(), before), "looking must leave no trace"


@pytest.mark.parametrize("strategy", [FirstOrder(), Unrolled()])
def test_extra_passes_leave_running_statistics_alone(strategy: Strategy) -> None:
    net = tiny_supernet()
    strategy.setup(net, SearchSettings())
    (train, val), *_ = batches(1)
    before = {name: value.clone() for name, value in net.named_buffers()}
    strategy.alpha_step(train, val)
    for name, value in net.named_buffers():
        assert torch.equal(value, before[name]), name
    strategy.params_step(train)
    changed = [n for n, v in net.named_buffers() if not torch.equal(v, before[n])]
    assert any("running_mean" in name for name in changed)


def test_alphas_are_leaves_outside_the_parameters() -> None:
    net = tiny_supernet()
    inside = {id(p) for p in net.parameters()}
    assert all(a.is_leaf and id(a) not in inside for a in net.alphas())
    assert {"alpha.normal", "alpha.reduce"} <= set(net.state_dict())


def test_a_candidate_without_a_metric_is_worse_than_all(monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([math.nan, 0.2])
    monkeypatch.setattr(
        "darts_core.search.loop.metric_on",
        lambda forward, bundle, size, split, batches=None: (
            next(values) if split == "alpha" else 0.5
        ),
    )
    torch.manual_seed(0)
    net = Supernet(get_space("nasbench201"), channels=2, layers=1, num_classes=3)
    strategy = RandomSearch(2)
    found = search(net, strategy, tiny_bundle(), SearchConfig(epochs=2, batch_size=8))
    assert [worth for worth, _ in strategy.history] == [-math.inf, 0.2]
    assert found.architecture == strategy.history[1][1]
