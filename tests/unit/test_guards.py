"""Guards on scripted trajectories, and their measurements against exact values."""

import numpy as np
import pytest
import torch

from darts_core.data import RawData, make_bundle
from darts_core.errors import ConfigError
from darts_core.search import GuardContext, SearchConfig, search
from darts_core.search import guards as guards_module
from darts_core.search.guards import (
    AlphaEigenvalue,
    GradientSimilarity,
    SkipCount,
    alpha_gradient_function,
    count_skips,
    fixed_batch,
    largest_eigenvalue,
)
from darts_core.spaces import get_space
from darts_core.strategies import FirstOrder, RandomSampling, SearchSettings
from darts_core.strategies.early_stop import candidate_operations
from darts_core.supernet import Supernet, frozen_statistics

SPACE = get_space("nasbench201")


def bundle(count=48):
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 3
    images = rng.integers(0, 255, (count, 1, 8, 8)).astype(np.uint8)
    images[:, 0, :3] = (labels * 80)[:, None, None]
    return make_bundle("made", RawData(images, labels, ("a", "b", "c"), "made")).without_test()


def supernet():
    torch.manual_seed(0)
    return Supernet(SPACE, channels=2, layers=1, num_classes=3, in_channels=1)


class ScriptedAlpha(FirstOrder):
    """Alpha follows a script: more and more edges turn to skips."""

    def __init__(self, skips_by_epoch):
        self.script = skips_by_epoch

    def step(self, params_batch, alpha_batch):
        stats = super().step(params_batch, alpha_batch)
        skips = self.script[min(int(self.epoch_now), len(self.script) - 1)]
        with torch.no_grad():
            alpha = self.supernet.alpha["cell"]
            alpha.zero_()
            alpha[:skips, 1] = 1.0
            alpha[skips:, 3] = 1.0
        return stats

    def start_epoch(self, epoch, epochs):
        self.epoch_now = epoch


def run(script, guards, epochs=None):
    config = SearchConfig(epochs=epochs or len(script), batch_size=8, evaluate=False)
    return search(supernet(), ScriptedAlpha(script), bundle(), config, guards=guards)


def test_a_scripted_collapse_is_reported_stopped_and_not_kept():
    found = run([1, 2, 3, 4, 5, 6, 6, 6, 6], [SkipCount(0.5, patience=3, after=0.0)])
    assert found.stopped.startswith("guard skips")
    assert len(found.history) == 6, "epochs 3, 4 and 5 are over the budget of 3"
    assert [f.epoch for f in found.findings] == [5]
    assert found.findings[0].value == 6
    assert "6 of 6 edges" in found.findings[0].message
    # suspicious epochs before the report do not count as good either
    assert count_skips(found.architecture) == (3, 6)
    assert [row["guard/skips"] for row in found.history] == [1, 2, 3, 4, 5, 6]


def test_without_the_guard_the_same_script_ends_collapsed():
    assert count_skips(run([1, 3, 6, 6], []).architecture) == (6, 6)


def test_it_goes_on_while_there_is_nothing_good_to_go_back_to():
    found = run([6, 6, 6, 2, 6, 6], [SkipCount(0.5, patience=2, after=0.0)])
    assert [f.epoch for f in found.findings] == [1, 2, 5]
    assert len(found.history) == 6
    assert count_skips(found.architecture) == (2, 6)


def test_a_short_excess_and_a_warning_only_do_not_stop():
    assert run([4, 4, 3, 4, 4, 2], [SkipCount(0.5, patience=3, after=0.0)]).findings == []
    warned = run([6, 6, 6], [SkipCount(0.5, patience=2, after=0.0, stop=False)])
    assert warned.stopped is None
    assert [f.epoch for f in warned.findings] == [1, 2]
    assert count_skips(warned.architecture) == (6, 6)


def test_skips_that_are_there_by_chance_at_the_beginning_count_later_only():
    found = run([6, 6, 6, 2, 5, 5, 5, 5], [SkipCount(0.5, patience=2, after=0.4)])
    assert [f.epoch for f in found.findings] == [5]
    assert count_skips(found.architecture) == (2, 6)


def test_the_eigenvalue_rule_is_that_of_robustdarts():
    guard = AlphaEigenvalue(ratio=0.75, lag=2, window=2, stop=True)
    values = [1.0, 1.0, 1.0, 1.0, 1.1, 1.4, 2.0]
    # means of 2: 1, 1, 1, 1.05, 1.25, 1.7; quotients with lag 2: 1, 0.952, 0.8, 0.618
    findings = [guard.record(v, e) for e, v in enumerate(values)]
    assert [f is not None for f in findings] == [False] * 6 + [True]
    assert findings[-1].since == 5, "the architecture of measurement 4, two before, stays"
    assert findings[-1].value == pytest.approx(1.7)
    assert findings[-1].stop


def test_a_falling_or_negative_eigenvalue_does_not_fire():
    for values in ([5, 4, 3, 2, 1, 0.5], [-1, -2, -3, -4, -5, -6]):
        guard = AlphaEigenvalue(lag=1, window=1)
        assert all(guard.record(v, e) is None for e, v in enumerate(values))


@pytest.mark.parametrize("signs", [(1.0, 1.0), (-1.0, 1.0)])
def test_power_iteration_finds_the_most_positive_eigenvalue(signs):
    torch.manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))
    values = torch.tensor([5.0 * signs[0], 2.0, 1.0, 0.5, -0.5, -1.0], dtype=torch.float64)
    hessian = basis @ torch.diag(values) @ basis.T

    def gradients(at):
        flat = hessian @ torch.cat([a.flatten() for a in at])
        return [flat[:4].view(2, 2), flat[4:]]

    at = [torch.randn(2, 2, dtype=torch.float64), torch.randn(2, dtype=torch.float64)]
    value, vector = largest_eigenvalue(gradients, at, iterations=60)
    assert value == pytest.approx(float(values.max()), rel=1e-4)
    flat = torch.cat([v.flatten() for v in vector])
    torch.testing.assert_close(hessian @ flat, value * flat, atol=1e-2, rtol=0)


def context(strategy, net, data, epoch=0):
    strategy.setup(net, SearchSettings())
    config = SearchConfig(epochs=3, batch_size=8)
    return GuardContext(net, strategy, data, config, epoch, 0, net.discretize())


def test_the_measured_eigenvalue_is_that_of_the_exact_alpha_hessian():
    torch.manual_seed(1)
    net = Supernet(get_space("toy"), channels=2, layers=1, num_classes=3, in_channels=2).double()
    strategy = FirstOrder()
    strategy.setup(net, SearchSettings())
    batch = torch.randn(6, 2, 6, 6, dtype=torch.float64), torch.arange(6) % 3
    alpha = net.alphas()[0]
    before = alpha.detach().clone()
    value, _ = largest_eigenvalue(
        alpha_gradient_function(strategy, batch), [alpha.detach()], iterations=100, epsilon=1e-4
    )

    def loss(logits):
        with frozen_statistics(net):
            return strategy.loss(batch, {"cell": torch.softmax(logits, -1)})[0]

    hessian = torch.autograd.functional.hessian(loss, alpha.detach()).view(8, 8)
    exact = torch.linalg.eigvalsh(hessian).max()
    assert value == pytest.approx(float(exact), rel=0.01)
    assert torch.equal(alpha, before), "measuring must leave no trace"


def test_gradient_similarity_is_the_mean_cosine_and_fires_after_its_patience():
    net = supernet()
    data = bundle()
    ctx = context(FirstOrder(), net, data)
    guard = GradientSimilarity()
    guard.after_epoch(ctx)
    weights = {k: w.detach() for k, w in net.expected_weights().items()}
    flat = []
    for split in ("params", "alpha"):
        with frozen_statistics(net):
            loss, _ = ctx.strategy.loss(fixed_batch(ctx, split), weights)
        ops = candidate_operations(net)
        flat.append(
            [
                torch.cat(
                    [
                        g.flatten()
                        for g in torch.autograd.grad(loss, list(op.parameters()), retain_graph=True)
                    ]
                )
                for op in ops
            ]
        )
    cosines = [
        torch.nn.functional.cosine_similarity(a, b, dim=0) for a, b in zip(*flat, strict=True)
    ]
    assert guard.measurements()["gradient_similarity"] == pytest.approx(
        float(torch.stack(cosines).mean()), abs=1e-5
    )
    strict = GradientSimilarity(least=0.5, patience=2)
    assert [strict.record(v, e) is not None for e, v in enumerate([0.4, 0.6, 0.4, 0.3])] == [
        False, False, False, True,
    ]  # fmt: skip


def test_operations_that_an_edge_may_not_choose_do_not_count(monkeypatch):
    """In S1 these are most of them, and each counted as 0."""
    seen, compare = [], guards_module.cosine_of_groups

    def noted(*arguments):
        seen.append(compare(*arguments))
        return seen[-1]

    monkeypatch.setattr(guards_module, "cosine_of_groups", noted)
    torch.manual_seed(0)
    net = Supernet(get_space("s1"), channels=2, layers=3, num_classes=3, in_channels=1)
    guard = GradientSimilarity()
    guard.after_epoch(context(FirstOrder(), net, bundle()))
    (cosines,) = seen
    known = cosines[cosines != 0]
    assert 0 < len(known) < len(cosines)
    assert guard.measurements()["gradient_similarity"] == pytest.approx(float(known.mean()))


def test_guards_rest_where_alpha_is_not_searched_and_survive_a_resume():
    net = supernet()
    ctx = context(RandomSampling(), net, bundle())
    eigenvalue, similarity = AlphaEigenvalue(after=0.0), GradientSimilarity()
    assert eigenvalue.after_epoch(ctx) is None
    assert similarity.after_epoch(ctx) is None
    assert eigenvalue.measurements() == similarity.measurements() == {}
    guard = AlphaEigenvalue(lag=1, window=1, after=0.0)
    guard.after_epoch(context(FirstOrder(), net, bundle()))
    again = AlphaEigenvalue(lag=1, window=1)
    again.load_state_dict(guard.state_dict())
    assert again.values == guard.values
    skips = SkipCount()
    skips.streak = 2
    other = SkipCount()
    other.load_state_dict(skips.state_dict())
    assert other.streak == 2


def test_what_was_not_measured_in_an_epoch_is_not_stated_again():
    ctx = context(FirstOrder(), supernet(), bundle())
    guards = [AlphaEigenvalue(after=0.0), GradientSimilarity()]
    for guard in guards:
        guard.after_epoch(ctx)
        assert len(guard.measurements()) == 1
    # a resumed search would not know the old value: the rows of both must be the same
    ctx.strategy.alpha_active = False
    for guard in guards:
        guard.after_epoch(ctx)
        assert guard.measurements() == {}


def test_settings_out_of_range_are_refused():
    for make in (
        lambda: SkipCount(1.5),
        lambda: AlphaEigenvalue(1.0),
        lambda: AlphaEigenvalue(lag=0),
        lambda: GradientSimilarity(2.0),
    ):
        with pytest.raises(ConfigError):
            make()
