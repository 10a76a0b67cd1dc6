"""Each strategy against an exact small case, a plain implementation, or a known answer."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from darts_core.errors import ConfigError
from darts_core.spaces import get_space
from darts_core.strategies import (
    AuxiliarySkip,
    CellAlignment,
    FirstOrder,
    OperationEarlyStopping,
    PerturbationSelection,
    Progressive,
    RandomSampling,
    RandomSearch,
    RegularizedEvolution,
    SearchSettings,
    SingleLevel,
    SmoothAdversarial,
    SmoothRandom,
)
from darts_core.strategies.alignment import _own_weights, alignment
from darts_core.strategies.baselines import mutate
from darts_core.strategies.early_stop import candidate_operations, cosine_of_groups
from darts_core.strategies.progressive import keep_best_operations, limit_skips
from darts_core.strategies.smooth import perturbed
from darts_core.supernet import Supernet, frozen_statistics
from darts_core.supernet.mixed_op import MixedOp

SETTINGS = SearchSettings(grad_clip=0.0, weight_decay=0.0, momentum=0.0, learning_rate=0.1)


def supernet(space="nasbench201", layers=1, ops=None, **sizes):
    torch.manual_seed(2)
    net = Supernet(
        get_space(space, ops),
        channels=2,
        layers=layers,
        num_classes=3,
        **{"in_channels": 1, **sizes},
    ).double()
    net.generator = torch.Generator().manual_seed(9)
    return net


def batch(seed=0, size=6):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 1, 6, 6, dtype=torch.float64, generator=generator)
    return images, torch.randint(3, (size,), generator=generator)


def ready(strategy, net, settings=SETTINGS):
    strategy.setup(net, settings)
    return strategy


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
    for e, f in zip(exact, found, strict=True):
        if e is not None and f is not None:
            assert float((e - f).norm()) < 1e-4 * scale


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


# DARTS-PT


def known_evaluator(strategy, value_of):
    """An evaluator that sees the weights which the strategy would run."""
    strategy._under = lambda weights: weights
    strategy.evaluator = lambda weights, batches: value_of(weights)


def test_perturbation_selection_keeps_the_operations_that_are_needed_not_the_heaviest():
    net = supernet()
    generator = torch.Generator().manual_seed(0)
    worth = torch.rand(6, 5, generator=generator, dtype=torch.float64)
    strategy = ready(PerturbationSelection(warmup_share=0.5), net)
    # accuracy: the worth of what is present, whatever its weight
    known_evaluator(strategy, lambda w: float((worth * (w["cell"] > 0)).sum()))
    for epoch in range(6):
        strategy.alpha_active = True
        strategy.start_epoch(epoch, 6)
        assert strategy.alpha_active == (epoch < 3)
        assert strategy.decided == max(0, 2 * (epoch - 2))
    assert strategy.chosen["cell"] == worth.argmax(1).tolist()
    found = strategy.architecture().cell("cell")
    assert [op for _, _, op in found.edges] == [net.space.ops[k] for k in worth.argmax(1)]
    projected = strategy.projected(net.mixing_weights())["cell"]
    assert (projected.sum(1) == 1).all()
    assert sorted(projected.unique().tolist()) == [0.0, 1.0]


def test_perturbation_selection_also_keeps_the_edges_that_are_needed():
    net = supernet("darts", layers=3, ops=["none", "skip_connect", "nor_conv_1x1"])
    generator = torch.Generator().manual_seed(1)
    worth = {k: torch.rand(14, 3, generator=generator) for k in ("normal", "reduce")}
    strategy = ready(PerturbationSelection(warmup_share=0.0), net)
    known_evaluator(strategy, lambda w: sum(float((worth[k] * (w[k] > 0)).sum()) for k in w))
    strategy.start_epoch(0, 1)
    for kind in worth:
        chosen = worth[kind][range(14), strategy.chosen[kind]]
        kept = {(s, t) for s, t, _ in strategy.architecture().cell(kind).edges}
        for node in range(2, 6):
            rows = [e for e, edge in enumerate(net.space.edges) if edge[1] == node]
            best = sorted(rows, key=lambda e: -chosen[e])[:2]
            assert {net.space.edges[e] for e in best} == {edge for edge in kept if edge[1] == node}


# progressive


def test_the_best_operations_of_every_edge_are_kept():
    ops = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "dil_conv_3x3", "dil_conv_5x5")
    space = get_space("toy", ops)
    weights = {
        "cell": np.array([[0.3, 0.1, 0.2, 0.15, 0.05, 0.2], [0.9, 0.02, 0.03, 0.03, 0.01, 0.01]])
    }
    smaller = keep_best_operations(space, weights, 3)
    assert smaller.edge_ops[0][1] == (
        ("none", "nor_conv_1x1", "dil_conv_5x5"),
        ("none", "nor_conv_1x1", "nor_conv_3x3"),
    )
    smallest = keep_best_operations(smaller, weights, 1)
    assert smallest.edge_ops[0][1] == (("nor_conv_1x1",), ("nor_conv_1x1",))


def test_the_lightest_skips_give_way_until_the_limit_holds():
    space = get_space("darts", ["none", "skip_connect", "sep_conv_3x3"])
    rng = np.random.default_rng(0)
    weights = {k: np.full((14, 3), 0.1) + 0.01 * rng.random((14, 3)) for k in space.cell_kinds}
    for kind in weights:
        weights[kind][:, 1] += 0.5  # skips everywhere
    found = limit_skips(space, weights, 2)
    ops = [op for _, _, op in found.cell("normal").edges]
    assert ops.count("skip_connect") == 2
    assert all(op == "skip_connect" for _, _, op in found.cell("reduce").edges)
    assert limit_skips(space, weights, 8) == space.discretize(weights)
    # the two that stay are heavier than every skip that the limit removed
    assert limit_skips(space, weights, 0).cell("normal").edges[0][2] == "sep_conv_3x3"


def test_stages_deepen_drop_operations_and_widen_the_mixed_part():
    space = get_space("darts", ["none", "skip_connect", "max_pool_3x3", "sep_conv_3x3"])
    net = Supernet(space, channels=2, layers=3, num_classes=3, in_channels=1)
    net.generator = torch.Generator().manual_seed(0)
    stages = [
        {"channel_fraction": 2},
        {"extra_layers": 1, "operations": 2, "channel_fraction": 1, "skip_dropout": 0.5},
    ]
    strategy = ready(Progressive(stages, rest_share=0.5), net, SearchSettings())
    images, labels = torch.randn(4, 1, 6, 6), torch.randint(3, (4,))
    seen = []
    for epoch in range(4):
        strategy.alpha_active = True
        strategy.set_learning_rate(0.02)
        strategy.start_epoch(epoch, 4)
        before = next(iter(net.alphas())).detach().clone()
        strategy.step((images, labels), (images, labels))
        seen.append(
            (
                len(net.cells),
                int(net.space.allowed("normal").sum(1).max()),
                net.relaxation.channel_fraction,
                torch.equal(before, next(iter(net.alphas()))),
            )
        )
    assert seen == [(3, 4, 2, True), (3, 4, 2, False), (4, 2, 1, True), (4, 2, 1, False)]
    assert strategy.optimizer.param_groups[0]["lr"] == pytest.approx(0.02)
    with pytest.raises(ConfigError, match="settings"):
        Progressive([{"depth": 3}])


def test_channels_that_a_stage_cannot_divide_are_refused_before_the_search():
    with pytest.raises(ConfigError, match=r"search\.channels=18"):
        ready(Progressive([{}, {"channel_fraction": 3}]), supernet())


def test_every_stage_has_a_learning_rate_schedule_of_its_own():
    stages = Progressive([{}, {"operations": 2}])
    assert [stages.schedule_position(epoch, 4) for epoch in range(4)] == [0.0, 0.5, 0.0, 0.5]
    assert [FirstOrder().schedule_position(epoch, 4) for epoch in range(3)] == [0.0, 0.25, 0.5]


def test_a_stage_may_go_on_with_the_params_and_alphas_of_the_one_before():
    net = Supernet(get_space("nasbench201"), channels=4, layers=1, num_classes=3, in_channels=1)
    stages = [{"channel_fraction": 2}, {"operations": 2, "channel_fraction": 1}]
    strategy = ready(Progressive(stages, rest_share=0.0, carry_over=True), net)
    strategy.start_epoch(0, 2)
    strategy.step(*[(torch.randn(4, 1, 6, 6), torch.randint(3, (4,))) for _ in range(2)])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    strategy.start_epoch(1, 2)
    after = net.state_dict()
    assert int(net.space.allowed("cell").sum(1).max()) == 2
    assert torch.equal(after["alpha.cell"], before["alpha.cell"])
    assert torch.equal(after["head.classifier.weight"], before["head.classifier.weight"])
    grown = 0
    for name, value in after.items():
        old = before[name]
        assert torch.equal(value[tuple(slice(n) for n in old.shape)], old), name
        if value.shape != old.shape:
            grown += 1
            assert torch.equal(value[old.shape[0] :], value[: old.shape[0]]), name
    assert grown
    with pytest.raises(ConfigError, match="carry_over"):
        Progressive([{}, {"extra_layers": 1}], carry_over=True)


# sampling and baselines


def test_random_sampling_trains_uniform_architectures_and_keeps_the_best_measured():
    net = supernet("toy", in_channels=2)
    strategy = ready(RandomSampling(samples=40, finalists=3), net)
    counts = torch.zeros(2, 4, dtype=torch.float64)
    for _ in range(600):
        counts += strategy.params_weights(batch())["cell"]
    assert (counts / 600 - 1 / 4).abs().max() < 5 * (1 / 4 * 3 / 4 / 600) ** 0.5
    alpha = net.alphas()[0].detach().clone()

    def accuracy(forward, batches):
        return float(worth[strategy.measured_now])

    space = net.space
    table = {a: i / 16 for i, a in enumerate(all_toy(space))}
    worth = table
    original = strategy._under

    def under(architecture):
        strategy.measured_now = architecture
        return original(architecture)

    strategy._under = under
    strategy.evaluator = accuracy
    for epoch in range(4):
        strategy.end_epoch(epoch, 4)
    assert strategy.draws == 600 + 40
    best = max(strategy.found, key=lambda pair: pair[0])
    assert strategy.architecture() == best[1]
    assert best[0] == max(score for score, _ in strategy.found) >= 13 / 16
    assert torch.equal(net.alphas()[0], alpha)


def all_toy(space):
    import itertools

    found = []
    for first, second in itertools.product(space.ops, space.ops):
        weight = np.zeros((2, 4))
        weight[0, space.ops.index(first)] = weight[1, space.ops.index(second)] = 1
        found.append(space.discretize({"cell": weight}))
    return found


@pytest.mark.parametrize("name", ["darts", "s1", "nasbench201", "toy", "mobilenet"])
def test_a_mutation_changes_one_thing_and_stays_in_the_space(name):
    space = get_space(name)
    rng = np.random.default_rng(0)
    parent = space.random(rng)
    for _ in range(30):
        child = mutate(space, parent, rng)
        assert child != parent
        if child.choices:
            assert sum(a != b for a, b in zip(child.choices, parent.choices, strict=True)) == 1
        else:
            different = 0
            for kind in space.cell_kinds:
                old, new = set(parent.cell(kind).edges), set(child.cell(kind).edges)
                different += len(new - old)
                assert len(new) == len(old)
                for source, target, op in new:
                    row = space.edges.index((source, target))
                    assert space.allowed(kind)[row, space.ops.index(op)]
            assert different == 1
        parent = child


def test_evolution_climbs_a_table_further_than_random_search_of_the_same_length():
    space = get_space("nasbench201")
    rng = np.random.default_rng(3)
    worth = rng.random((6, 5))

    def score(architecture):
        return sum(
            worth[space.edges.index((s, t)), space.ops.index(op)]
            for s, t, op in architecture.cell("cell").edges
        )

    def best(strategy, seed):
        strategy.supernet = type("Net", (), {"space": space, "generator": None})()
        rng = np.random.default_rng(seed)
        for _ in range(60):
            candidate = strategy.propose(rng)
            strategy.history.append((score(candidate), candidate))
        return strategy.current()

    evolved = [score(best(RegularizedEvolution(60, 10, 4), s)) for s in range(5)]
    drawn = [score(best(RandomSearch(60), s)) for s in range(5)]
    assert np.mean(evolved) > np.mean(drawn)


def test_settings_out_of_range_are_refused():
    for make in (
        lambda: SmoothRandom(-1, 0),
        lambda: SmoothAdversarial(ascent_steps=0),
        lambda: AuxiliarySkip(-0.1),
        lambda: AuxiliarySkip(decay_share=0.0),
        lambda: CellAlignment(epsilon=0),
        lambda: OperationEarlyStopping(2.0),
        lambda: PerturbationSelection(1.0),
        lambda: Progressive([]),
        lambda: Progressive([{"skip_dropout": 1.0}]),
        lambda: RandomSampling(0),
        lambda: RandomSearch(0),
        lambda: RegularizedEvolution(population=0),
    ):
        with pytest.raises(ConfigError):
            make()
    strategy = ready(PerturbationSelection(), supernet())
    with pytest.raises(ConfigError, match="inside `search`"):
        strategy.start_epoch(0, 1)


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
