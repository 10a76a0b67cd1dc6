"""What the plan cannot take from the primitives of a user's operation is computed by its module."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from darts_core.errors import ConfigError
from darts_core.ops import OPS, register_op
from darts_core.ops.base import check_op
from darts_core.ops.conv import DilatedConv
from darts_core.ops.primitives import AvgPool, BatchNorm, Depthwise, MaxPool, Pointwise, Relu
from darts_core.settings import from_plain
from darts_core.spaces import get_space
from darts_core.stages.schema import SearchStage
from darts_core.stages.search_setup import make_supernet
from darts_core.supernet import Supernet
from darts_core.supernet.branches import branch_of
from darts_core.supernet.packed import PackedCell
from darts_core.supernet.plan import plan_cell


class OwnPool(nn.MaxPool2d):
    """The DARTS space puts norms behind the two pools that it knows, and none behind this one."""

    def __init__(self, channels, stride, *, affine):
        super().__init__(5, stride, 2)

    def primitives(self):
        return [MaxPool(5, self.stride)]


def own_norm(channels, stride, *, affine):
    operation = DilatedConv(channels, stride, affine=affine, kernel=3)
    operation[3].eps, operation[3].momentum = 1e-3, 0.01
    return operation


class Scaled(DilatedConv):
    """Inherits primitives that know nothing of its own forward."""

    def __init__(self, channels, stride, *, affine):
        super().__init__(channels, stride, affine=affine, kernel=3)

    def forward(self, x):
        return 2 * super().forward(x)


def by_stride(channels, stride, *, affine):
    return DilatedConv(channels, stride, affine=affine, kernel=3 if stride == 1 else 5)


class Turned(nn.Module):
    """Its modules were made in another order than they run in."""

    def __init__(self, channels, stride, *, affine):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=affine)
        self.point = nn.Conv2d(channels, channels, 1, bias=False)
        self.deep = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
        self.step = stride

    def forward(self, x):
        return self.norm(self.point(self.deep(torch.relu(x))))

    def primitives(self):
        return [Relu(), Depthwise(3, stride=self.step), Pointwise(), BatchNorm(False)]


OWN = {
    "test_own_pool": OwnPool,
    "test_own_norm": own_norm,
    "test_scaled": Scaled,
    "test_by_stride": by_stride,
    "test_turned": Turned,
}
for _name, _make in OWN.items():
    if _name not in OPS:
        register_op(_name, description="a user's operation")(_make)


def nets(name):
    torch.manual_seed(0)
    space = get_space("darts").with_ops(["none", "skip_connect", "sep_conv_3x3", name])
    plain = Supernet(space, channels=4, layers=3, in_channels=1).double()
    fast = copy.deepcopy(plain)
    assert fast.use_path("auto") == "batched"
    return plain, fast


@pytest.mark.parametrize("name", OWN)
def test_what_primitives_leave_out_is_computed_by_the_module(name):
    plain, fast = nets(name)
    assert all(isinstance(cell, PackedCell) for cell in fast.cells)
    assert fast.cells[1].plan.loose == (3,)
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    right, found = plain(x), fast(x)
    assert torch.allclose(found, right, atol=1e-10)
    right.square().sum().backward(), found.square().sum().backward()
    for a, b in zip(fast.alphas(), plain.alphas(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-10)
    left, other = plain.state_dict(), fast.state_dict()
    assert left.keys() == other.keys()
    for key, value in left.items():
        assert torch.allclose(other[key], value, atol=1e-10), key
    assert torch.allclose(fast.eval()(x), plain.eval()(x), atol=1e-10)


@pytest.mark.parametrize("name", OWN)
def test_on_a_gpu_the_reason_names_the_operation(name):
    plain, _ = nets(name)
    plan = plan_cell(plain.cells[1], plain.cells[1].channels)
    assert plan.layout is None
    assert f"'{name}'" in "; ".join(plan.reasons)


def test_an_operation_of_the_same_parts_has_a_form():
    class Wider(DilatedConv):
        """Another kernel alone: what it inherits is still right."""

        def __init__(self, channels, stride, *, affine):
            super().__init__(channels, stride, affine=affine, kernel=7, dilation=1)

    assert branch_of(Wider(2, 1, affine=False)).filters == ((7, 1),)
    pooled = nn.Sequential(OwnPool(2, 1, affine=False), nn.BatchNorm2d(2, affine=False))
    assert branch_of(pooled).pool == 5


@pytest.mark.parametrize(
    ("primitive", "has_a_form"),
    [
        (MaxPool(11), True),
        (MaxPool(13), False),  # the place of a maximum is held in eight bits
        (MaxPool(2), False),
        (AvgPool(15), True),
        (AvgPool(17), False),
        (AvgPool(4), False),
    ],
)
def test_pools_of_which_sizes_have_a_form(primitive, has_a_form):
    module = nn.Identity()
    module.primitives = lambda: [primitive]
    assert (branch_of(module) is not None) is has_a_form


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (
            lambda channels, stride, *, affine: nn.Conv2d(channels, channels, 3, stride),
            r"'mine' at stride 1 makes \[2, 4, 6, 6\] of \[2, 4, 8, 8\]; it must make \[2, 4, 8, 8\]",
        ),
        (lambda channels, stride: nn.Identity(), "'mine' cannot be made: .*affine"),
        (lambda channels, stride, *, affine: None, "'mine' makes a NoneType"),
    ],
)
def test_an_operation_that_is_none_is_refused_by_its_name(monkeypatch, made, words):
    monkeypatch.setattr(OPS, "_entries", dict(OPS._entries))
    register_op("mine", description="of somebody")(made)
    check_op.cache_clear()
    search = {"channels": 4, "layers": 1}
    relax = {"_target_": "darts_core.relax.Softmax"}
    config = from_plain(SearchStage, {"search": search, "relax": relax})
    bundle = SimpleNamespace(num_outputs=3, in_channels=1, input_shape=(1, 8, 8))
    space = get_space("darts").with_ops(("skip_connect", "mine"))
    for device in ("meta", "cpu"):  # where it is only described, too
        with pytest.raises(ConfigError, match=words), torch.device(device):
            make_supernet(config, space, bundle, torch.device(device))


def test_an_operation_that_needs_more_than_the_trial_gives_is_left_to_the_search(monkeypatch):
    class OnGpuAlone(nn.Identity):
        def forward(self, x):
            raise RuntimeError("this kernel is for a GPU")

    monkeypatch.setattr(OPS, "_entries", dict(OPS._entries))
    made = register_op("mine", description="of somebody")
    made(lambda channels, stride, *, affine: OnGpuAlone())
    check_op.cache_clear()
    check_op("mine", 4, 1)
