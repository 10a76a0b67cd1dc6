"""Single architectures out of a supernet are judged with norms on the batch's statistics."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from darts_core.data import RawData, make_bundle
from darts_core.relax import GumbelStraightThrough, ReinMax, Softmax
from darts_core.search import SearchConfig, search
from darts_core.search.guards import fixed_batch
from darts_core.search.measure import metric_on
from darts_core.spaces import get_space
from darts_core.strategies import FirstOrder, PerturbationSelection
from darts_core.supernet import create_supernet, frozen_statistics, under_batch_statistics

SIZES = {"channels": 4, "layers": 1, "num_classes": 3, "in_channels": 1}


def bundle(count=56):
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 3
    images = rng.integers(0, 90, (count, 1, 8, 8)).astype(np.uint8)
    images[:, 0, :3] += (labels * 80)[:, None, None].astype(np.uint8)
    return make_bundle("made", RawData(images, labels, ("a", "b", "c"), "made")).without_test()


def supernet(space, relax=GumbelStraightThrough):
    torch.manual_seed(0)
    return create_supernet(get_space(space), relaxation=relax(), image_size=8, **SIZES)


@pytest.mark.parametrize("norm", [torch.nn.BatchNorm2d, torch.nn.InstanceNorm2d])
def test_norms_of_every_kind_keep_their_running_statistics(norm):
    net = torch.nn.Sequential(norm(3, track_running_stats=True)).train()
    x, before = torch.randn(4, 3, 5, 5) + 2.0, copy.deepcopy(net.state_dict())
    expected = copy.deepcopy(net)(x)
    with frozen_statistics(net):
        torch.testing.assert_close(net(x), expected)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    net(x)
    assert not torch.equal(net[0].running_mean, before["0.running_mean"])


@pytest.mark.parametrize("space", ["convnet", "nasbench201"])
def test_outputs_are_those_in_training_and_nothing_moves(space):
    net = supernet(space).eval()
    picked = net.one_hot(net.space.random(np.random.default_rng(1)))
    x = torch.randn(6, 1, 8, 8)
    trained = copy.deepcopy(net).train()
    expected = trained(x, picked).detach()
    before, drawn = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    forward = under_batch_statistics(net, picked)
    torch.testing.assert_close(forward(x), expected)
    # filled up with the end of the first batch
    torch.testing.assert_close(forward(x[:2]), expected[:2])
    assert not torch.allclose(net(x, picked), expected), "running statistics answer otherwise"
    assert not net.training
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(
        torch.equal(a, b) for a, b in zip(before.values(), net.state_dict().values(), strict=True)
    )


def test_a_single_sample_is_answered_with_running_statistics():
    net = supernet("convnet").eval()
    picked = net.one_hot(net.discretize())
    x = torch.randn(1, 1, 8, 8)
    torch.testing.assert_close(under_batch_statistics(net, picked)(x), net(x, picked).detach())


@pytest.mark.parametrize(
    ("relax", "single"), [(GumbelStraightThrough, True), (ReinMax, True), (Softmax, False)]
)
def test_val_is_that_of_the_pick_where_single_architectures_are_trained(relax, single):
    net, data = supernet("convnet", relax), bundle(300)
    found = search(net, FirstOrder(), data, SearchConfig(epochs=3, batch_size=8), seed=3)
    inputs, targets = map(torch.cat, zip(*data.batches("val", 8, drop_last=False), strict=True))
    weights = {label: torch.as_tensor(w).float() for label, w in net.final_weights().items()}

    def right(outputs):
        return float((outputs.argmax(1) == targets).float().mean())

    def in_batches(forward):
        return right(torch.cat([forward(x) for x in inputs.split(8)]))

    of_pick = in_batches(under_batch_statistics(net, net.one_hot(found.architecture)))
    of_mixture = in_batches(lambda x: net.eval()(x, weights))
    assert found.val == pytest.approx(of_pick if single else of_mixture)
    assert of_pick != of_mixture, "the two must differ for this test to tell them apart"


def test_val_is_that_of_the_pick_while_operations_are_decided_one_by_one():
    net, strategy = supernet("nasbench201"), PerturbationSelection()
    strategy.setup(net, SearchConfig())
    # alpha prefers another operation on the edge that is decided
    with torch.no_grad():
        net.alpha["cell"][0, 3] = 1.0
    strategy.chosen["cell"][0], strategy.decided = 2, 1
    picked, x = strategy.current(), torch.randn(6, 1, 8, 8)
    assert picked.cell("cell").edges[0] == (0, 1, net.space.ops[2])
    expected = under_batch_statistics(net, net.one_hot(picked))(x)
    assert torch.equal(strategy.predictor()(x), expected)


def test_batches_that_judge_are_of_all_classes_where_the_samples_lie_class_by_class():
    """As those of image folders do."""
    labels = np.repeat(np.arange(3), 60)
    images = np.broadcast_to((80 * labels).astype(np.uint8)[:, None, None, None], (180, 1, 8, 8))
    raw = RawData(np.ascontiguousarray(images), labels, ("a", "b", "c"), "made")
    data = make_bundle("made", raw).without_test()
    seen = []

    def forward(inputs):
        seen.append(inputs[:, 0, 0, 0].unique().tolist())
        return torch.zeros(len(inputs), 3)

    for _ in range(2):
        metric_on(forward, data, 16, "alpha", batches=2)
    assert [len(values) for values in seen] == [3, 3, 3, 3]
    context = SimpleNamespace(bundle=data, config=SearchConfig(batch_size=16))
    (_, targets), (_, again) = (fixed_batch(context, "alpha") for _ in range(2))
    assert sorted(targets.unique().tolist()) == [0, 1, 2]
    assert torch.equal(targets, again)
