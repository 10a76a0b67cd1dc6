"""An operation without a form of the plan runs as its module; the others of its cell stay on the plan."""

import copy

import pytest
import torch

from darts_core.relax import GumbelStraightThrough, PartialChannels
from darts_core.spaces import get_space
from darts_core.strategies import FirstOrder, SearchSettings
from darts_core.supernet import Supernet
from darts_core.supernet.batched import BatchedSearchCell
from darts_core.supernet.packed import PackedCell
from darts_core.supernet.plan import plan_cell

OPS = ("none", "conv_7x1_1x7", "max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3")
RELAXATIONS = {
    "softmax": lambda: None,
    "partial": lambda: PartialChannels(2),
    "drawn": GumbelStraightThrough,
}


def nets(relaxation="softmax", layers=3, ops=OPS):
    torch.manual_seed(0)
    plain = Supernet(
        get_space("darts").with_ops(ops), channels=4, layers=layers, in_channels=1,
        relaxation=RELAXATIONS[relaxation](),
    ).double()  # fmt: skip
    with torch.no_grad():
        for alpha in plain.alphas():
            alpha.normal_()
    fast = copy.deepcopy(plain)
    assert fast.use_path("auto") == "batched"
    for net in (plain, fast):
        net.generator = torch.Generator().manual_seed(1)
    return plain, fast


def images(side=8):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(4, 1, side, side, dtype=torch.float64, generator=generator)


def test_the_plan_keeps_all_other_operations():
    _, fast = nets()
    for cell in fast.cells:
        assert isinstance(cell, BatchedSearchCell)
        assert cell.plan.loose == (1,)
        fused = [name for binding in cell.plan.params for name in [binding.module] if "ops" in name]
        assert {int(name.split(".")[3]) for name in fused} >= {4, 5}
        assert not any(name.split(".")[3] == "1" for name in fused)
        assert len(cell.plan.layout.first) == 2
        assert len(cell.plan.layout.max_pools) == 1
        own = [name for name, _ in cell.named_parameters() if name != "packed"]
        assert own
        assert all(name.startswith("mixed.") and ".ops.1." in name for name in own)


def test_only_the_formless_operation_runs_as_a_module(monkeypatch):
    _, fast = nets(layers=1)
    ran = []
    for mixed in fast.cells[0].mixed:
        for k, op in enumerate(mixed.ops):
            op.register_forward_hook(lambda *_, k=k: ran.append(k))
    fast(images())
    assert ran == [1] * len(fast.cells[0].mixed)


@pytest.mark.parametrize("relaxation", RELAXATIONS)
@pytest.mark.parametrize("side", [8, 7])
def test_values_gradients_and_statistics_are_the_modules(relaxation, side, cpu_form):
    plain, fast = nets(relaxation)
    x = images(side)
    right, found = plain(x), fast(x)
    assert torch.allclose(found, right, atol=1e-11)
    right.square().sum().backward(), found.square().sum().backward()
    for a, b in zip(fast.alphas(), plain.alphas(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-10)
    exact = dict(plain.named_parameters())
    zeros = {name: torch.zeros_like(p) for name, p in exact.items()}
    gradients = {name: zeros[name] if p.grad is None else p.grad for name, p in exact.items()}
    for i, cell in enumerate(fast.cells):
        assert isinstance(cell, PackedCell)
        for b in cell.plan.params:
            part = cell.packed.grad[b.start : b.start + b.count]
            whole = gradients[f"cells.{i}.{b.module}.{b.name}"].reshape(-1)
            assert torch.allclose(part, whole, atol=1e-10)
    for name, parameter in fast.named_parameters():
        if ".ops.1." in name:
            grad = zeros[name] if parameter.grad is None else parameter.grad
            assert torch.allclose(grad, gradients[name], atol=1e-10), name
    left, other = plain.state_dict(), fast.state_dict()
    assert left.keys() == other.keys()
    for name, value in left.items():
        if not (name.endswith("num_batches_tracked") and relaxation == "drawn"):
            assert torch.allclose(other[name], value, atol=1e-10), name
    assert torch.allclose(fast.eval()(x), plain.eval()(x), atol=1e-11)


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_a_search_finds_the_same(relaxation):
    plain, fast = nets(relaxation, layers=1)
    found = []
    for net in (plain, fast):
        strategy = FirstOrder()
        strategy.setup(net, SearchSettings(alpha_learning_rate=0.01), [])
        for step in range(5):
            generator = torch.Generator().manual_seed(step)
            batch = (
                torch.randn(6, 1, 8, 8, dtype=torch.float64, generator=generator),
                torch.randint(10, (6,), generator=generator),
            )
            strategy.step(batch, batch)
        found.append([alpha.detach() for alpha in net.alphas()])
    assert max((a - b).abs().max() for a, b in zip(*found, strict=True)) <= 1e-8


def test_back_to_the_module_path_with_the_values():
    plain, fast = nets()
    fast.use_path("plain")
    assert torch.allclose(fast(images()), plain(images()), atol=1e-12)


def test_on_a_gpu_the_cell_stays_on_the_module_path():
    plain, _ = nets(layers=1)
    plan = plan_cell(plain.cells[0], 4)
    assert plan.layout is None
    assert "'conv_7x1_1x7'" in "".join(plan.reasons)
