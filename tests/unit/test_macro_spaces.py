"""The shipped spaces of choices: found networks are cut exactly, cost what is expected, and can be pruned."""

import numpy as np
import pytest
import torch

from darts_core.data import RawData, make_bundle
from darts_core.errors import ConfigError
from darts_core.latency import choice_size_model
from darts_core.ops.macs import macs_by_module
from darts_core.prune.cost import LayerCosts
from darts_core.prune.groups import find_groups, remove_channels
from darts_core.search import SearchConfig, search
from darts_core.spaces import get_space
from darts_core.spaces.resnet import resnet_space
from darts_core.strategies import FirstOrder
from darts_core.supernet import build, create_supernet

SIZES = {"channels": 4, "num_classes": 3, "in_channels": 2, "layers": 1}
INPUTS = {
    "resnet": (2, 6, 8),
    "vit_tiny": (2, 6, 10),
    "conv1d": (2, 70),
    "conv1d_frames": (2, 70),
    "gpt_tiny": (9,),
}


def supernet_of(name):
    torch.manual_seed(0)
    return create_supernet(get_space(name), input_shape=INPUTS[name], **SIZES)


def samples(name, count=2):
    if name == "gpt_tiny":
        return torch.randint(SIZES["in_channels"], (count, *INPUTS[name]))
    return torch.randn(count, *INPUTS[name])


@pytest.mark.parametrize("name", INPUTS)
def test_a_found_network_is_cut_exactly_and_has_the_size_of_a_fresh_one(name):
    net = supernet_of(name)
    x = samples(name)
    net(x)
    net.eval()
    for seed in range(2):
        architecture = net.space.random(np.random.default_rng(seed))
        plain = net.build(architecture)
        found = net(x, net.one_hot(architecture))
        torch.testing.assert_close(plain(x), found, atol=1e-4, rtol=1e-3)
        fresh = build(architecture, **SIZES)
        shapes = [sorted(tuple(p.shape) for p in m.parameters()) for m in (fresh, plain)]
        assert shapes[0] == shapes[1]
        fresh.drop_path_prob = 0.5
        many = samples(name, 32)
        assert not torch.equal(fresh.train()(many), fresh(many))


@pytest.mark.parametrize("name", INPUTS)
def test_the_expected_cost_of_an_architecture_is_that_of_its_network(name):
    space, x = get_space(name), samples(name)

    def make(architecture):
        return build(architecture, **SIZES)

    model = choice_size_model(space, make, x, "macs")
    for seed in range(2):
        architecture = space.random(np.random.default_rng(10 + seed))
        real = sum(macs_by_module(make(architecture).eval(), x[:1]).values()) / 1e6
        assert model.of(architecture) == pytest.approx(real, rel=1e-5)


def test_the_heads_of_a_transformer_must_share_its_channels_out():
    with pytest.raises(
        ConfigError, match="up to 4 heads; 6 is no multiple of that: set channels=8"
    ):
        create_supernet(get_space("vit_tiny"), image_size=8, **{**SIZES, "channels": 6})


def test_a_row_that_may_be_empty_is_refused():
    space = resnet_space("none", stages=1, widths=(1.0,), depths=(0, 1))
    with pytest.raises(ConfigError, match=r"stage1.depth be 0.*from 1"):
        create_supernet(space, image_size=8, **SIZES)


def test_a_network_of_choices_has_no_auxiliary_head():
    architecture = get_space("resnet").random(np.random.default_rng(0))
    with pytest.raises(ConfigError, match="auxiliary=false"):
        build(architecture, auxiliary=True, **SIZES)
    with pytest.raises(ConfigError, match="a stem of its own; leave out stem='imagenet'"):
        build(architecture, stem="imagenet", **SIZES)


def series_bundle():
    """Two classes of series that differ in their frequency."""
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    waves = np.sin(np.arange(70) * np.where(labels, 0.9, 0.3)[:, None] + rng.uniform(0, 6, (80, 1)))
    x = np.stack([waves, rng.normal(size=waves.shape)], 1).astype(np.float32)
    return make_bundle("waves", RawData(x, labels, ("slow", "fast"), "made here"))


def text_bundle():
    """Tokens 0 1 0 1 ..., some of them repeated."""
    rng = np.random.default_rng(0)
    tokens = np.cumsum(rng.random(801) < 0.9).astype(np.int32) % 2
    rows, ahead = tokens[:800].reshape(80, 10), tokens[1:].reshape(80, 10)
    names = ("a", "b")
    return make_bundle(
        "flips", RawData(rows, ahead, names, "made here", vocabulary=names, ordered=True)
    )


@pytest.mark.parametrize(
    ("name", "make"),
    [pytest.param("conv1d", series_bundle, marks=pytest.mark.full), ("gpt_tiny", text_bundle)],
)
def test_series_and_texts_are_searched(name, make):
    torch.manual_seed(0)
    bundle = make().without_test()
    sizes = {"channels": 4, "num_classes": bundle.num_outputs, "in_channels": bundle.in_channels}
    net = create_supernet(get_space(name), input_shape=bundle.input_shape, **sizes)
    before = [alpha.detach().clone() for alpha in net.alphas()]
    config = SearchConfig(epochs=1, batch_size=12, alpha_learning_rate=0.05)
    found = search(net, FirstOrder(), bundle, config)
    assert np.isfinite(found.history[-1][f"val_{bundle.task.metric.name}"])
    assert found.architecture.space == name
    pairs = zip(before, net.alphas(), strict=True)
    assert not any(torch.equal(old, new.detach()) for old, new in pairs)


def test_samples_of_another_kind_are_refused():
    with pytest.raises(ConfigError, match=r"'conv1d' read series.*shape \(2, 8, 8\) are none"):
        create_supernet(get_space("conv1d"), input_shape=(2, 8, 8), **SIZES)
    with pytest.raises(ConfigError, match="'nasbench201' read images"):
        create_supernet(get_space("nasbench201"), input_shape=(2, 64), **SIZES)


def test_a_language_model_looks_back_only():
    net = supernet_of("gpt_tiny").eval()
    for seed in range(3):
        architecture = net.space.random(np.random.default_rng(seed))
        model = build(architecture, **SIZES).eval()
        x = samples("gpt_tiny")
        changed = x.clone()
        changed[:, 5] = 1 - changed[:, 5]
        before, after = model(x), model(changed)
        assert torch.equal(before[:, :5], after[:, :5])
        assert not torch.equal(before[:, 5:], after[:, 5:])


@pytest.mark.parametrize("name", INPUTS)
def test_the_widths_of_a_found_network_can_be_pruned(name):
    architecture = get_space(name).random(np.random.default_rng(1))
    model = build(architecture, **{**SIZES, "channels": 8}).eval()
    groups = find_groups(model, INPUTS[name])
    roots = {group.root for group in groups}
    # the stream or the stem, and a width inside a block
    assert len(groups) >= 3
    costs = LayerCosts(torch.device("cpu"), analytic=True)
    costs.observe(model, INPUTS[name], 2)
    before = costs.total_ms()
    assert all(costs.saving_ms(group, 1) > 0 for group in groups)
    x = samples(name)
    shape = model(x).shape
    remove_channels(model, INPUTS[name], {root: [0] for root in roots})
    costs.observe(model, INPUTS[name], 2)
    assert costs.total_ms() < before
    assert model(x).shape == shape
