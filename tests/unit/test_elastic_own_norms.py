"""Norms as people use them: of instances, of their own classes, written out, met by few batches."""

import copy
import logging

import pytest
import torch
from elastic_cases import drawn, normed
from torch import nn
from torch.nn import functional

from darts_core.elastic import elastic, recalibrate
from darts_core.elastic.norms import of_several


class Own(nn.modules.batchnorm._BatchNorm):
    """A batch norm of one's own, made of torch's."""

    def _check_input_dim(self, input):
        pass


class Written(nn.Module):
    """A batch norm that is written out."""

    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.ones(channels)),
            nn.Parameter(torch.zeros(channels)),
        )
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x):
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training
        )


def _tracked(channels):
    return nn.InstanceNorm2d(channels, affine=True, track_running_stats=True)


@pytest.mark.parametrize("norm", [_tracked, Own])
def test_every_norm_with_running_statistics_is_recalibrated(norm, caplog):
    """Instance norms, and batch norms of a class of one's own, kept those of the whole network."""
    batches = [(drawn(8, 3, 8, 8, seed=seed), None) for seed in (1, 2, 3)]
    net = elastic(normed(norm), batches[0][0])
    cut = net.cut(net.smallest, batches)
    seen = [cut[2](cut[1](cut[0](x))) for x, _ in batches]
    wanted = torch.stack([h.mean((0, 2, 3)) for h in seen]).mean(0)
    assert torch.allclose(cut[3].running_mean, wanted, atol=1e-6)
    assert cut[3].momentum == 0.1
    assert not cut[3].training
    assert "running statistics" not in caplog.text


def test_running_statistics_that_are_not_recalibrated_are_told(caplog):
    with caplog.at_level(logging.WARNING, logger="darts_core"):
        elastic(normed(Written), drawn(2, 3, 8, 8))
    assert "3: running statistics that are none of torch's norms" in caplog.text
    caplog.clear()
    frozen = normed(Written)
    frozen[3].train = lambda mode=True: None  # in evaluation mode for good
    frozen[3].training = False
    elastic(frozen, drawn(2, 3, 8, 8))
    assert "running statistics" not in caplog.text


def test_a_norm_that_no_batch_reaches_keeps_its_statistics():
    """Those of a head that runs in training alone were lost."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.here, self.there = nn.BatchNorm1d(3), nn.BatchNorm1d(3)

        def forward(self, x):
            return (self.here(x), self.there(x)) if self.training else self.here(x)

    model, x = Two(), drawn(6, 3)
    model(x)
    before = copy.deepcopy(model.there.state_dict())
    recalibrate(model, [(2 * x, None)])
    assert torch.allclose(model.here.running_mean, 2 * x.mean(0))
    assert all(torch.equal(v, before[k]) for k, v in model.there.state_dict().items())


@pytest.mark.parametrize("way", ["forward", "function"])
def test_a_norm_that_its_owner_does_not_call_is_recalibrated(way):
    """It kept the statistics of the whole network, without a word."""

    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x):
            n = self.norm
            if way == "forward":
                return n.forward(x)
            return functional.batch_norm(
                x, n.running_mean, n.running_var, n.weight, n.bias, n.training, n.momentum
            )

    x = drawn(10, 3)
    norm = recalibrate(Around(), [x[:6], x[6:]]).norm
    assert torch.allclose(norm.running_mean, x.mean(0), atol=1e-6)
    assert norm.momentum == 0.1


def test_a_norm_of_a_class_that_holds_its_statistics_fast_keeps_them():
    """They became those of a norm that has seen nothing."""

    class Fast(nn.BatchNorm1d):
        def forward(self, x):
            return functional.batch_norm(x, self.running_mean, self.running_var)

    norm = Fast(3)
    norm.running_mean.fill_(2.0)
    recalibrate(nn.Sequential(norm), [drawn(6, 3)])
    assert (norm.running_mean == 2.0).all()


def test_batches_may_hold_more_than_inputs_and_targets_or_inputs_alone():
    x = drawn(4, 3)
    found = [
        recalibrate(nn.BatchNorm1d(3), [batch]).running_mean
        for batch in ((x, None), (x, None, "names"), [x], x)
    ]
    assert all(torch.equal(one, found[0]) for one in found)
    assert list(of_several([(x, 1, 2)])) == [(x, 1)]
    batches = [(drawn(8, 3, 8, 8), torch.arange(8) % 5, "names")]
    assert elastic(normed(nn.BatchNorm2d), batches[0][0], batches=batches).orders


def test_a_norm_in_two_places_counts_the_examples_of_both():
    norm = nn.BatchNorm1d(2)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = norm

        def forward(self, x):
            return self.norm(x), self.norm(input=3 * x)

    torch.manual_seed(0)
    x = torch.randn(10, 2)
    recalibrate(Twice(), [(x[:8], None), (x[8:], None)])
    means = [x[:8].mean(0), 3 * x[:8].mean(0), x[8:].mean(0), 3 * x[8:].mean(0)]
    wanted = sum(weight * mean for weight, mean in zip((0.4, 0.4, 0.1, 0.1), means, strict=True))
    assert torch.allclose(norm.running_mean, wanted, rtol=1e-5, atol=1e-7)
