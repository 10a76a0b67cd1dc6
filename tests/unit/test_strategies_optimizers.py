"""Optimizers of the search: one packed vector or many parameters, this device or another."""

import copy

import pytest
import torch
from torch import nn

from darts_core.spaces import get_space
from darts_core.strategies import FirstOrder, SearchSettings, Unrolled
from darts_core.strategies.optimizers import (
    alpha_optimizer,
    load_optimizer,
    params_optimizer,
    set_learning_rate,
)
from darts_core.supernet import Supernet

SHAPES = [(4, 3, 3, 3), (4, 4, 1, 1), (7,)]


def parameters(dtype=torch.float64):
    return [nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in SHAPES]


def packed(tensors):
    return nn.Parameter(torch.cat([t.detach().reshape(-1) for t in tensors]))


@pytest.mark.parametrize(
    ("ours", "plain"),
    [
        (lambda ps: params_optimizer(ps, lr=0.1, momentum=0.9, weight_decay=1e-2),
         lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9, weight_decay=1e-2, foreach=True)),
        (lambda ps: alpha_optimizer(ps, lr=0.1, betas=(0.5, 0.999), weight_decay=1e-2),
         lambda ps: torch.optim.Adam(ps, lr=0.1, betas=(0.5, 0.999), weight_decay=1e-2, foreach=True)),
    ],
    ids=["sgd", "adam"],
)  # fmt: skip
def test_a_fused_update_of_the_packed_vector_is_that_of_the_parameters(ours, plain):
    torch.manual_seed(0)
    many = parameters()
    one = packed(many)
    single, several = ours([one]), plain(many)
    single.param_groups[0].update(fused=True, foreach=False)  # as on a GPU
    for _ in range(3):
        for parameter in many:
            parameter.grad = torch.randn_like(parameter)
        one.grad = torch.cat([p.grad.reshape(-1) for p in many])
        norm = nn.utils.clip_grad_norm_(many, 0.5)
        assert torch.allclose(nn.utils.clip_grad_norm_([one], 0.5), norm, rtol=1e-12)
        single.step(), several.step()
    right = torch.cat([p.detach().reshape(-1) for p in many])
    assert torch.allclose(one.detach(), right, atol=1e-12)


@pytest.mark.parametrize("kind", ["params", "alpha"])
def test_a_state_from_a_gpu_goes_on_here(kind):
    torch.manual_seed(0)

    def make(ps):
        if kind == "params":
            return params_optimizer(ps, lr=0.1, momentum=0.9, weight_decay=1e-2)
        return alpha_optimizer(ps, lr=0.1, betas=(0.5, 0.999), weight_decay=1e-2)

    def move(optimizer, ps, seed):
        generator = torch.Generator().manual_seed(seed)
        for p in ps:
            p.grad = torch.randn(p.shape, dtype=p.dtype, generator=generator)
        optimizer.step()

    one = parameters()
    two = [nn.Parameter(p.detach().clone()) for p in one]
    first, second = make(one), make(two)
    move(first, one, 0), move(second, two, 0)
    set_learning_rate(first, 0.05)
    state = copy.deepcopy(first.state_dict())
    # as a GPU would have saved it
    for group in state["param_groups"]:
        group.update(fused=True, lr=torch.tensor(0.05, dtype=torch.float64))
        if kind == "alpha":
            group["capturable"] = True
    load_optimizer(second, state)
    assert second.param_groups[0]["lr"] == 0.05
    assert not second.param_groups[0]["fused"]
    assert not second.param_groups[0].get("capturable")
    move(first, one, 1), move(second, two, 1)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_a_rate_that_is_a_tensor_stays_one():
    optimizer = torch.optim.SGD(parameters(), lr=torch.tensor(0.1), fused=True)
    state = torch.optim.SGD(parameters(), lr=0.3).state_dict()
    load_optimizer(optimizer, state)
    rate = optimizer.param_groups[0]["lr"]
    assert isinstance(rate, torch.Tensor)
    assert rate.item() == pytest.approx(0.3)
    assert optimizer.param_groups[0]["fused"]


@pytest.mark.gpu
@pytest.mark.parametrize("strategy", [FirstOrder, Unrolled])
@pytest.mark.parametrize("space", ["darts", "nasbench201"])
def test_a_step_waits_for_nothing(space, strategy):
    net = Supernet(get_space(space), channels=4, layers=3).cuda().train()
    net.use_path("auto")
    found = strategy()
    found.setup(net, SearchSettings(), [])
    assert found.optimizer.param_groups[0]["fused"]
    assert found.alpha_optimizer.param_groups[0]["fused"]
    batches = [(torch.randn(8, 3, 16, 16).cuda(), torch.randint(10, (8,)).cuda()) for _ in range(2)]
    found.step(*batches)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found.step(*batches)
    finally:
        torch.cuda.set_sync_debug_mode("default")
