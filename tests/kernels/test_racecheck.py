"""Planted faults, each of one kind: the checker sees every one of them, and nothing in sound kernels."""

import os

import pytest
import torch
import triton
import triton.language as tl

from tests.kernels import racecheck

pytestmark = [
    pytest.mark.interpret,
    pytest.mark.skipif(
        os.environ.get("TRITON_INTERPRET") != "1",
        reason="programs are looked at in the interpreter",
    ),
]


@pytest.fixture(autouse=True)
def looked_at():
    """With or without the plugin, these launches are looked at, each anew."""
    with racecheck.looking():
        yield


@triton.jit
def _double(x_ptr, out_ptr, count, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + i, 2 * tl.load(x_ptr + i, mask=i < count), mask=i < count)


@triton.jit
def _unmasked(x_ptr, out_ptr, count, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + i, tl.load(x_ptr + i), mask=i < count)


@triton.jit
def _store_too_far(x_ptr, out_ptr, count, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + i + 1, tl.load(x_ptr + i, mask=i < count), mask=i < count)


@triton.jit
def _all_write_the_first(x_ptr, out_ptr, count, BLOCK: tl.constexpr):
    tl.store(out_ptr, tl.load(x_ptr))


@triton.jit
def _one_store_twice(x_ptr, out_ptr, count, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + i // 2, tl.load(x_ptr + i, mask=i < count), mask=i < count)


@triton.jit
def _running_sum(x_ptr, out_ptr, count, BLOCK: tl.constexpr):
    i = tl.program_id(0)
    before = tl.load(out_ptr + i - 1, mask=i > 0, other=0.0)
    tl.store(out_ptr + i, before + tl.load(x_ptr + i))


@triton.jit
def _reads_back(x_ptr, out_ptr, count, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + i, tl.load(x_ptr + i, mask=i < count), mask=i < count)
    tl.store(x_ptr + i, tl.load(out_ptr + i, mask=i < count), mask=i < count)


@triton.jit
def _in_order_of_tickets(x_ptr, out_ptr, count, BLOCK: tl.constexpr):
    ticket = tl.atomic_add(x_ptr, 1.0)
    tl.store(out_ptr + tl.program_id(0), ticket)


@triton.jit
def _last_one_sums(x_ptr, out_ptr, count, BLOCK: tl.constexpr):
    part = tl.program_id(0)
    tl.store(out_ptr + part, tl.load(x_ptr + part) * 2)
    ticket = tl.atomic_add(x_ptr + count - 1, 1.0)
    if ticket == count - 3:
        i = tl.arange(0, BLOCK)
        tl.store(out_ptr + count - 1, tl.sum(tl.load(out_ptr + i, mask=i < 2, other=0.0)))


def launched(kernel, programs, count=7, block=4):
    x, out = torch.rand(count), torch.zeros(count)
    kernel[(programs,)](x, out, count, BLOCK=block)
    return x, out


def test_a_sound_kernel_passes_and_its_result_stays():
    x, out = launched(_double, 2)
    assert torch.equal(out, 2 * x)
    assert racecheck.STATE.counts["_double"] > 0


@pytest.mark.parametrize(
    ("kernel", "programs", "words"),
    [
        (_unmasked, 2, "leaves the tensors"),
        (_store_too_far, 2, "leaves the tensors"),
        (_all_write_the_first, 2, "two programs write one address"),
        (_one_store_twice, 2, "writes an address twice"),
        (_running_sum, 7, "reads what another one writes"),
        (_reads_back, 2, "loads what it stored itself"),
        (_in_order_of_tickets, 3, "order of programs gives another result"),
    ],
)
def test_a_planted_fault_is_seen(kernel, programs, words):
    with pytest.raises(racecheck.RaceError, match=words):
        launched(kernel, programs)


def test_an_access_between_two_tensors_of_a_launch_is_seen():
    """A section of packed values is a tensor of its own: its neighbours do not belong to the launch."""
    packed = torch.rand(12)
    with pytest.raises(racecheck.RaceError, match="leaves the tensors"):
        _unmasked[(2,)](packed[:7], torch.zeros(7), 7, BLOCK=4)


def test_orders_that_an_atomic_makes_are_allowed():
    x, out = torch.tensor([3.0, 4.0, 0.0, 0.0]), torch.zeros(4)
    _last_one_sums[(2,)](x, out, 4, BLOCK=4)
    assert out.tolist() == [6, 8, 0, 14]
