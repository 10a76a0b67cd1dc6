"""Baselines, and saving and loading networks, pruned ones included."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from darts_core.checkpoint import save_checkpoint
from darts_core.errors import ConfigError, ResumeError
from darts_core.models.baselines import BASELINES, default_baseline, reads
from darts_core.prune.groups import find_groups, remove_channels
from darts_core.sample_inputs import draw_inputs
from darts_core.train import baseline, load_model, reshape_like, resnet, save, save_model
from darts_core.train.save import fit_to


@pytest.mark.parametrize("name", [n for n in BASELINES if n not in ("resnet34", "resnet50")])
def test_baselines_map_small_inputs_to_logits_and_learn(name):
    channels = 5 if reads(name) == "tokens" else 1
    model = baseline(name, num_classes=3, in_channels=channels, width=4)
    shape, lead = {"image": ((1, 8, 8), (4,)), "series": ((1, 64), (4,)), "tokens": ((6,), (4, 6))}[
        reads(name)
    ]
    out = model(draw_inputs(shape, 4, vocabulary=5))
    assert out.shape == (*lead, 3)
    out.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_every_kind_of_inputs_has_a_network_to_compare_with():
    for kind in ("image", "series", "tokens"):
        assert reads(default_baseline(kind)) == kind
    assert default_baseline("image") == "resnet8"


def test_the_plain_transformer_sees_no_later_token_and_tells_places_apart():
    torch.manual_seed(0)
    model = baseline("transformer", 7, in_channels=7, width=8).eval()
    ids = torch.randint(7, (1, 9))
    later = ids.clone()
    later[0, 5:] = (later[0, 5:] + 1) % 7
    before, after = model(ids), model(later)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])
    same = model(torch.zeros(1, 4, dtype=torch.int64))
    assert not torch.allclose(same[0, 1], same[0, 3])


def test_published_sizes():
    def params(model):
        return sum(p.numel() for p in model.parameters())

    # the CIFAR forms: ResNet-20 0.27 M (He et al., Table 6, with projection shortcuts here),
    # ResNet-18 11.17 M and MobileNetV2 2.24 M with a 3x3 stride-1 stem and 10 classes
    assert params(baseline("resnet20", 10)) == 272_474
    assert params(resnet("resnet18", 10)) == 11_173_962
    assert params(baseline("mobilenetv2", 10)) == 2_236_682
    assert params(resnet("resnet50", 10)) == 23_520_842
    # four separable layers of 64 channels, as DS-CNN-S: 64 * 64 weights and two norms each
    series = params(baseline("dscnn", 10, in_channels=1, width=64))
    assert series == 64 * 9 + 128 + 4 * (64 * 9 + 64 * 64 + 256) + 65 * 10


def test_a_residual_network_of_another_shape():
    def params(model):
        return sum(p.numel() for p in model.parameters())

    same = baseline("resnet18:2x64-2x128-2x256-2x512", 10)
    assert params(same) == params(resnet("resnet18", 10))
    small = baseline("resnet18:1x4-2x6", 3, in_channels=1, width=8)
    convs = [m for m in small.modules() if isinstance(m, nn.Conv2d)]
    # the stem; 8 -> 4 with a projection; 4 -> 6 with a projection and a stride; 6 -> 6
    assert [(c.in_channels, c.out_channels, c.stride[0], c.kernel_size[0]) for c in convs] == [
        (1, 8, 1, 3), (8, 4, 1, 3), (4, 4, 1, 3), (8, 4, 1, 1),
        (4, 6, 2, 3), (6, 6, 1, 3), (4, 6, 2, 1), (6, 6, 1, 3), (6, 6, 1, 3),
    ]  # fmt: skip
    for wrong in ("resnet18:", "resnet18:2x", "resnet18:0x4", "resnet18:1x4-", "resnet18:1x4;x"):
        with pytest.raises(ConfigError, match="blocks x width"):
            baseline(wrong, 10)


def test_unknown_baselines_and_widths_are_sentences():
    with pytest.raises(ConfigError, match="Did you mean"):
        baseline("resnet81", 10)
    with pytest.raises(ConfigError, match="at least 1"):
        baseline("resnet18", 10, width=0)
    with pytest.raises(ConfigError, match="Unknown residual network"):
        resnet("mobilenetv2", 10)


def test_save_and_load_of_a_baseline(tmp_path):
    spec = {"name": "resnet8", "num_classes": 3, "in_channels": 1, "width": 4}
    model = baseline(**spec).eval()
    save_model(tmp_path / "model.pt", model, {"baseline": spec, "class_names": ["a", "b", "c"]})
    loaded, meta = load_model(tmp_path / "model.pt")
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(loaded(x), model(x))
    assert not loaded.training
    assert meta["class_names"] == ["a", "b", "c"]


def test_a_pruned_network_comes_back_with_its_widths(tmp_path):
    import torch_pruning

    spec = {"name": "mobilenetv2", "num_classes": 3, "in_channels": 1, "width": 8}
    model = baseline(**spec).eval()
    example = torch.randn(1, 1, 8, 8)
    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        example,
        torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=[model.classifier],
    )
    pruner.step()
    save_model(tmp_path / "model.pt", model, {"baseline": spec})
    loaded, _ = load_model(tmp_path / "model.pt")
    assert sum(p.numel() for p in loaded.parameters()) == sum(p.numel() for p in model.parameters())
    assert torch.equal(loaded(example), model(example))
    first = next(m for m in loaded.modules() if isinstance(m, nn.Conv2d))
    assert first.out_channels == first.weight.shape[0] < 8


def test_reshape_like_handles_grouped_and_linear_layers():
    wide = nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8, affine=False), nn.Linear(8, 5)
    )
    narrow = nn.Sequential(
        nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d(4, affine=False), nn.Linear(4, 5)
    )
    reshape_like(wide, narrow.state_dict()).load_state_dict(narrow.state_dict())
    assert (wide[0].in_channels, wide[0].out_channels, wide[0].groups) == (2, 4, 2)
    assert wide[1].num_features == 4
    assert wide[2].in_features == 4
    assert wide[0](torch.randn(1, 2, 3, 3)).shape == (1, 4, 1, 1)


def test_files_that_are_not_models_are_refused(tmp_path):
    with pytest.raises(ResumeError, match="needs 'architecture'"):
        save_model(tmp_path / "x.pt", nn.Linear(1, 1), {})
    save_checkpoint(tmp_path / "other.pt", {"kind": "training"})
    with pytest.raises(ResumeError, match="not a saved model"):
        load_model(tmp_path / "other.pt")
    spec = {"name": "resnet8", "num_classes": 3, "in_channels": 1, "width": 4}
    other = baseline(**{**spec, "name": "resnet14"})
    save_model(tmp_path / "wrong.pt", other, {"baseline": spec})
    with pytest.raises(ResumeError, match="do not fit its own description"):
        load_model(tmp_path / "wrong.pt")


class Unusual(nn.Module):
    """Layers that few classifiers have: a transposed convolution, a norm over groups, a PReLU a channel."""

    def __init__(self, groups):
        super().__init__()
        self.first, self.act, self.norm = nn.Conv2d(3, 8, 1), nn.PReLU(8), nn.GroupNorm(2, 8)
        self.up = nn.ConvTranspose2d(8, 8, 2, 2, groups=groups)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.up(self.norm(self.act(self.first(x)))).mean((2, 3)))


@pytest.mark.parametrize("groups", [1, 8])
def test_a_cut_network_of_unusual_layers_runs_and_can_be_cut_again(groups):
    torch.manual_seed(0)
    shape = (3, 4, 4)
    cut = remove_channels(Unusual(groups).eval(), shape, {"first": [0, 4]})
    again = reshape_like(Unusual(groups).eval(), cut.state_dict())
    again.load_state_dict(cut.state_dict())
    x = torch.randn(2, *shape)
    torch.testing.assert_close(again(x), cut(x))
    assert [str(layer) for layer in again.children()] == [str(layer) for layer in cut.children()]
    assert ("first", 6) in {(group.root, group.channels) for group in find_groups(again, shape)}


def test_the_state_of_a_cut_network_goes_into_layers_that_are_not_built_yet():
    """Their shape cannot be asked for before their first input."""
    given = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(2))
    cut, x = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), torch.randn(4, 3)
    assert torch.equal(fit_to(given, cut.state_dict())(x), cut(x))


@pytest.mark.parametrize(
    "read", [lambda x: x[1].item(), lambda x: x.numpy()[1], lambda x: x.tolist()[1]]
)
def test_the_network_of_a_saved_file_may_read_values_that_it_makes(read):
    """As the rates of a stochastic depth; its size is not counted before it is made."""

    def make(layers):
        return nn.Dropout(read(torch.linspace(0, 0.5, 1 + layers)))

    save._check_sizes("model.pt", make, {"layers": 1}, {})
    with pytest.raises(ResumeError, match="layers=0"):
        save._check_sizes("model.pt", make, {"layers": 0}, {})
