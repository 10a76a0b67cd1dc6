"""Networks, data and loops as people write them: shared parts, inputs written into, other outputs."""

import torch
from elastic_cases import drawn
from torch import nn
from torch.nn import functional

from darts_core.train.teacher import Teacher, _fingerprints

LOSS = functional.cross_entropy


def _classes(count=8):
    return torch.arange(count) % 5


def test_values_of_double_precision_that_differ_in_their_sign_are_two_inputs():
    """The teacher answered -x with what it had said of x: in both products their highest bits were lost."""
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3).double(), drawn(2, 4, dtype=torch.float64)
    teacher = Teacher(model)
    teacher(x)
    assert torch.equal(teacher(-x), model(-x))
    assert teacher.asked == 2
    generator = torch.Generator().manual_seed(0)
    ones = torch.randint(0, 2, (4000, 40), generator=generator).double()
    for values in (ones, 2 * ones - 1):
        assert len(set(_fingerprints(values))) == len(values.unique(dim=0)) == 4000


def test_fingerprints_of_other_types_are_those_of_older_states():
    row = torch.tensor([[0.0, 1.0, -2.5, 7.0]])
    keys = {kind: _fingerprints(row.to(kind))[0].hex() for kind in (torch.float32, torch.float16)}
    keys[torch.int64] = _fingerprints(torch.tensor([[0, 1, 50_000, 7]]))[0].hex()
    assert keys == {
        torch.float32: "00008073612bc658000000009ec4c738",
        torch.float16: "005c08f46528f6f10040b916dd7e2140",
        torch.int64: "d23265f77b7a3e0572704ba7ed2ba84a",
    }
