"""Memory that an elastic training gives back to the system."""

import copy

import pytest
import torch
from torch import nn

from darts_core.elastic import Sandwich, elastic, resident
from darts_core.elastic.resident import ResidentMemory

needs_glibc = pytest.mark.skipif(resident._malloc_trim() is None, reason="no malloc_trim here")
MIB = 2**20


def _scripted(monkeypatch, values):
    """Resident memory by script, in MiB; what was given back is counted."""
    left, given_back = iter(values), []
    monkeypatch.setattr(resident, "_resident", lambda: next(left) * MIB)
    monkeypatch.setattr(resident, "_malloc_trim", lambda: given_back.append)
    return given_back


def _passes(memory, count):
    for _ in range(count):
        memory.passed()


def test_memory_is_given_back_once_it_grew_past_a_fifth_more_than_a_pass_took(monkeypatch):
    # given back at 100; the whole network takes 1000; up to 1300 is let be; back to 110, thus up to 1310
    given_back = _scripted(monkeypatch, [100, 1100, 1250, 1299, 1301, 110, 900, 1309, 1311, 105])
    memory, x = ResidentMemory(), torch.zeros(4, 3)
    memory.begin(x)
    _passes(memory, 3)
    assert len(given_back) == 1
    memory.passed()
    assert len(given_back) == 2
    memory.begin(x)
    _passes(memory, 2)
    assert len(given_back) == 2
    memory.passed()
    assert memory.trims == len(given_back) == 3


def test_memory_is_not_given_back_at_every_pass_where_a_later_one_keeps_more(monkeypatch):
    """The first pass left 6 MiB, as all large tensors were returned; each later one 100."""
    given_back = _scripted(monkeypatch, [100, 106, 206, 100, *[200] * 7])
    memory = ResidentMemory()
    memory.begin(torch.zeros(4, 3))
    _passes(memory, 9)
    assert memory.trims == len(given_back) == 2


def test_what_other_parts_of_the_process_hold_or_free_does_not_matter_for_long(monkeypatch):
    # 4000 are freed beside us in the first pass: 500 and 64 are the next limit; then 2000 are taken for good
    given_back = _scripted(
        monkeypatch, [4500, 500, 560, 565, 500, 520, 2520, 2500, 2520, 2530, 2520]
    )
    memory = ResidentMemory()
    memory.begin(torch.zeros(4, 3))
    _passes(memory, 2)
    assert len(given_back) == 1
    _passes(memory, 3)
    assert len(given_back) == 3
    _passes(memory, 3)
    assert len(given_back) == 3


def test_a_larger_batch_is_measured_anew_and_a_smaller_one_is_not(monkeypatch):
    given_back = _scripted(monkeypatch, [100, 200, 200, 100, 1100, 1299, 1301, 100])
    memory = ResidentMemory()
    memory.begin(torch.zeros(4, 3))
    memory.passed()
    memory.begin(torch.zeros(2, 3))
    memory.passed()
    assert len(given_back) == 1
    memory.begin(torch.zeros(16, 3))
    _passes(memory, 2)  # takes 1000: up to 1300 is let be
    assert len(given_back) == 2
    memory.passed()
    assert len(given_back) == 3


def test_nothing_is_asked_of_another_c_library_or_of_a_gpu(monkeypatch):
    def never():
        raise AssertionError

    monkeypatch.setattr(resident, "_resident", never)
    monkeypatch.setattr(resident, "_malloc_trim", lambda: None)
    memory = ResidentMemory()
    memory.begin(torch.zeros(4))
    memory.passed()
    monkeypatch.setattr(resident, "_malloc_trim", never)
    memory.begin(torch.zeros(4, device="meta"))
    memory.passed()
    assert memory.trims == 0


@needs_glibc
def test_pages_between_kept_pieces_go_back_to_the_system():
    memory = ResidentMemory()
    memory.begin(torch.zeros(4))
    memory.passed()
    freed, kept = [], []
    for _ in range(3200):  # 100 MiB in pieces that the allocator takes from its heap
        freed.append(torch.ones(8192))
        kept.append(torch.ones(64))
    before = resident._resident()
    freed.clear()
    memory.passed()
    # none without it; fewer than 100 MiB where earlier tests have left the heap in pieces
    assert before - resident._resident() > 20 * MIB
    assert memory.trims == 2


@needs_glibc
def test_an_elastic_training_watches_its_memory_and_can_be_copied(monkeypatch):
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    x, y = torch.randn(4, 1, 8), torch.tensor([0, 1, 2, 0])
    net = elastic(model, x)
    sandwich = Sandwich(net)
    watched = []
    monkeypatch.setattr(ResidentMemory, "passed", lambda self: watched.append(self))
    sandwich.backward(x, lambda output: nn.functional.cross_entropy(output, y))
    assert len(watched) == len(sandwich.choices())
    assert watched[0].trims == 1
    copy.deepcopy(watched[0])
