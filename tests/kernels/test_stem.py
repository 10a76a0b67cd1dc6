"""A stem as pointwise-with-statistics over unfolded taps: values, gradients, statistics, state dicts."""

import copy

import pytest
import torch
from torch import nn

from darts_core.spaces import get_space
from darts_core.supernet import Supernet, frozen_statistics
from darts_core.supernet.search_skeleton import _ImagenetStem
from darts_core.supernet.skeleton import cifar_stem
from darts_core.supernet.stem import FusedStem, fuse_stems, stem_parts, unfuse_stems
from darts_kernels._common import PRECISIONS
from darts_kernels.conv_stats import ConvShape
from darts_kernels.stem import StemRun, conv_norm, conv_norm_reference
from darts_kernels.testing import assert_matches

from .cells import away_from_zero

STEMS = {
    "gray": lambda: cifar_stem(1, 5),
    "colour": lambda: cifar_stem(3, 18),
    "many": lambda: cifar_stem(7, 66),
    "imagenet": lambda: _ImagenetStem(3, 6),
}


def made(name):
    """A stem whose affine part and statistics are not those of a fresh one."""
    stem = STEMS[name]()
    for norm in stem.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.weight, 1.0, 0.5)
            nn.init.normal_(norm.bias)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2.0)
    return stem


def passed(stem, x, seed, *, wants_x=True):
    """Outputs and gradients (of x, then of the params) for random output gradients, in one list."""
    x = x.detach().clone().requires_grad_(wants_x)
    outs = stem(x)
    outs = outs if isinstance(outs, list) else [outs]
    generator = torch.Generator().manual_seed(seed)
    grads = [torch.randn(out.shape, generator=generator).to(out) for out in outs]
    leaves = ([x] if wants_x else []) + list(stem.parameters())
    return [out.detach() for out in outs], list(torch.autograd.grad(outs, leaves, grads))


def compare(stem, x, *, precision="fp32", floor=2e-6, wants_x=True):
    exact, plain, fused = copy.deepcopy(stem).double(), copy.deepcopy(stem), copy.deepcopy(stem)
    assert fuse_stems(fused, precision) > 0
    right = passed(exact, x.double(), 7, wants_x=wants_x)
    usual = passed(plain, x, 7, wants_x=wants_x)
    found = passed(fused, x, 7, wants_x=wants_x)
    for kind, *lists in zip(("output", "gradient"), found, right, usual, strict=True):
        for i, (value, truth, plain_value) in enumerate(zip(*lists, strict=True)):
            assert_matches(value, truth, plain_value, floor=floor, name=f"{kind} {i}")
    usual_state, exact_state = plain.state_dict(), exact.state_dict()
    assert fused.state_dict().keys() == exact_state.keys()
    for name, value in fused.state_dict().items():
        assert_matches(value, exact_state[name], usual_state[name], floor=floor, name=name)
    again = passed(fused, x, 7, wants_x=wants_x)
    assert all(torch.equal(a, b) for a, b in zip(again[1], found[1], strict=True))


@pytest.fixture(params=[None, 16])
def block(request, monkeypatch):
    """The usual tiles, and small ones with several products a program."""
    if request.param:
        monkeypatch.setattr(ConvShape, "block", request.param)
        monkeypatch.setattr("darts_kernels.conv_stats._MOST_PARTS", 2)
        monkeypatch.setattr("darts_kernels.conv_backward._PROGRAMS", 4)


@pytest.mark.parametrize("name", STEMS)
def test_bodies(device, rng, poison, block, name):
    stem = made(name).to(device).train()
    # three halvings must leave the last norm more than a pixel or two
    size = (17, 15) if name == "imagenet" else (7, 6)
    x = away_from_zero((2, stem_channels(stem), *size), rng).to(device)
    compare(stem, x, floor=5e-6 if device == "cpu" else 2e-5)


def stem_channels(stem):
    return next(m for m in stem.modules() if isinstance(m, nn.Conv2d)).in_channels


def test_an_image_that_wants_no_gradient(device, rng, poison):
    stem = made("colour").to(device)
    x = torch.randn(3, 3, 5, 5, generator=rng).to(device)
    compare(stem.train(), x, wants_x=False, floor=5e-6 if device == "cpu" else 2e-5)


def test_evaluation_uses_the_running_statistics(device, rng, poison):
    stem = made("imagenet").to(device).eval()
    x = away_from_zero((2, 3, 17, 15), rng).to(device)
    compare(stem, x, floor=5e-6 if device == "cpu" else 2e-5)


def test_only_wanted_gradients(device, rng, poison):
    stem = made("colour").to(device).train()
    fuse_stems(stem, "fp32")
    x = torch.randn(2, 3, 5, 5, generator=rng).to(device)
    stem[0].weight.requires_grad_(False)
    stem(x).square().sum().backward()
    assert stem[0].weight.grad is None
    assert stem[1].bias.grad is not None
    for parameter in stem.parameters():
        parameter.requires_grad_(False)
    assert not stem(x).requires_grad


def test_frozen_statistics_stay(device, rng, poison):
    stem = made("colour").to(device).train()
    fuse_stems(stem, "fp32")
    x = torch.randn(2, 3, 5, 5, generator=rng).to(device)
    before = copy.deepcopy(stem.state_dict())
    with frozen_statistics(stem):
        frozen = stem(x)
    assert all(torch.equal(v, before[k]) for k, v in stem.state_dict().items())
    assert torch.equal(frozen, stem(x))
    assert int(stem[1].num_batches_tracked) == 1


def test_the_reference_is_the_modules(rng):
    stem = made("colour").double()
    conv, norm = stem
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    for train in (True, False):
        stem.train(train)
        run = StemRun(PRECISIONS["fp32"], norm.running_mean, norm.running_var, train=train)
        found = conv_norm_reference(run, x, conv.weight, norm.weight, norm.bias)
        assert torch.allclose(found, copy.deepcopy(stem)(x), atol=1e-12)


def test_what_is_recognised():
    for name in STEMS:
        stem = made(name)
        before = {k: type(m) for k, m in stem.named_modules()}
        state = copy.deepcopy(stem.state_dict())
        assert fuse_stems(stem, "tf32") == (2 if name == "imagenet" else 1)
        assert any(isinstance(m, FusedStem) for m in stem.modules())
        copy.deepcopy(stem).load_state_dict(state)
        unfuse_stems(stem)
        assert {k: type(m) for k, m in stem.named_modules()} == before
        assert not hasattr(stem, "precision")
    conv = nn.Conv2d(3, 4, 3, padding=1)
    other = [
        nn.Sequential(conv, nn.BatchNorm2d(4)),  # a bias
        nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)),  # no padding
        nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4, eps=1e-3)),
        nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4, affine=False)),
        nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(nn.ReLU()),
    ]
    assert not any(stem_parts(chain) for chain in other)


def test_the_cpu_keeps_its_library():
    for space in ("darts", "nasbench201"):
        net = Supernet(get_space(space), channels=2, layers=1)
        net.use_path("auto")
        assert not any(isinstance(m, FusedStem) for m in net.modules())


def test_wrong_arguments():
    run = StemRun(PRECISIONS["fp32"], torch.zeros(4), torch.ones(4))
    x, ones = torch.randn(1, 3, 4, 4), torch.ones(4)
    for shape in ((4, 2, 3, 3), (4, 3, 2, 2), (4, 3, 3, 1)):
        with pytest.raises(ValueError, match="odd"):
            conv_norm(run, x, torch.randn(shape), ones, ones)
    with pytest.raises(ValueError, match="4 channels"):
        conv_norm(run, x, torch.randn(4, 3, 3, 3), ones[:3], ones)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("name", ["colour", "imagenet"])
def test_on_the_gpu(rng, poison, precision, name):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    stem = (cifar_stem(3, 48) if name == "colour" else _ImagenetStem(3, 48)).cuda().train()
    x = torch.randn(64 if name == "colour" else 8, 3, 32, 32, generator=rng).cuda()
    floor = {"fp32": 5e-4, "tf32": 5e-3, "bf16": 2e-2}[precision]
    compare(stem, x, precision=precision, floor=floor)
