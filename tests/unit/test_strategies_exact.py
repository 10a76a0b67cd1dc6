"""Each strategy's steps against an exact small case, a plain implementation, or a known answer."""

import pytest
import torch
import torch.nn.functional as F
from strategy_cases import SETTINGS, batch, ready, supernet

from darts_core.errors import ConfigError
from darts_core.penalties import BudgetPenalty
from darts_core.spaces import get_space
from darts_core.strategies import (
    AuxiliarySkip,
    CellAlignment,
    FirstOrder,
    OperationEarlyStopping,
    SearchSettings,
    SingleLevel,
    SmoothAdversarial,
    SmoothRandom,
)
from darts_core.strategies.alignment import _own_weights, alignment
from darts_core.strategies.early_stop import candidate_operations, cosine_of_groups
from darts_core.strategies.smooth import perturbed
from darts_core.supernet import Supernet, frozen_statistics
from darts_core.supernet.mixed_op import MixedOp

# single level


def test_single_level_moves_params_and_alpha_along_the_gradient_of_the_union():
    net = supernet()
    strategy = ready(SingleLevel(), net)
    first, second = batch(0), batch(1)
    images, labels = torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]])
    with frozen_statistics(net):
        loss = F.cross_entropy(net(images), labels)
    gradients = torch.autograd.grad(loss, [*net.parameters(), *net.alphas()], allow_unused=True)
    expected = [
        p.detach() - 0.1 * (0 if g is None else g)
        for p, g in zip(net.parameters(), gradients, strict=False)
    ]
    alpha_gradient = gradients[-1]
    before = net.alphas()[0].detach().clone()
    strategy.step(first, second)
    for param, want in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(param.detach(), want)
    # the first Adam step moves every coordinate against the sign of its gradient
    moved = net.alphas()[0].detach() - before
    wanted = alpha_gradient + SETTINGS.alpha_weight_decay * before
    large = wanted.abs() > 1e-6
    assert (moved[large].sign() == -wanted[large].sign()).all()


class Total:
    """A cost of one for each edge."""

    unit = "ms"

    def __call__(self, weights):
        return weights["cell"].sum().float()


def test_a_budget_s_multiplier_rests_while_alpha_does():
    net, strategy, penalty = supernet(), SingleLevel(), BudgetPenalty(Total(), budget=1.0)
    strategy.setup(net, SETTINGS, [penalty])
    strategy.alpha_active = False
    before = net.alphas()[0].detach().clone()
    strategy.step(batch(0), batch(1))
    assert float(penalty.multiplier) == 0
    assert torch.equal(net.alphas()[0], before)
    strategy.alpha_active = True
    strategy.step(batch(0), batch(1))
    assert float(penalty.multiplier) > 0


# SmoothDARTS


def test_random_smoothing_draws_uniformly_in_the_present_box():
    net = supernet()
    strategy = ready(SmoothRandom(0.03, 0.3), net)
    net.progress.fill_(0.5)
    assert float(strategy.epsilon()) == pytest.approx(0.165)
    wide = {"cell": torch.full((20_000, 5), 0.2, dtype=torch.float64)}
    delta = strategy.uniform(wide)["cell"]
    assert delta.abs().max() <= 0.165
    assert abs(delta.mean()) < 0.002
    assert float(delta.var()) == pytest.approx(0.165**2 / 3, rel=0.02)


def test_perturbed_weights_keep_row_sums_and_are_never_negative():
    weights = {"cell": torch.tensor([[0.5, 0.3, 0.2], [0.9, 0.8, 0.1]])}
    delta = {"cell": torch.tensor([[0.1, -0.4, 0.0], [0.0, 0.0, 0.0]])}
    found = perturbed(weights, delta)["cell"]
    torch.testing.assert_close(found[0], torch.tensor([0.75, 0.0, 0.25]))
    torch.testing.assert_close(found[1], weights["cell"][1])
    gone = perturbed(weights, {"cell": torch.full((2, 3), -1.0)})["cell"]
    torch.testing.assert_close(gone, weights["cell"])


def test_adversarial_smoothing_finds_the_corner_of_the_box_for_a_linear_loss():
    net = supernet()
    strategy = ready(SmoothAdversarial(0.05, 0.05), net)
    slope = torch.tensor([1.0, -1.0], dtype=torch.float64)
    base = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    net.mixing_weights = lambda: {"cell": base}
    strategy.loss = lambda b, w: ((w["cell"] * slope).sum(), torch.zeros(1, 2))
    found = strategy.params_weights(batch())["cell"]
    torch.testing.assert_close(found, torch.tensor([[0.55, 0.45]], dtype=torch.float64))


def test_adversarial_weights_are_worse_than_random_ones():
    net = supernet()
    strategy = ready(SmoothAdversarial(0.03), net)
    data = batch()
    with torch.no_grad(), frozen_statistics(net):
        base = FirstOrder.params_weights(strategy, data)
        random = [
            float(strategy.loss(data, perturbed(base, strategy.uniform(base)))[0]) for _ in range(8)
        ]
    worst = strategy.params_weights(data)
    with torch.no_grad(), frozen_statistics(net):
        assert float(strategy.loss(data, worst)[0]) > max(random)


@pytest.mark.parametrize("make", [SmoothRandom, SmoothAdversarial])
def test_smoothing_gives_no_weight_to_what_an_edge_may_not_choose(make):
    net = supernet("s1", layers=3)
    found = ready(make(0.3, 0.3), net).params_weights(batch())
    for kind in net.space.cell_kinds:
        allowed = torch.as_tensor(net.space.allowed(kind))
        assert (found[kind][~allowed] == 0).all()
        torch.testing.assert_close(found[kind].sum(1), torch.ones(14, dtype=torch.float64))


# DARTS-


def test_auxiliary_skip_adds_beta_times_the_input_of_every_edge():
    net = supernet()
    net.progress.fill_(0.25)
    strategy = ready(AuxiliarySkip(0.8), net)
    data = batch()
    with frozen_statistics(net):
        found, _ = strategy.loss(data, net.mixing_weights())
        handles = [
            module.register_forward_hook(lambda m, inputs, out: out + 0.8 * 0.75 * inputs[0])
            for module in net.modules()
            if isinstance(module, MixedOp)
        ]
        expected = F.cross_entropy(net(data[0], net.mixing_weights()), data[1])
        for handle in handles:
            handle.remove()
    torch.testing.assert_close(found, expected)
    net.progress.fill_(1.0)
    with frozen_statistics(net):
        torch.testing.assert_close(
            strategy.loss(data, net.mixing_weights())[0],
            F.cross_entropy(net(data[0], net.mixing_weights()), data[1]),
        )


def test_the_auxiliary_skip_is_gone_after_its_share_of_the_search():
    strategy = ready(AuxiliarySkip(0.8, decay_share=0.5), supernet())
    for progress, beta in ((0.0, 0.8), (0.25, 0.4), (0.5, 0.0), (0.9, 0.0)):
        strategy.supernet.progress.fill_(progress)
        assert float(strategy.beta()) == pytest.approx(beta)


def test_auxiliary_skip_needs_a_skip():
    with pytest.raises(ConfigError, match="skip_connect"):
        ready(AuxiliarySkip(), supernet("s4", layers=3))


# Lambda-DARTS


def test_alignment_gradient_equals_double_backward():
    net = supernet(layers=2)
    strategy = ready(CellAlignment(epsilon=1e-4), net)
    data = batch()
    cells = strategy.cells()
    assert len(cells) == 6
    weights = strategy.params_weights(data)
    own = [weights["cell"].clone().requires_grad_() for _ in cells]
    with frozen_statistics(net), _own_weights(cells, own):
        loss, _ = strategy.loss(data, weights)
    by_cell = torch.autograd.grad(loss, own, create_graph=True)
    value = alignment(by_cell)
    exact = torch.autograd.grad(value, strategy.params, allow_unused=True)
    found = strategy.alignment_gradients(data, weights, cells, [g.detach() for g in by_cell])
    scale = max(float(e.norm()) for e in exact if e is not None)
    assert scale > 0
    for parameter, *both in zip(strategy.params, exact, found, strict=True):
        # what does not count has none, in either way
        e, f = (torch.zeros_like(parameter) if g is None else g for g in both)
        assert float((e - f).norm()) < 1e-4 * scale


def test_differences_of_gradients_are_taken_in_fp32_whatever_the_precision(caplog):
    caplog.set_level("WARNING", logger="darts_core")
    images, labels = batch()
    data, found = (images.float(), labels), []
    for precision in ("fp32", "bf16"):
        net = supernet(layers=2).float()
        strategy = ready(CellAlignment(), net, SearchSettings(precision=precision))
        weights, cells = strategy.params_weights(data), strategy.cells()
        own = [weights["cell"].clone().requires_grad_() for _ in cells]
        with frozen_statistics(net), _own_weights(cells, own):
            loss, _ = strategy.loss(data, weights)
        by_cell = torch.autograd.grad(loss, own)
        found.append(strategy.alignment_gradients(data, weights, cells, by_cell))
    for one, other in zip(*found, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)
    assert caplog.messages == [
        "CellAlignment takes differences of gradients, which bf16 would round away; it runs in fp32"
    ]


def test_alignment_is_the_mean_cosine_of_all_pairs():
    a, b, c = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]), torch.tensor([0.0, 2.0])
    half = 0.5**0.5
    assert float(alignment([a, b, c])) == pytest.approx((half + 0 + half) / 3)


def test_a_strong_alignment_raises_the_alignment():
    def after(strength):
        net = supernet(layers=2)
        net.progress.fill_(1.0)
        strategy = ready(CellAlignment(strength, 1e-3), net, SearchSettings(learning_rate=0.05))
        data = batch()
        for _ in range(6):
            strategy.params_step(data)
        weights = strategy.params_weights(data)
        cells = strategy.cells()
        own = [weights["cell"].clone().requires_grad_() for _ in cells]
        with frozen_statistics(net), _own_weights(cells, own):
            loss, _ = strategy.loss(data, weights)
        return float(alignment(torch.autograd.grad(loss, own)))

    assert after(0.5) > after(0.0)


# OLES


def test_cosines_of_groups():
    a = [torch.tensor([1.0, 0.0]), torch.tensor([2.0]), None, torch.tensor([1.0])]
    b = [torch.tensor([0.0, 1.0]), torch.tensor([2.0]), torch.tensor([1.0]), torch.tensor([-3.0])]
    whole = slice(None)
    groups = [[(0, whole), (1, whole)], [(2, whole)], [(3, whole)], [(0, slice(0, 1)), (3, whole)]]
    found = cosine_of_groups(groups, a, b)
    # of the last group's first parameter the first value alone counts: (1, 1) and (0, -3)
    assert found.tolist() == pytest.approx([4 / 5, 0.0, -1.0, -(0.5**0.5)])


def test_operations_below_the_threshold_are_frozen_and_the_others_move_on():
    net = supernet()
    strategy = ready(OperationEarlyStopping(threshold=0.0, interval=2), net)
    operations = candidate_operations(net)
    assert len(operations) == 3 * 6 * 2  # two convolutions an edge, six edges, three cells
    for _ in range(2):
        strategy.step(batch(0), batch(1))
    frozen = strategy.frozen.tolist()
    assert 0 < sum(frozen) < len(frozen), "random gradients agree on some operations only"
    before = [[p.detach().clone() for p in op.parameters()] for op in operations]
    strategy.step(batch(2), batch(3))
    for stays, op, old in zip(frozen, operations, before, strict=True):
        same = all(torch.equal(p, q) for p, q in zip(op.parameters(), old, strict=True))
        assert same == stays
    # the alpha step is first order's
    again = ready(FirstOrder(), supernet())
    other = ready(OperationEarlyStopping(), supernet())
    again.alpha_step(batch(0), batch(1))
    other.alpha_step(batch(0), batch(1))
    torch.testing.assert_close(other.supernet.alphas()[0], again.supernet.alphas()[0])


def test_what_was_not_drawn_says_nothing_of_its_gradients():
    strategy = ready(OperationEarlyStopping(threshold=0.6, interval=2), supernet())

    def gradients(signs):
        found = [torch.zeros_like(param) for param in strategy.params]
        for number, sign in signs.items():
            for i, span in strategy.groups[number]:
                found[i].view(-1)[span] = sign
        return found

    # two operations are drawn in every second step, with a cosine of 1 and one of -1; the others never
    for drawn in ({0: 1.0, 1: -1.0}, {}, {0: 1.0, 1: -1.0}, {}):
        strategy._alpha_side = list(gradients(drawn))
        strategy.apply_params(gradients(dict.fromkeys(drawn, 1.0)))
    assert strategy.frozen.nonzero().flatten().tolist() == [1]
    # a checkpoint of a version that counted steps alone
    known = {**strategy.state_dict(), "counted": 1}
    del known["measured"]
    strategy.load_state_dict(known)
    assert (strategy.measured == 1).all()


# mixed precision


def test_bf16_keeps_params_and_alphas_in_fp32_and_runs_the_network_in_bf16():
    torch.manual_seed(0)
    net = Supernet(get_space("nasbench201"), channels=2, layers=1, num_classes=3, in_channels=1)
    strategy = ready(FirstOrder(), net, SearchSettings(precision="bf16"))
    seen = []
    handle = net.cells[0].register_forward_hook(lambda m, inputs, out: seen.append(out.dtype))
    images, labels = torch.randn(6, 1, 6, 6), torch.randint(3, (6,))
    before = [a.detach().clone() for a in net.alphas()]
    stats = strategy.step((images, labels), (images, labels))
    handle.remove()
    assert set(seen) == {torch.bfloat16}
    assert stats.params_loss.dtype == stats.alpha_loss.dtype == torch.float32
    assert torch.isfinite(stats.params_loss)
    assert all(p.dtype == torch.float32 for p in [*net.parameters(), *net.alphas()])
    assert any(not torch.equal(a, b) for a, b in zip(before, net.alphas(), strict=True))
    with torch.no_grad(), frozen_statistics(net):
        loss = strategy.loss((images, labels), net.mixing_weights())[0]
        strategy.settings = SearchSettings()
        full = strategy.loss((images, labels), net.mixing_weights())[0]
    assert abs(float(loss) - float(full)) < 0.05
