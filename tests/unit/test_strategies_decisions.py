"""What strategies decide: DARTS-PT, progressive stages, sampling, the baselines; settings refused."""

import itertools
import logging
import math

import numpy as np
import pytest
import torch
from strategy_cases import batch, ready, supernet

from darts_core.errors import ConfigError, NonFiniteLossError
from darts_core.search import SearchConfig, search
from darts_core.spaces import ChoiceSpace, get_space
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
    SmoothAdversarial,
    SmoothRandom,
)
from darts_core.strategies.baselines import mutate
from darts_core.strategies.progressive import keep_best_operations, limit_skips
from darts_core.supernet import Supernet, frozen_statistics
from darts_core.testing import tiny_bundle

# DARTS-PT


def known_evaluator(strategy, value_of):
    """An evaluator that sees the weights which the strategy would run."""
    strategy._reduced = lambda weights: weights
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


def test_no_edge_is_lost_to_none_where_nothing_is_missed():
    """A metric that does not fall whatever is removed, as where every answer is right already."""
    net = supernet("darts", layers=3, ops=["none", "skip_connect", "nor_conv_1x1"])
    strategy = ready(PerturbationSelection(warmup_share=0.0), net)
    known_evaluator(strategy, lambda w: 1.0)
    strategy.start_epoch(0, 1)
    for kind in net.space.cell_kinds:
        assert all(net.space.ops[k] != "none" for k in strategy.chosen[kind])
        projected = strategy.projected(net.mixing_weights())[kind]
        kept = {(s, t): op for s, t, op in strategy.architecture().cell(kind).edges}
        # what is trained on is what is returned
        for row, edge in zip(projected, net.space.edges, strict=True):
            trained = [net.space.ops[k] for k in row.nonzero().flatten().tolist()]
            assert trained == ([kept[edge]] if edge in kept else [])


def test_what_is_left_is_measured_with_the_statistics_of_the_batch():
    net = supernet()
    strategy = ready(PerturbationSelection(), net)
    weights = {"cell": torch.full((6, 5), 0.2, dtype=torch.float64)}
    weights["cell"][3, 1] = 0.0
    images = batch(0)[0]
    with torch.no_grad(), frozen_statistics(net):
        expected = net.train()(images, weights)
    # statistics of a sum that the skip was part of: they must not decide
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.running_mean += 3.0
        norm.running_var *= 100.0
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.eval()
    with torch.no_grad():
        torch.testing.assert_close(strategy._reduced(weights)(images), expected)
        assert torch.isfinite(strategy._reduced(weights)(images[:1, :, :1, :1])).all()
    assert not net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


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
    with pytest.raises(ConfigError, match=r"strategy\.stages\.depth"):
        Progressive([{"depth": 3}])


def test_channels_that_a_stage_cannot_divide_are_refused_before_the_search():
    with pytest.raises(ConfigError, match=r"search\.channels=18"):
        ready(Progressive([{}, {"channel_fraction": 3}]), supernet())


def test_operations_of_the_first_stage_are_refused_where_they_would_be_dropped():
    """They were taken in silence, and all operations were searched."""
    with pytest.raises(
        ConfigError, match=r"keeps operations=3 of 5, .* Leave operations out of the"
    ):
        ready(Progressive([{"operations": 3}, {"operations": 2}]), supernet())
    # P-DARTS's own words: 8, 5, 3 operations
    ready(Progressive([{"operations": 5}, {"operations": 3}]), supernet())


@pytest.mark.parametrize(
    ("share", "moves"), [(0.4, [1, 1]), (0.9, [0, 1, 0, 1]), (0.4, [0, 0, 1, 1, 1] * 2)]
)
def test_alpha_moves_in_every_stage_however_short(share, moves):
    """In stages of one epoch it rested throughout, and the architecture was that of the first alphas."""
    strategy = ready(Progressive([{}, {}], rest_share=share), supernet())
    for epoch, moving in enumerate(moves):
        strategy.alpha_active = True
        strategy.start_epoch(epoch, len(moves))
        assert strategy.alpha_active == bool(moving)


def test_stages_that_too_few_epochs_leave_out_are_told(caplog):
    strategy = ready(Progressive([{}, {}, {}]), supernet())
    with caplog.at_level(logging.WARNING, logger="darts_core"):
        strategy.start_epoch(0, 2)
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == "search.epochs=2 are fewer than the 3 of strategy.stages: 1 of them are left out"


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


def test_as_many_samples_as_asked_for_are_measured_however_many_epochs():
    """Every epoch measured one more at least, so that samples=2 in 5 epochs were 5."""
    strategy = ready(RandomSampling(samples=2, finalists=1), supernet())
    strategy.evaluator = lambda forward, batches: 0.5
    for epoch in range(5):
        strategy.end_epoch(epoch, 5)
    assert strategy.draws == 2


def test_finalists_are_different_architectures():
    """In a small space the best one took all the places, and nothing else was measured again."""
    space = get_space("toy")
    good, fair = all_toy(space)[:2]
    strategy = ready(RandomSampling(samples=4, finalists=2), supernet("toy", in_channels=2))
    draws, values = iter([good, fair, good, good]), iter([0.9, 0.5, 0.8, 0.3, 0.4])
    strategy._draw, strategy._under = lambda: next(draws), lambda architecture: architecture
    seen = []
    strategy.evaluator = lambda forward, batches: seen.append(forward) or next(values)
    for epoch in range(2):
        strategy.end_epoch(epoch, 2)
    # two of the first epoch, the one of the second, and both again at the end
    assert seen == [good, fair, good, good, fair]
    assert strategy.found == [(0.4, fair), (0.3, good)]


def all_toy(space):
    found = []
    for first, second in itertools.product(space.ops, space.ops):
        weight = np.zeros((2, 4))
        weight[0, space.ops.index(first)] = weight[1, space.ops.index(second)] = 1
        found.append(space.discretize({"cell": weight}))
    return found


@pytest.mark.parametrize("name", ["darts", "s1", "nasbench201", "toy", "mobilenet", "convnet"])
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


def test_nothing_is_changed_where_every_choice_has_one_option():
    space = ChoiceSpace.of("one", {"width": [4], "depth": [1]})
    only = space.random(np.random.default_rng(0))
    assert mutate(space, only, np.random.default_rng(0)) == only


@pytest.mark.parametrize(("epochs", "trained"), [(5, [2, 2]), (4, [2, 2]), (1, [1])])
def test_as_many_candidates_are_trained_as_asked_for_each_as_long(tmp_path, epochs, trained):
    """Of five epochs a third candidate took the last one."""

    def go():
        torch.manual_seed(0)
        net = Supernet(get_space("nasbench201"), channels=2, layers=1, num_classes=3)
        strategy, config = RandomSearch(2), SearchConfig(epochs=epochs, batch_size=8)
        return strategy, search(net, strategy, tiny_bundle(), config, checkpoint=tmp_path / "c.pt")

    strategy, found = go()
    assert len(strategy.history) == len(trained)
    assert len(found.history) == sum(trained)
    rates = [rate for number in trained for rate in [0.025, 0.013][:number]]  # a cosine each
    assert [row["learning_rate"] for row in found.history] == pytest.approx(rates)
    assert found.stopped is None
    assert found.architecture == max(strategy.history, key=lambda pair: pair[0])[1]
    again, resumed = go()
    assert again.history == strategy.history
    assert len(resumed.history) == len(found.history)


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


class Astray(RandomSearch):
    """Its first candidates begin with NaN."""

    def __init__(self, candidates, bad):
        super().__init__(candidates)
        self.bad = bad

    def _begin(self, architecture):
        super()._begin(architecture)
        if len(self.history) < self.bad:
            with torch.no_grad():
                next(self.network.parameters()).fill_(float("nan"))


def test_a_candidate_that_diverges_is_worse_than_all_and_the_others_go_on(tmp_path, caplog):
    caplog.set_level(logging.WARNING, logger="darts_core")

    def go(bad, path=None, steps=None):
        torch.manual_seed(0)
        net = Supernet(get_space("nasbench201"), channels=2, layers=1, num_classes=3)
        left = iter([False] * (steps or 1000))
        strategy = Astray(2, bad)
        found = search(
            net, strategy, tiny_bundle(), SearchConfig(epochs=4, batch_size=8), checkpoint=path,
            should_stop=lambda: next(left, True),
        )  # fmt: skip
        return strategy, found

    strategy, whole = go(1)
    assert [worth == -math.inf for worth, _ in strategy.history] == [True, False]
    assert whole.architecture == strategy.history[1][1]
    assert caplog.text.count("candidate 1 diverged") == 1
    go(1, tmp_path / "checkpoint.pt", 2)
    again, resumed = go(1, tmp_path / "checkpoint.pt")
    assert again.history == strategy.history
    assert resumed.architecture == whole.architecture
    assert [r["train_loss"] for r in resumed.history] == [r["train_loss"] for r in whole.history]
    with pytest.raises(NonFiniteLossError, match="All 2 candidates diverged"):
        go(2)


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
