"""Pruning of networks with parts of their own: frozen, of whole numbers, recurrent, called by keyword."""

import pytest
import torch
from prune_cases import META, SHAPE, Data, by_macs, count_costs, darts
from torch import nn

from darts_core.architecture import Architecture
from darts_core.prune import prune_to_budget
from darts_core.prune.auxiliary import drop_auxiliary
from darts_core.prune.cost import LayerCosts
from darts_core.prune.groups import copied, find_groups, remove_channels
from darts_core.prune.heads import open_attentions
from darts_core.prune.rounds import Pruner, Round
from darts_core.prune.structure import find_dead
from darts_core.supernet import build
from darts_core.train import TrainConfig, load_model, reshape_like, save_model

RECIPE = TrainConfig(
    epochs=2, batch_size=32, learning_rate=0.01, cutout=0, crop_padding=0, flip=False
)


def _frozen(model):
    return {name for name, value in model.named_parameters() if not value.requires_grad}


class Own(nn.Module):
    """A network of which a part is called as our second head is."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.auxiliary = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.auxiliary(self.first(x).relu()).relu().mean((2, 3)))


def test_a_part_that_is_called_as_our_second_head_stays(monkeypatch):
    count_costs(monkeypatch)
    torch.manual_seed(0)
    model = Own().eval()
    found = prune_to_budget(
        model, Data(), budget="60%", batch=2, timer=by_macs, round_to=1, structure=False,
        tune=lambda *_: None,
    )  # fmt: skip
    assert isinstance(found.model.auxiliary, nn.Conv2d)
    assert found.after.median_ms <= 1.05 * 0.6 * by_macs(model).median_ms


def test_the_second_head_of_a_network_of_ours_goes():
    ours = build(Architecture.named("DARTS_V2"), channels=4, layers=3, auxiliary=True)
    assert ours.auxiliary is not None
    drop_auxiliary(ours)
    assert ours.auxiliary is None
    # a registered skeleton has a head of its own kind, which is not built again
    for asked in (False, True):
        model = Own()
        drop_auxiliary(model, {"build": {"channels": 4, "auxiliary": asked}})
        assert (model.auxiliary is None) == asked


class Trunk(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 12, 3, padding=1)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.second(self.first(x).relu()).relu().mean((2, 3)))


def test_frozen_parameters_are_pruned_and_not_trained(monkeypatch):
    count_costs(monkeypatch)
    torch.manual_seed(0)
    model = Trunk().eval()
    model.first.requires_grad_(False)
    held = {"first.weight", "first.bias"}
    assert _frozen(remove_channels(Trunk().eval(), SHAPE, {"first": [0, 3]})) == set()
    options = {"budget": "50%", "batch": 2, "timer": by_macs, "round_to": 1, "structure": False}
    found = prune_to_budget(model, Data(), fit_config=RECIPE, **options)
    assert found.rounds
    assert found.device_seconds > 0
    assert _frozen(found.model) == _frozen(model) == held
    filters = model.first.weight.detach()
    assert all(any(torch.equal(row, old) for old in filters) for row in found.model.first.weight)
    cut = remove_channels(found.model, SHAPE, {"first": [0]})
    assert _frozen(cut) == held


def test_a_network_that_is_frozen_as_a_whole_learns_again(monkeypatch):
    count_costs(monkeypatch)
    torch.manual_seed(0)
    model = Trunk().eval().requires_grad_(False)
    found = prune_to_budget(
        model, Data(), budget="50%", batch=2, timer=by_macs, round_to=1, structure=False,
        fit_config=RECIPE,
    )  # fmt: skip
    assert found.device_seconds > 0
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_what_stays_frozen_is_not_trained_where_all_that_learned_is_cut(monkeypatch, caplog):
    count_costs(monkeypatch)
    torch.manual_seed(0)
    model = Trunk().eval()
    model.requires_grad_(False)
    model.head.requires_grad_(True)

    def cut(self, network, now, target_ms, batches):
        done = Round(copied(network), now, widths={"second": (12, 6)})
        remove_channels(done.model, SHAPE, {"first": [*range(8)], "second": [*range(6)]})
        done.model.head.requires_grad_(False)  # as if what learned were gone
        return done

    monkeypatch.setattr(Pruner, "shrink", cut)
    found = prune_to_budget(
        model, Data(), budget="90%", batch=2, timer=by_macs, rounds=1, fit_config=RECIPE
    )
    assert found.rounds
    assert found.device_seconds == 0.0
    assert not any(parameter.requires_grad for parameter in found.model.parameters())
    filters = model.first.weight
    assert all(any(torch.equal(row, old) for old in filters) for row in found.model.first.weight)
    assert "nothing is fine-tuned" in caplog.text


def test_what_was_frozen_is_so_when_a_pruning_goes_on(tmp_path, monkeypatch):
    count_costs(monkeypatch)
    model, kept = darts(), []
    model.stem.requires_grad_(False)
    options = {"budget": "40%", "batch": 2, "timer": by_macs, "folder": tmp_path, "meta": META,
               "structure": False}  # fmt: skip

    def killed(network, part, parts):
        kept.append(_frozen(network))
        if part == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune_to_budget(model, Data(), tune=killed, **options)
    prune_to_budget(
        model, Data(), tune=lambda network, *_: kept.append(_frozen(network)), **options
    )
    assert len(kept) >= 3
    assert all(names == _frozen(model) != set() for names in kept)


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


def test_a_frozen_attention_that_is_opened_stays_frozen():
    torch.manual_seed(0)
    model = Attending().eval()
    model.attention.requires_grad_(False)
    found, _ = open_attentions(model, SHAPE)
    assert found == {"attention": "attention"}
    assert {name.partition(".")[0] for name in _frozen(model)} == {"attention"}
    assert len(_frozen(model)) == len([*model.attention.parameters()])


def make_partly_frozen():
    torch.manual_seed(0)
    model = Attending().eval()
    model.attention.in_proj_weight.requires_grad_(False)
    model.attention.in_proj_bias.requires_grad_(False)
    return model


def test_of_a_partly_frozen_attention_the_same_part_is_frozen_when_it_is_opened(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("darts_core.models.named.is_trusted", lambda module: True)
    model = make_partly_frozen()
    found, _ = open_attentions(model, SHAPE)
    held = {"attention.qkv.weight", "attention.qkv.bias"}
    assert _frozen(model) == held
    meta = {"model": {"name": f"{__name__}:make_partly_frozen", "arguments": {}}, "replaced": found}
    save_model(tmp_path / "model.pt", model, meta)
    assert _frozen(load_model(tmp_path / "model.pt")[0]) == held


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_takes_the_width_of_what_it_is_given(kind):
    wide, narrow = (kind(width, 4, batch_first=True, bidirectional=True) for width in (8, 5))
    reshape_like(wide, narrow.state_dict()).load_state_dict(narrow.state_dict())
    assert wide.input_size == 5
    x = torch.randn(2, 3, 5)
    torch.testing.assert_close(wide(x)[0], narrow(x)[0])


class Named(nn.Module):
    """Calls its layers by the name of their argument."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(input=self.norm(input=self.conv(input=x)).mean((2, 3)))


def test_layers_that_are_called_by_keyword_have_a_cost():
    costs = LayerCosts(torch.device("cpu"), analytic=True)
    costs.observe(Named().eval(), SHAPE, 2)
    shapes = {name: shape for name, (_, shape) in costs.layers.items()}
    assert shapes == {"conv": (2, *SHAPE), "norm": (2, 8, 8, 8), "head": (2, 8)}
    assert costs.total_ms() > 0


class Picked(nn.Module):
    def __init__(self):
        super().__init__()
        self.order = nn.Parameter(torch.arange(8), requires_grad=False)

    def forward(self, x):
        return x + 0.0 * self.order.sum()


class Numbered(nn.Module):
    """Whole numbers among its parameters."""

    def __init__(self):
        super().__init__()
        self.first, self.picked = nn.Conv2d(3, 8, 1), Picked()
        self.second, self.head = nn.Conv2d(8, 6, 1), nn.Linear(6, 3)

    def forward(self, x):
        x = self.second(self.picked(self.first(x).relu())).relu()
        return self.head(x.mean((2, 3)))


def test_parameters_of_whole_numbers_need_no_gradient():
    torch.manual_seed(0)
    model = Numbered().eval()
    assert find_dead(model, SHAPE) == {}
    assert {group.root for group in find_groups(model, SHAPE)} == {"first", "second"}
    assert _frozen(model) == {"picked.order"}
