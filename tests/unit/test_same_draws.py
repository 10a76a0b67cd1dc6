"""Where gradients are subtracted from each other, all of them see the same random numbers."""

import torch
from strategy_cases import batch, ready, supernet
from test_search_own_models import model
from torch import nn

from darts_core.ops.noise import Noise
from darts_core.search.guards import alpha_gradient_function
from darts_core.strategies import CellAlignment, FirstOrder, Progressive, Unrolled
from darts_core.supernet import ModuleSupernet


def with_dropout():
    net = ModuleSupernet(model(nn.Dropout(0.5)))
    net.generator = torch.Generator().manual_seed(1)
    return net


def images(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 3, 8, 8, generator=generator), torch.arange(6) % 3


def dropping_skips():
    strategy = ready(Progressive([{"skip_dropout": 0.7}], rest_share=0.0), supernet())
    strategy.start_epoch(0, 1)
    return strategy, batch()


def test_gradients_of_a_guard_differ_by_alpha_alone_and_take_no_draw_from_the_search():
    for strategy, data in (dropping_skips(), (ready(FirstOrder(), with_dropout()), images())):
        net = strategy.supernet
        gradients = alpha_gradient_function(strategy, data)
        at = [alpha.detach().clone() for alpha in net.alphas()]
        own, of_torch = net.generator.get_state(), torch.get_rng_state()
        first, second = gradients(at), gradients(at)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        assert torch.equal(net.generator.get_state(), own)
        assert torch.equal(torch.get_rng_state(), of_torch)


def test_all_passes_of_an_unrolled_step_drop_the_same():
    net, masks = with_dropout(), []
    net.module[2].register_forward_hook(lambda module, inputs, output: masks.append(output == 0))
    strategy = ready(Unrolled(), net)
    strategy.unrolled_gradients(images(), images(1))
    assert len(masks) == 4
    assert all(torch.equal(mask, masks[0]) for mask in masks)
    before = len(masks)
    strategy.unrolled_gradients(images(), images(1))
    assert not torch.equal(masks[before], masks[0]), "each step draws anew"
    # a graph could not turn back
    assert not strategy.capturable
    assert ready(Unrolled(), ModuleSupernet(model())).capturable


def test_all_passes_of_an_aligned_step_see_the_same_noise():
    net, seen = supernet(ops=["noise", "nor_conv_1x1"]), []
    noise = next(module for module in net.modules() if isinstance(module, Noise))
    noise.register_forward_hook(lambda module, inputs, output: seen.append(output))
    ready(CellAlignment(), net).params_step(batch())
    assert len(seen) == 3
    assert all(torch.equal(one, seen[0]) for one in seen)
