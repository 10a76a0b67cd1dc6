"""Edges that cannot change a cell's output: left out of exported networks, and of their expected time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from darts_core.architecture import Architecture
from darts_core.export.fold import fold_batch_norms
from darts_core.latency.deployed import skip_dead
from darts_core.latency.expected import CostModel
from darts_core.spaces import get_space
from darts_core.supernet import build
from darts_core.supernet.fixed_cell import FixedCell

SPACE = get_space("nasbench201")
KIND = SPACE.cell_kinds[0]
DEAD = [
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    # node 1 is zero, and its pool and skip hand that on
    "|none~0|+|skip_connect~0|avg_pool_3x3~1|+|nor_conv_1x1~0|skip_connect~1|none~2|",
    # a convolution of zeros is its bias
    "|none~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_3x3~2|",
    # node 2 is the same for every input, and so is what a convolution makes of it
    "|none~0|+|none~0|nor_conv_1x1~1|+|nor_conv_3x3~0|none~1|nor_conv_3x3~2|",
    "|none~0|+|none~0|nor_conv_1x1~1|+|none~0|none~1|avg_pool_3x3~2|",
    # nothing reads nodes 1 and 2
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|avg_pool_3x3~0|none~1|none~2|",
]
RANDOM = [SPACE.random(np.random.default_rng(seed)).text() for seed in range(6)]


def network(text: str) -> torch.nn.Module:
    torch.manual_seed(0)
    net = build(Architecture.from_text(text), channels=4, layers=1, num_classes=3)
    for _ in range(3):  # statistics and biases away from where they begin
        net(torch.randn(8, 3, 8, 8))
    return net.eval()


def alive(cell: FixedCell) -> list[bool]:
    """What the cell computes, edge by edge, in the order of its edges."""
    seen: set[int] = set()
    hooks = [
        op.register_forward_hook(lambda *_, index=index: seen.add(index))
        for index, op in enumerate(cell.ops)
    ]
    cell([torch.randn(2, 4, 8, 8)])
    for hook in hooks:
        hook.remove()
    return [index in seen for index in range(len(cell.ops))]


@pytest.mark.parametrize("text", DEAD + RANDOM)
@torch.no_grad()
def test_outputs_stay_the_same(text):
    net = network(text)
    x = torch.randn(5, 3, 8, 8)
    right = net(x)
    torch.testing.assert_close(skip_dead(net)(x), right, rtol=0, atol=1e-6)
    assert net(x[:1]).shape == (1, 3)
    folded = fold_batch_norms(network(text), (3, 8, 8))
    torch.testing.assert_close(folded(x), right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("text", "count"), [*zip(DEAD, (0, 1, 0, 1, 0, 1), strict=True)])
@torch.no_grad()
def test_exported_networks_compute_what_depends_on_the_input_alone(text, count):
    cell = next(m for m in fold_batch_norms(network(text), (3, 8, 8)).modules()
                if isinstance(m, FixedCell))  # fmt: skip
    assert sum(alive(cell)) == count
    assert not any("constant" in name for name in cell.state_dict())


@torch.no_grad()
def test_darts_cells_stay_the_same():
    torch.manual_seed(0)
    net = build(Architecture.named("DARTS_V2"), channels=4, layers=3).eval()
    x = torch.randn(2, 3, 8, 8)
    right = net(x)
    torch.testing.assert_close(skip_dead(net)(x), right, rtol=0, atol=0)


def test_training_runs_every_edge():
    net = skip_dead(network(DEAD[5])).train()
    cell = next(m for m in net.modules() if isinstance(m, FixedCell))
    assert sum(alive(cell)) == 4  # zeros are not added, everything else runs
    assert sum(alive(cell.eval())) == 1


@torch.no_grad()
def test_an_edge_costs_what_an_exported_network_runs_of_it():
    rng = np.random.default_rng(1)
    texts = [*DEAD, *(SPACE.random(rng).text() for _ in range(250))]
    shape = SPACE.alpha_shapes()[KIND]
    cost_EK = rng.uniform(1, 2, shape)
    cost_EK[:, SPACE.ops.index("none")] = 0.0
    model = CostModel(SPACE, {KIND: cost_EK}, lean=True)
    for text in texts:
        choice = Architecture.from_text(text).cell(KIND)
        cell = skip_dead(FixedCell(choice, 4)).eval()
        cell.keeping = True
        cell([torch.randn(2, 4, 8, 8)])  # what is the same for every input is kept
        cell.keeping = False
        runs = alive(cell)
        weight_EK = torch.zeros(shape)
        right = 0.0
        for (source, target, op), run in zip(choice.edges, runs, strict=True):
            row, column = SPACE.edges.index((source, target)), SPACE.ops.index(op)
            weight_EK[row, column] = 1.0
            right += float(cost_EK[row, column]) * run
        assert model.of(Architecture.from_text(text)) == pytest.approx(right, rel=1e-6), text
        assert float(model({KIND: weight_EK})) == pytest.approx(right, rel=1e-5), text


def test_expected_time_of_dead_edges_is_differentiable():
    model = CostModel(SPACE, {KIND: np.ones(SPACE.alpha_shapes()[KIND])}, lean=True)
    alpha = torch.randn(SPACE.alpha_shapes()[KIND], dtype=torch.float64, requires_grad=True)
    model = model.double()
    assert torch.autograd.gradcheck(lambda a: model({KIND: a.softmax(1)}), (alpha,))
