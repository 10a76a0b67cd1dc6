"""Cells whose parameters are held fast, on every path, and what reads a cell that is no cell of kernels."""

import copy

import torch

from darts_core.spaces import get_space
from darts_core.strategies import FirstOrder, SearchSettings
from darts_core.supernet import Supernet
from darts_core.supernet.packed import PackedCell
from darts_core.supernet.paths import fuse

FEW = ("none", "skip_connect", "dil_conv_3x3")


def net(ops=FEW, layers=2):
    torch.manual_seed(0)
    return Supernet(get_space("darts").with_ops(ops), channels=2, layers=layers, in_channels=1)


def flags(cell):
    return {parameter.requires_grad for parameter in cell.parameters()}


def batch():
    return torch.randn(6, 1, 8, 8), torch.randint(10, (6,))


def test_what_is_held_fast_stays_so_on_every_path():
    made = net()
    for parameter in made.cells[0].parameters():
        parameter.requires_grad_(False)
    made.use_path("auto")
    assert all(isinstance(cell, PackedCell) for cell in made.cells)
    assert [flags(cell) for cell in made.cells] == [{False}, {True}]
    made(batch()[0]).sum().backward()
    assert made.cells[0].packed.grad is None
    assert made.cells[1].packed.grad is not None
    made.use_path("plain")
    assert [flags(cell) for cell in made.cells] == [{False}, {True}]


def test_a_cell_of_which_parts_are_held_fast_runs_as_modules():
    made = net()
    held = next(made.cells[0].parameters())
    held.requires_grad_(False)
    before = held.detach().clone()
    made.use_path("auto")
    assert [isinstance(cell, PackedCell) for cell in made.cells] == [False, True]
    assert "held fast" in fuse(made)["cells.0"].reasons[0]
    strategy = FirstOrder()
    strategy.setup(made, SearchSettings(), [])
    strategy.step(batch(), batch())
    assert torch.equal(next(made.cells[0].parameters()), before)


def test_optimizer_states_of_a_held_cell_whose_modules_move():
    made = net(("none", "conv_7x1_1x7", "dil_conv_3x3"))
    made.use_path("auto")
    made.cells[0].packed.requires_grad_(False)
    strategy = FirstOrder()
    strategy.setup(made, SearchSettings(), [])
    strategy.step(batch(), batch())
    saved = copy.deepcopy(strategy.state_dict())
    again = FirstOrder()
    again.setup(made, SearchSettings(), [])
    again.load_state_dict(saved)
    for one, two in zip(strategy.params, again.params, strict=True):
        momentum = strategy.optimizer.state[one]["momentum_buffer"]
        assert torch.equal(momentum, again.optimizer.state[two]["momentum_buffer"])


def test_a_cell_hands_fp32_to_what_is_no_cell_of_kernels():
    whole = net(layers=3).to("meta")
    fuse(whole, "bf16")
    assert [cell.cast_output for cell in whole.cells] == [False, False, True]
    parts = net(layers=3)
    next(parts.cells[1].parameters()).requires_grad_(False)
    fuse(parts.to("meta"), "bf16")
    assert not isinstance(parts.cells[1], PackedCell)
    assert parts.cells[0].cast_output
    assert parts.cells[2].cast_output
