"""Every strategy and relaxation on the fast path of the CPU moves as it does on plain modules."""

import copy
from pathlib import Path

import pytest
import torch
import yaml

from darts_core.spaces import get_space
from darts_core.stages.targets import instantiate
from darts_core.strategies import FirstOrder, OperationEarlyStopping, SearchSettings
from darts_core.strategies.early_stop import candidate_operations, operation_spans
from darts_core.supernet import Supernet
from darts_core.supernet.cell import SearchCell
from darts_core.supernet.packed import PackedCell

CONF = Path(__file__).resolve().parents[2] / "conf"
NAMES = {
    group: sorted(p.stem for p in (CONF / group).glob("*.yaml")) for group in ("strategy", "relax")
}
OPS = {"darts": ("none", "max_pool_3x3", "skip_connect", "dil_conv_3x3"), "nasbench201": None}
EPOCHS, STEPS = 2, 10
SMALLER = {
    "p_darts": {
        "stages": [{"skip_dropout": 0.0}, {"operations": 3, "skip_dropout": 0.4}],
        "rest_share": 0.0,
    },
    "drnas_progressive": {
        "stages": [{"channel_fraction": 2}, {"operations": 3, "channel_fraction": 1}],
        "rest_share": 0.0,
    },
    "rsps": {"samples": 4, "batches": 1, "finalists": 2},
    "random_search": {"candidates": 2},
    "zero_cost": {"samples": 4, "warm_start": 1.0},
    "regularized_evolution": {"candidates": 2, "population": 1},
    "oles": {"interval": 2, "threshold": 0.1},
    "smooth_adversarial": {"ascent_steps": 2},
    "partial_channels": {"channel_fraction": 2},
}


@pytest.fixture(autouse=True)
def doubles():
    """Progressive strategies make new modules on the way."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def made(group, name):
    node = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
    return instantiate(group, {**copy.deepcopy(node), **SMALLER.get(name, {})})


def batches(step):
    generator = torch.Generator().manual_seed(step)
    return tuple(
        (torch.randn(4, 1, 6, 6, generator=generator), torch.randint(3, (4,), generator=generator))
        for _ in range(2)
    )


def searched(path, space, strategy, relaxation):
    """(supernet, strategy, losses) after EPOCHS times STEPS steps."""
    torch.manual_seed(0)
    net = Supernet(
        get_space(space).with_ops(OPS[space]) if OPS[space] else get_space(space),
        channels=2,
        layers=1,
        num_classes=3,
        in_channels=1,
        relaxation=relaxation,
    )
    net.generator = torch.Generator().manual_seed(3)
    net.use_path(path)
    strategy.setup(net, SearchSettings(alpha_learning_rate=0.01), [])

    def accuracy(forward, _):
        images, labels = batches(1000)[0]
        net.eval()
        with torch.no_grad():
            # a share of right answers would tie: the loss decides as finely as it can
            found = -torch.nn.functional.cross_entropy(forward(images), labels)
        net.train()
        return float(found)

    strategy.evaluator = accuracy
    losses = []
    for epoch in range(EPOCHS):
        strategy.alpha_active = True
        net.progress.fill_(epoch / EPOCHS)
        strategy.start_epoch(epoch, EPOCHS)
        for step in range(STEPS):
            stats = strategy.step(*batches(epoch * STEPS + step))
            losses.append(float(stats.params_loss))
        strategy.end_epoch(epoch, EPOCHS)
    return net, strategy, losses


def compare(space, make):
    plain, first, losses = searched("plain", space, *make())
    fast, second, found = searched("batched", space, *make())
    assert fast.path == "batched"
    cells = [cell for cell in fast.modules() if isinstance(cell, SearchCell)]
    assert cells
    assert all(isinstance(cell, PackedCell) for cell in cells)
    for a, b in zip(fast.alphas(), plain.alphas(), strict=True):
        assert (a - b).abs().max() <= 1e-5
    torch.testing.assert_close(torch.tensor(found), torch.tensor(losses), atol=1e-6, rtol=0)
    assert second.architecture() == first.architecture()
    return first, second


@pytest.mark.parametrize("strategy", NAMES["strategy"])
@pytest.mark.parametrize("space", OPS)
def test_strategies(space, strategy):
    compare(space, lambda: (made("strategy", strategy), made("relax", "softmax")))


@pytest.mark.parametrize("relaxation", NAMES["relax"])
@pytest.mark.parametrize("space", OPS)
def test_relaxations(space, relaxation):
    compare(space, lambda: (FirstOrder(), made("relax", relaxation)))


def test_early_stopping_freezes_the_same_operations_on_every_path():
    # above 0, which is the cosine of what was not drawn
    make = lambda: (OperationEarlyStopping(threshold=0.3, interval=2), made("relax", "gumbel"))  # noqa: E731
    first, second = compare("darts", make)
    assert torch.equal(first.frozen, second.frozen)
    assert 0 < first.frozen.sum() < len(first.frozen)
    before = second.supernet.state_dict()
    held = {name: value.clone() for name, value in before.items()}
    second.step(*batches(99))
    spans = operation_spans(first.supernet)
    names = [name for name, _ in first.supernet.named_parameters()]
    after = second.supernet.state_dict()
    for group, frozen in zip(spans, first.frozen.tolist(), strict=True):
        same = all(torch.equal(after[names[i]], held[names[i]]) for i, _ in group)
        assert same == frozen


def test_spans_are_those_of_the_operations():
    nets = [searched_net(path) for path in ("plain", "batched")]
    sizes = [
        [
            sum(list(net.parameters())[i].flatten()[span].numel() for i, span in group)
            for group in operation_spans(net)
        ]
        for net in nets
    ]
    assert sizes[0] == sizes[1]
    assert len(sizes[0]) == len(candidate_operations(nets[0]))
    assert not candidate_operations(nets[1])


def searched_net(path):
    net = Supernet(get_space("darts"), channels=2, layers=1, num_classes=3, in_channels=1)
    net.use_path(path)
    return net
