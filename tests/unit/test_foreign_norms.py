"""Folding in networks of others: a norm's own activation stays, and what is unproved stays as it is."""

import copy
import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from darts_core.export import fold_batch_norms
from darts_core.latency.deployed import without_norms


class NormAct(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: a norm with an activation of its own."""

    def __init__(self, channels, act=nn.ReLU):
        super().__init__(channels)
        self.act = act(inplace=True)

    def forward(self, x):
        return self.act(super().forward(x))


class Residual(nn.BatchNorm2d):
    """A norm that needs its input besides normalising it."""

    def forward(self, x):
        return super().forward(x) + x


class Doubled(nn.BatchNorm2d):
    """A norm that changes its input first."""

    def forward(self, x):
        return super().forward(2 * x)


class Same(nn.Conv2d):
    """As timm's Conv2dSame: pads by itself, has no bias and never looks at one."""

    def forward(self, x):
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, None, self.stride)


class Standardised(nn.Conv2d):
    """A convolution that computes its weight."""

    def forward(self, x):
        return F.conv2d(x, self.weight - self.weight.mean(), self.bias)


class Functional(nn.Module):
    """Reads a norm's statistics without calling it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        n = self.norm
        return F.batch_norm(self.conv(x), n.running_mean, n.running_var, n.weight, n.bias)


class Behind(nn.Module):
    """A norm before a convolution, and one behind it that shares its channels."""

    def __init__(self):
        super().__init__()
        self.first, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1, bias=False)
        self.second = NormAct(4)

    def forward(self, x):
        return self.second(self.conv(self.first(x)))


def conv_then(norm, conv=None):
    return nn.Sequential(conv or nn.Conv2d(3, 4, 3, padding=1, bias=False), norm)


def settled(model, shape):
    """`model` in fp64 with statistics, scales and shifts away from their start."""
    model = model.double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 2)
                module.bias.normal_()
    return model.eval(), torch.randn(4, *shape, dtype=torch.float64)


def norms_in(model):
    return sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())


PLANE, LINE, CUBE = (3, 8, 6), (3, 9), (3, 4, 5, 6)


@pytest.mark.parametrize(
    ("name", "make", "shape"),
    [
        ("relu", lambda: conv_then(NormAct(4)), PLANE),
        ("silu", lambda: conv_then(NormAct(4, nn.SiLU)), PLANE),
        (
            "subclass of a convolution",
            lambda: conv_then(NormAct(4), Same(3, 4, 3, bias=False)),
            PLANE,
        ),
        ("line", lambda: conv_then(nn.BatchNorm1d(4), nn.Conv1d(3, 4, 3)), LINE),
        ("cube", lambda: conv_then(nn.BatchNorm3d(4), nn.Conv3d(3, 4, 3)), CUBE),
    ],
)
def test_a_norm_is_folded_and_what_it_does_besides_is_kept(name, make, shape):
    model, x = settled(make(), shape)
    folded = fold_batch_norms(model, shape)
    assert norms_in(folded) == 0
    torch.testing.assert_close(folded(x), model(x), rtol=1e-10, atol=1e-10)
    folded.train(False)
    torch.testing.assert_close(copy.deepcopy(folded)(x[:1]), model(x[:1]), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: conv_then(Residual(4)), "something else reads the convolution's output"),
        (lambda: conv_then(Doubled(4)), "it does not follow a convolution"),
        (lambda: conv_then(nn.BatchNorm2d(4), Standardised(3, 4, 1)), "weight is computed"),
        (Functional, "another module's"),
    ],
)
def test_a_fold_that_is_not_proved_is_not_done_and_its_cause_is_named(make, reason, caplog):
    model, x = settled(make(), PLANE)
    with caplog.at_level(logging.INFO, "darts_core"):
        folded = fold_batch_norms(model, PLANE)
    assert norms_in(folded) == 1
    torch.testing.assert_close(folded(x), model(x), rtol=1e-10, atol=1e-10)
    assert reason in caplog.text


def test_a_norm_with_a_hook_stays(caplog):
    model, x = settled(conv_then(nn.BatchNorm2d(4)), PLANE)
    model[1].register_forward_hook(lambda module, inputs, output: output + 1)
    with caplog.at_level(logging.INFO, "darts_core"):
        folded = fold_batch_norms(model, PLANE)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-10, atol=1e-10)
    assert "batch norm 1 is not folded" in caplog.text


def test_the_form_that_is_timed_keeps_activations_and_norms_before_convolutions():
    residual = without_norms(conv_then(Residual(4)), torch.randn(2, *PLANE))
    assert norms_in(residual) == 1
    bare = without_norms(Behind().eval(), torch.randn(2, *PLANE))
    assert isinstance(bare.first, nn.BatchNorm2d)
    assert not isinstance(bare.second, nn.BatchNorm2d)
    assert bare.conv.bias is not None
    assert (bare(torch.randn(2, *PLANE)) >= 0).all()


class ByKeyword(nn.Module):
    """Calls torch's functions with keywords alone."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Conv2d(3, 4, 1, bias=False) for _ in range(2))
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x):
        joined = torch.cat(dim=1, tensors=[self.a(x), self.b(x)])
        norm = self.norm
        return F.batch_norm(
            input=joined, running_mean=norm.running_mean, running_var=norm.running_var,
            weight=norm.weight, bias=norm.bias,
        )  # fmt: skip


def test_a_network_that_calls_functions_by_keyword_is_timed_as_folded():
    bare = without_norms(ByKeyword().eval(), torch.randn(2, *PLANE))
    assert isinstance(bare.norm, nn.Identity)
    assert bare.a.bias is not None
    assert bare.b.bias is not None
