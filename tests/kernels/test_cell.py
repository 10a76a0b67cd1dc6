"""Passes of a whole cell: evaluation, frozen parameters, many partials, and the range of 16-bit storage."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from darts_core.supernet.paths import fused_class
from darts_core.supernet.plan import plan_cell
from darts_kernels import cell_run, launch_forward
from darts_kernels.launch_backward import mixing_gradients
from darts_kernels.layout import cell_tables
from darts_kernels.testing import assert_matches

from .cells import (
    _check_params,
    away_from_zero,
    check_cell,
    input_sizes,
    make_cell,
    run,
    small_tiles,
)

OPS = ["max_pool_3x3", "sep_conv_3x3", "dil_conv_3x3"]


def fused_of(cell, precision, device, monkeypatch, size=4):
    plan = plan_cell(cell, cell.channels)
    small = small_tiles(plan.layout.channels, (size, size), 2)
    monkeypatch.setattr(cell_run, "tiles_for", lambda *_: small)
    return fused_class(plan, on_gpu=True).adopt(cell.to(device), plan, precision)


def inputs_of(rng, device, size=4):
    xs = [away_from_zero((2, 2, size, size), rng).to(device)]
    return xs, torch.rand(1, len(OPS), generator=rng).to(device)


def test_partials_merged_by_a_launch_of_their_own(device, rng, poison, monkeypatch):
    """As where they are more than their readers should merge."""
    monkeypatch.setattr(launch_forward, "_MOST_PARTS", 0)
    check_cell(make_cell(OPS), rng, device=device, height=4, width=4, monkeypatch=monkeypatch)


def test_evaluation_reads_the_running_statistics(device, rng, poison, monkeypatch):
    cell = make_cell(OPS, inputs=2, preprocess=True)
    for module in cell.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    exact = copy.deepcopy(cell).double().eval()
    plan = plan_cell(cell, cell.channels)
    fused = fused_of(cell, "fp32", device, monkeypatch).eval()
    before = {name: b.clone() for name, b in fused.named_buffers()}
    xs = [away_from_zero((2, width, 4, 4), rng) for width in plan.layout.input_channels]
    weights = torch.rand(2, len(OPS), generator=rng)
    with torch.no_grad():
        found = fused([x.to(device) for x in xs], weights.to(device))
        right = exact([x.double() for x in xs], weights.double())
    assert_matches(found.cpu(), right, right.float(), floor=1e-5, name="output")
    assert all(torch.equal(b, before[name]) for name, b in fused.named_buffers())


@pytest.mark.parametrize("reduces", [False, True])
def test_gradients_in_evaluation_have_no_part_of_the_batch(
    device, rng, poison, monkeypatch, reduces
):
    """Running statistics are constants: dy = w inv g, without the means that batch statistics bring."""
    ops = [*OPS, "skip_connect"]
    cell = make_cell(ops, inputs=2, preprocess=True, reduces=reduces).to(device).eval()
    for module in cell.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    exact, plain = copy.deepcopy(cell).double(), copy.deepcopy(cell)
    xs = [away_from_zero((2, *size), rng).to(device) for size in input_sizes(cell, 4, 4)]
    weights = torch.rand(2, len(ops), generator=rng).to(device)
    size = 2 if reduces else 4
    grad = torch.randn(2, 2, size, size, generator=rng).to(device)
    right = run(exact, xs, weights, grad, torch.float64)
    usual = run(plain, xs, weights, grad, torch.float32)
    fused = fused_of(cell, "fp32", device, monkeypatch)
    found = run(fused, xs, weights, grad, torch.float32)
    floor = 1e-5
    assert_matches(found[0], right[0], usual[0], floor=floor, name="output")
    for i, gradient in enumerate(found[1]):
        assert_matches(gradient, right[1][i], usual[1][i], floor=floor, name=f"input {i}")
    terms = float(grad.norm())
    assert_matches(found[2], right[2], usual[2], floor=floor, scale=terms, name="mixing weights")
    _check_params(fused, exact, plain, floor)


class Called(TorchDispatchMode):
    """Notes which operations torch runs."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_mixing_gradients_need_no_index_from_the_host():
    """Of a space without an identity, too, whose last slot is no operation: a captured step would wait."""
    layout = plan_cell(make_cell(["none", *OPS]), 2).layout
    assert layout.slots == (2, 3, 1, -1)
    call = SimpleNamespace(
        layout=layout,
        mix_EK=torch.rand(1, 4),
        s=SimpleNamespace(tables=cell_tables(layout, 2, 4, 4, torch.device("cpu"))),
    )
    work = SimpleNamespace(sums=torch.rand(1, 5, 2, 3))
    with Called() as called:
        found = mixing_gradients(call, work)
    assert not {"aten.index.Tensor", "aten.index_put_.default"} & set(called.names)
    totals = work.sums[:, 1:4].sum((2, 3))
    assert torch.allclose(found[:, [2, 3, 1]], totals)
    assert not found[:, 0].any()


def test_tables_that_inference_made_serve_a_backward_pass():
    layout = plan_cell(make_cell(OPS), 2).layout
    cell_tables.cache_clear()
    with torch.inference_mode():
        tables = cell_tables(layout, 3, 5, 4, torch.device("cpu"))
    assert not tables.slot_ops.is_inference()
    assert not tables.places.is_inference()


def test_tables_whose_addresses_a_recorded_step_knows_are_never_dropped():
    layout = plan_cell(make_cell(OPS), 2).layout
    cpu = torch.device("cpu")
    cell_tables.cache_clear()
    tables = cell_tables(layout, 3, 5, 4, cpu)
    for batch in range(4, 304):
        cell_tables(layout, batch, 5, 4, cpu)
    assert cell_tables(layout, 3, 5, 4, cpu) is tables


def test_frozen_parameters_leave_the_other_gradients_as_they_were(device, rng, poison, monkeypatch):
    fused = fused_of(make_cell(OPS), "fp32", device, monkeypatch)
    xs, weights = inputs_of(rng, device)
    grad = torch.randn(2, 2, 4, 4, generator=rng).to(device)
    whole = run(fused, xs, weights, grad, torch.float32)
    assert fused.packed.grad is not None
    fused.packed.requires_grad_(False)
    alone = run(fused, xs, weights, grad, torch.float32)
    assert fused.packed.grad is None
    assert torch.equal(whole[0], alone[0])
    assert torch.equal(whole[1][0], alone[1][0])
    assert torch.equal(whole[2], alone[2])


@pytest.mark.parametrize("factor", [1.0, 1e-6])
def test_16_bit_outputs_lose_nothing_that_counts(device, rng, poison, monkeypatch, factor):
    """TF32 stores outputs before their norm in fp16; the smallest of them count for little after its eps."""
    cell = make_cell(OPS)
    with torch.no_grad():
        for parameter in cell.parameters():
            if parameter.shape[-1] == 1:
                parameter.mul_(factor)
    exact = copy.deepcopy(cell).double().to(device)
    fused = fused_of(cell, "tf32", device, monkeypatch)
    xs, weights = inputs_of(rng, device)
    grad = torch.randn(2, 2, 4, 4, generator=rng).to(device)
    found = run(fused, xs, weights, grad, torch.float32)
    right = run(exact, xs, weights, grad, torch.float64)
    for name, one, other in (
        ("output", found[0], right[0]),
        ("input", found[1][0], right[1][0]),
        ("mixing weights", found[2], right[2]),
    ):
        assert_matches(one, other, other.float(), floor=2e-2, name=name)


def test_outputs_beyond_16_bits_are_never_wrong_in_silence(device, rng, monkeypatch):
    cell = make_cell(OPS)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.mul_(1e4)
    fused = fused_of(cell, "tf32", device, monkeypatch)
    xs, weights = inputs_of(rng, device)
    grad = torch.randn(2, 2, 4, 4, generator=rng).to(device)
    out, _, mix = run(fused, xs, weights, grad, torch.float32)
    assert not (out.isfinite().all() and mix.isfinite().all())
