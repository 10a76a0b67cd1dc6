"""Operations of weight zero are not evaluated: values, gradients, statistics, on every CPU path."""

import copy

import pytest
import torch
from path_cases import batches, images
from torch import nn

from darts_core.relax import GumbelStraightThrough
from darts_core.spaces import get_space
from darts_core.strategies import FirstOrder, SearchSettings, Unrolled
from darts_core.supernet import LayerChoice, ModuleSupernet, Supernet, frozen_statistics
from darts_core.supernet.drawn import drawn_columns, only_drawn


def make(space="darts", layers=3, *, sparse=True, **options):
    torch.manual_seed(0)
    net = Supernet(
        get_space(space),
        channels=2,
        layers=layers,
        in_channels=1,
        relaxation=GumbelStraightThrough(sparse=sparse),
        **options,
    )
    return net.double()


def drawn(net, seed=0):
    net.generator = torch.Generator().manual_seed(seed)
    return net.mixing_weights()


def with_path(net, path):
    fast = copy.deepcopy(net)
    fast.use_path(path)
    return fast


PATHS = ["plain", "batched"]


@pytest.mark.parametrize("path", PATHS)
def test_values_are_those_of_all_operations_and_alpha_moves_through_the_drawn_ones(path, cpu_form):
    dense = make(sparse=False)
    net = with_path(dense, "plain")
    for cell in net.cells:
        cell.sparse = True
    net = with_path(net, path)
    x = images()
    everything, alone = drawn(dense), drawn(net)
    right, found = dense(x, everything), net(x, alone)
    assert torch.allclose(found, right, atol=1e-10)
    grad = torch.randn_like(right)
    kinds = list(everything)
    wanted = torch.autograd.grad(
        (right * grad).sum(), [everything[k] for k in kinds], retain_graph=True
    )
    got = torch.autograd.grad((found * grad).sum(), [alone[k] for k in kinds], retain_graph=True)
    for kind, full, one in zip(kinds, wanted, got, strict=True):
        mask = everything[kind].detach() != 0
        # the dense form differs in the others' gradients only
        assert torch.allclose(one, full * mask, atol=1e-10)
        assert (full[~mask].abs() > 1e-8).any()
    alphas = torch.autograd.grad((found * grad).sum(), net.alphas())
    for name, gradient in zip(net.named_alphas(), alphas, strict=True):
        noisy = net.named_alphas()[name].detach()
        noise = -torch.empty_like(noisy).exponential_(generator=noise_of(name, noisy)).log()
        soft = torch.softmax((noisy + noise) / 10.0, -1)
        upstream = got[kinds.index(name)]
        exact = soft / 10.0 * (upstream - (soft * upstream).sum(-1, keepdim=True))
        assert torch.allclose(gradient, exact, atol=1e-10)


def noise_of(name, like):
    """The generator as it stood when the noise of cell kind `name` was drawn."""
    generator = torch.Generator().manual_seed(0)
    if name == "reduce":
        torch.empty_like(like).exponential_(generator=generator)
    return generator


@pytest.mark.parametrize("path", PATHS)
def test_operations_that_are_not_drawn_are_left_alone(path, cpu_form):
    net = with_path(make(layers=1), path)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    weights = drawn(net)
    net(images(), weights).square().sum().backward()
    columns = drawn_columns(weights["reduce"])
    pools = {net.space.ops.index(name) for name in ("max_pool_3x3", "avg_pool_3x3")}
    seen = set()
    for name, value in net.state_dict().items():
        if ".mixed." not in name or not name.endswith("running_var"):
            continue
        edge, column = int(name.split(".")[3]), int(name.split(".")[5])
        source = net.space.edges[edge][0]
        siblings = [e for e, edge_ in enumerate(net.space.edges) if edge_[0] == source]
        # all edges of a state share its pools
        runs = any(column in columns[e] for e in (siblings if column in pools else [edge]))
        assert torch.equal(value, before[name]) != runs, name
        seen.add(runs)
    assert seen == {True, False}


def test_undrawn_operations_are_really_not_run():
    net = make(layers=1)
    calls = []
    for e, mixed in enumerate(net.cells[0].mixed):
        for k, op in enumerate(mixed.ops):
            op.register_forward_hook(lambda *_, e=e, k=k: calls.append((e, k)))
    weights = drawn(net)
    net(images(), weights)
    zero = net.space.ops.index("none")
    columns = drawn_columns(weights["reduce"])
    assert sorted(calls) == [(e, row[0]) for e, row in enumerate(columns) if row != [zero]]
    assert len(calls) <= len(net.space.edges)


@pytest.mark.parametrize("path", PATHS)
def test_edges_without_weight_and_a_loss_that_no_edge_reaches(path, cpu_form):
    net = with_path(make("nasbench201", 1) if path == "plain" else make(layers=1), path)
    weights = {k: w.detach() * 0 for k, w in drawn(net).items()}
    for weight in weights.values():
        weight.requires_grad_()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    with frozen_statistics(net):
        loss = net(images(), weights).square().sum()
    gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    assert all(g is None or not g.any() for g in gradients)


def searched(net, strategy, steps):
    net.generator = torch.Generator().manual_seed(3)
    found = strategy()
    found.setup(net, SearchSettings(alpha_learning_rate=0.01), [])
    for step in range(steps):
        found.step(*batches(step))
    return [alpha.detach() for alpha in net.alphas()]


@pytest.mark.parametrize("strategy", [FirstOrder, Unrolled])
def test_both_orders_search_and_every_param_keeps_a_gradient(strategy):
    net = make(layers=1)
    alphas = searched(net, strategy, 2)
    assert all(alpha.std() > 0 for alpha in alphas)
    # packed or not, an operation that was not drawn has gradient zero: decay and momentum go on
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_layer_choices_run_the_drawn_candidate():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.choice = LayerChoice([nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)])

        def forward(self, x):
            return self.choice(x)

    net = ModuleSupernet(Net(), relaxation=GumbelStraightThrough())
    net.generator = torch.Generator().manual_seed(1)
    weights = net.mixing_weights()
    (label,) = weights
    x = torch.randn(4, 3)
    out = net(x, weights)
    (upstream,) = torch.autograd.grad(out.sum(), weights[label], retain_graph=True)
    index = int(weights[label].argmax())
    chosen = net.module.choice.candidates[index](x)
    assert torch.equal(out, chosen)
    expected = torch.zeros(3).index_fill_(0, torch.tensor(index), float(chosen.detach().sum()))
    torch.testing.assert_close(upstream[0], expected)


def test_the_mask_passes_no_gradient_to_zeros():
    weights = torch.tensor([[0.0, 1.0], [0.5, 0.0]], requires_grad=True)
    only_drawn(weights).sum().backward()
    assert weights.grad.tolist() == [[0, 1], [1, 0]]
    assert drawn_columns(weights) == [[1], [0]]
