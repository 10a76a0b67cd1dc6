"""The batched path against the module path: values, gradients, state dicts, searches, checkpoints."""

import copy

import pytest
import torch
from path_cases import assert_same_state, batches, images

from darts_core.errors import ConfigError
from darts_core.search.captured import CapturedStep
from darts_core.spaces import get_space
from darts_core.strategies import FirstOrder, SearchSettings, Unrolled
from darts_core.supernet import Supernet, banded_run, batched, frozen_statistics
from darts_core.supernet.branches import branch_of
from darts_core.supernet.describe import describe_plan
from darts_core.supernet.packed import PackedCell
from darts_core.supernet.plan import plan_cell


def nets(space="darts", channels=2, layers=3, **options):
    plain = Supernet(
        get_space(space), channels=channels, layers=layers, in_channels=1, **options
    ).double()
    fast = copy.deepcopy(plain)
    assert fast.use_path("auto") == "batched"
    return plain, fast


@pytest.mark.parametrize("side", [8, 7])
def test_same_values_gradients_and_statistics(side, cpu_form):
    plain, fast = nets()
    x = images(side=side)
    right, found = plain(x), fast(x)
    assert torch.allclose(found, right, atol=1e-12)
    grad = torch.randn_like(right)
    (right * grad).sum().backward()
    (found * grad).sum().backward()
    for a, b in zip(fast.alphas(), plain.alphas(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-10)
    exact = dict(plain.named_parameters())
    for i, cell in enumerate(fast.cells):
        assert isinstance(cell, PackedCell)
        for binding in cell.plan.params:
            gradient = exact[f"cells.{i}.{binding.module}.{binding.name}"].grad.reshape(-1)
            packed = cell.packed.grad[binding.start : binding.start + binding.count]
            assert torch.allclose(packed, gradient, atol=1e-10)
    assert_same_state(plain, fast)
    assert torch.allclose(fast.eval()(x), plain.eval()(x), atol=1e-12)


def test_frozen_statistics_stay():
    _, fast = nets(layers=1)
    before = {name: value.clone() for name, value in fast.named_buffers()}
    with frozen_statistics(fast):
        frozen = fast(images())
    assert all(torch.equal(value, before[name]) for name, value in fast.named_buffers())
    assert torch.isfinite(frozen).all()
    fast(images())
    changed = [name for name, value in fast.named_buffers() if not torch.equal(value, before[name])]
    assert any("running_var" in name for name in changed)


def test_state_dicts_cross_both_ways():
    plain, fast = nets(layers=2)
    other = copy.deepcopy(plain)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    fast.load_state_dict(other.state_dict())
    x = images()
    assert torch.allclose(fast(x), other(x), atol=1e-12)
    plain.load_state_dict(fast.state_dict())
    assert_same_state(other, plain)
    assert sum(p.numel() for p in fast.parameters()) == sum(p.numel() for p in plain.parameters())


def test_back_to_the_module_path():
    plain, fast = nets(layers=2)
    x = images()
    plain(x), fast(x)
    assert fast.use_path("plain") == "plain"
    assert not any(isinstance(module, PackedCell) for module in fast.modules())
    names = [sorted(name for name, _ in net.named_parameters()) for net in (fast, plain)]
    assert names[0] == names[1]
    assert torch.allclose(fast(x), plain(x), atol=1e-12)


def test_the_form_follows_from_the_shapes(monkeypatch):
    _, fast = nets(layers=1)
    made = []
    for name in ("BandedRun", "BatchedRun"):
        kind = getattr(batched, name)
        monkeypatch.setattr(
            batched, name, lambda *args, kind=kind: made.append(kind.__name__) or kind(*args)
        )
    fast(images(4, 8)), fast(images(8, 32))
    assert made == ["BandedRun", "BatchedRun"]


def test_autocast_leaves_planned_cells_alone(cpu_form):
    net = Supernet(get_space("darts"), channels=2, layers=1, in_channels=1)
    net.use_path("batched")
    cell, dtypes = net.cells[0], []
    cell.register_forward_hook(lambda _, args, out: dtypes.append(out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        net(torch.randn(4, 1, 8, 8)).float().sum().backward()
    assert dtypes == [torch.float32]
    assert torch.isfinite(cell.packed.grad).all()


def test_the_same_bits_every_time(monkeypatch):
    monkeypatch.setattr(batched, "LARGEST_BAND", 0)
    net = Supernet(get_space("darts"), channels=4, layers=1, in_channels=1)
    net.use_path("batched")
    x = torch.randn(4, 1, 12, 12)
    found = []
    for _ in range(2):
        one = copy.deepcopy(net)
        out = one(x)
        out.square().sum().backward()
        found.append([out, *(p.grad for p in one.parameters()), *one.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    exact = copy.deepcopy(net).double()
    right = exact(x.double())
    right.square().sum().backward()
    assert torch.allclose(found[0][0].double(), right, atol=1e-4)
    for mine, cell in zip(found[0][1:], exact.parameters(), strict=False):
        assert torch.allclose(mine.double(), cell.grad, atol=1e-3 * float(cell.grad.abs().max()))


def test_a_look_in_inference_mode_spoils_no_later_step(monkeypatch):
    monkeypatch.setattr(batched, "LARGEST_BAND", float("inf"))
    for kept in (banded_run.tap_bands, banded_run.pool_matrix):
        kept.cache_clear()
    net = Supernet(get_space("darts"), channels=2, layers=1, in_channels=1)
    net.use_path("batched")
    x = torch.randn(4, 1, 8, 8)
    with torch.inference_mode():
        net.eval()(x)
    net.train()(x).sum().backward()
    assert torch.isfinite(net.cells[0].packed.grad).all()


@pytest.mark.parametrize(("strategy", "steps"), [(FirstOrder, 20), (Unrolled, 2)])
def test_same_search(strategy, steps):
    plain, fast = nets(layers=1)
    results = []
    for net in (plain, fast):
        found = strategy()
        found.setup(net, SearchSettings(alpha_learning_rate=0.01), [])
        for step in range(steps):
            found.step(*batches(step))
        results.append([alpha.detach() for alpha in net.alphas()])
    assert max((a - b).abs().max() for a, b in zip(*results, strict=True)) <= 1e-5
    assert max(alpha.abs().max() for alpha in results[0]) > 0.01


def test_optimizer_states_cross_paths():
    plain, fast = nets(layers=1)
    one, two = FirstOrder(), FirstOrder()
    one.setup(plain, SearchSettings(), [])
    two.setup(fast, SearchSettings(), [])
    one.step(*batches(0))
    fast.load_state_dict(plain.state_dict())
    # optimizers keep the tensors they load: a file would have copied them
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    one.step(*batches(1)), two.step(*batches(1))
    assert_same_state(plain, fast)
    saved, again = two.state_dict()["optimizer"], one.state_dict()["optimizer"]
    assert saved["param_groups"][0]["params"] == again["param_groups"][0]["params"]
    for index, values in again["state"].items():
        assert torch.allclose(
            saved["state"][index]["momentum_buffer"], values["momentum_buffer"], atol=1e-10
        )


def test_rebuilding_keeps_the_path():
    _, fast = nets(layers=1)
    fast.rebuild(get_space("darts").with_ops(["none", "skip_connect", "sep_conv_3x3"]), layers=2)
    assert all(isinstance(cell, PackedCell) for cell in fast.cells)


def test_cells_without_a_plan_stay_modules():
    space = get_space("darts").with_ops(["none", "skip_connect", "conv_7x1_1x7"])
    plain = Supernet(space, channels=2, layers=1, in_channels=1).double()
    net = copy.deepcopy(plain)
    net.use_path("auto")
    assert not any(isinstance(cell, PackedCell) for cell in net.cells)
    assert plan_cell(net.cells[0], 2).reasons
    assert all(mixed.lean for mixed in net.cells[0].mixed)
    x = images()
    plain(x).square().sum().backward(), net(x).square().sum().backward()
    for a, b in zip(net.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-10)
    assert torch.allclose(net.alpha["reduce"].grad, plain.alpha["reduce"].grad, atol=1e-10)
    net.use_path("plain")
    assert not any(mixed.lean for mixed in net.cells[0].mixed)


@pytest.mark.parametrize("path", ["fused", "quick"])
def test_wrong_paths(path):
    net = Supernet(get_space("darts"), channels=2, layers=1, in_channels=1)
    with pytest.raises(ConfigError, match="choose"):
        net.use_path(path)


def test_wrong_precision():
    net = Supernet(get_space("darts"), channels=2, layers=1, in_channels=1)
    with pytest.raises(ConfigError, match="tf32"):
        net.use_path("auto", "fp8")


def test_plan_of_the_darts_cell():
    net = Supernet(get_space("darts"), channels=4, layers=3, in_channels=1)
    plan = plan_cell(net.cells[1], 4)
    assert plan.layout is not None
    assert plan.layout.stride == 2
    assert plan.layout.reduction
    assert [wave[3] - wave[2] for wave in plan.layout.waves] == [8, 3, 2, 1]
    numbers = {n for n, _ in net.cells[1].named_parameters()}
    assert {f"{b.module}.{b.name}" for b in plan.params} == numbers
    rows = describe_plan(plan.layout, 64, 8, 8)
    assert len(rows) == 4
    assert all(row["bytes"] > 0 and row["flops"] > 0 for row in rows)
    assert branch_of(torch.nn.Linear(2, 2)) is None


def test_captured_step_without_a_gpu_is_the_step():
    _, fast = nets(layers=1)
    strategy = FirstOrder()
    strategy.setup(fast, SearchSettings(), [])
    step = CapturedStep(strategy, batches(0))
    before = fast.cells[0].packed.detach().clone()
    stats = step(*batches(0))
    assert torch.isfinite(stats.params_loss)
    assert not torch.equal(before, fast.cells[0].packed)
