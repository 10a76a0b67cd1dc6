"""The changes that `benchmarks.alpha_methods` tries: weights that sum to one, a penalty that sharpens."""

import numpy as np
import pytest
import torch

from benchmarks.alpha_methods import Entropy, averaged
from darts_core.relax import Dropout
from darts_core.search import SearchResult
from darts_core.spaces import get_space
from darts_core.spaces.toy import PLANTED


def test_what_is_not_dropped_shares_the_whole_weight_and_at_the_end_nothing_is_dropped():
    alpha_EK = torch.tensor([[0.0, 1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    relaxation, generator = Dropout(chance=0.5), torch.Generator().manual_seed(0)
    drawn = torch.stack([relaxation.weights(alpha_EK, 0.0, generator) for _ in range(200)])
    assert torch.allclose(drawn.sum(-1), torch.ones(200, 2))
    assert (drawn == 0).float().mean() == pytest.approx(0.5, abs=0.08)
    assert torch.allclose(relaxation.weights(alpha_EK, 1.0, generator), alpha_EK.softmax(-1))
    # an operation that is not allowed has no weight, even where all the others are dropped
    alpha_EK[:, 1:] = -torch.inf
    only = torch.stack([relaxation.weights(alpha_EK, 0.0, generator) for _ in range(50)])
    assert torch.equal(only, torch.tensor([1.0, 0, 0, 0]).expand(50, 2, 4))


def test_the_entropy_penalty_rises_with_the_search_and_pulls_the_weights_apart():
    alpha_EK = torch.tensor([[0.0, 0.5]], requires_grad=True)
    penalty = Entropy(end=2.0)
    assert penalty.of_alphas({"cell": alpha_EK}, 0.0) == 0
    value = penalty.of_alphas({"cell": alpha_EK}, 0.5)
    weight_K = alpha_EK.softmax(-1)[0]
    assert value.item() == pytest.approx(-(weight_K * weight_K.log()).sum().item())
    (gradient,) = torch.autograd.grad(value, alpha_EK)
    assert gradient[0, 0] > 0 > gradient[0, 1]


def test_weights_are_averaged_over_the_epochs_in_which_alpha_moved():
    space = get_space("toy")
    columns = [space.ops.index(op) for op in PLANTED]

    def row(right: float, wrong: float) -> dict:
        edges = [[wrong] * len(space.ops) for _ in PLANTED]
        for edge, column in zip(edges, columns, strict=True):
            edge[column] = right
        return {"alphas": {"cell": edges}}

    history = [row(0.0, 9.0), row(0.9, 0.1), row(0.1, 0.3)]
    found = averaged(
        space, SearchResult(space.random(np.random.default_rng(0)), history=history), 1
    )
    assert tuple(op for _, _, op in found.cell("cell").edges) == PLANTED
