"""Attentions whose heads follow from the network's width, as torch's own: opened, so that heads may go."""

import copy
import json

import numpy as np
import pytest
import torch
from test_elastic_shrink import Counting
from torch import nn

from darts_core import autosearch
from darts_core.autosearch import contract, elastic_family
from darts_core.autosearch.elastic_network import _cut, point_path
from darts_core.elastic import Sandwich, elastic
from darts_core.elastic.points import described_point
from darts_core.errors import PruneError
from darts_core.supernet.open_attention import opened
from darts_core.train.save import fit_to

X = (2, 3, 16, 16)


class Own(nn.Module):
    """Patches, torch's own encoder, a head."""

    def __init__(self, norm_first=True, **options):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        layer = nn.TransformerEncoderLayer(
            16, 4, 32, batch_first=True, norm_first=norm_first, **options
        )
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.encoder(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


@pytest.mark.parametrize("norm_first", [True, False])
def test_heads_stream_and_depth_of_torch_s_encoder_vary(norm_first):
    torch.manual_seed(0)
    model = Own(norm_first).double()
    given, own = copy.deepcopy(model).eval(), {id(p) for p in model.parameters()}
    x = torch.randn(*X).double()
    net = elastic(model, x)
    assert net.opened == tuple(f"encoder.layers.{n}.self_attn" for n in range(3))
    names = {variable.name for variable in net.variables}
    assert {f"{path}.heads" for path in net.opened} < names
    assert "encoder.layers.1..2.depth" in names
    # an optimizer that was made before goes on with them, and dropout with its mode
    assert {id(p) for p in model.parameters()} == own
    assert all(module.training for module in model.modules())
    torch.testing.assert_close(model.eval()(x), given(x), rtol=1e-10, atol=1e-10)
    generator = np.random.default_rng(0)
    for choices in [net.smallest, *(net.draw(generator) for _ in range(3))]:
        with net.running(choices), torch.no_grad():
            sliced = model(x)
        cut = net.cut(choices)
        torch.testing.assert_close(cut(x), sliced, rtol=1e-10, atol=1e-10)
        # and from what a point's file says of it
        about = described_point({}, net.described(choices))
        again = fit_to(
            Own(norm_first).double(), cut.state_dict(), about["replaced"], about["sizes"]
        )
        torch.testing.assert_close(again.eval()(x), sliced, rtol=1e-10, atol=1e-10)


def test_an_elastic_step_reaches_the_parameters_of_an_attention_that_was_opened():
    torch.manual_seed(0)
    model = Own(dropout=0.0)
    weight = model.encoder.layers[0].self_attn.in_proj_weight
    before, optimizer = weight.detach().clone(), torch.optim.SGD(model.parameters(), 0.1)
    net = elastic(model, torch.randn(*X))
    moved = weight.detach().clone()
    y = torch.tensor([1, 2])
    Sandwich(net).backward(torch.randn(*X), lambda out: nn.functional.cross_entropy(out, y))
    optimizer.step()
    assert torch.equal(moved.flatten().sort().values, before.flatten().sort().values)
    assert not torch.equal(weight, moved)
    assert model.encoder.layers[0].self_attn.qkv.weight is weight


def test_without_heads_an_attention_stays_as_it_was_given():
    model = Own()
    before = list(model.state_dict())
    net = elastic(model, torch.randn(*X), heads=False)
    assert not net.opened
    assert list(model.state_dict()) == before
    assert not any(variable.name.endswith("heads") for variable in net.variables)


def _watched(attention):
    attention.register_forward_hook(lambda *_: None)
    return attention


def _derived(attention):
    nn.utils.parametrizations.orthogonal(attention.out_proj)
    return attention


@pytest.mark.parametrize("kind", ["watched", "derived", "shared", "keys of its own"])
def test_an_attention_that_nothing_can_stand_for_is_left_with_a_reason(kind):
    model = Own()
    layers = model.encoder.layers
    if kind == "shared":
        layers[2].self_attn = layers[1].self_attn
    elif kind == "keys of its own":
        layers[1].self_attn = nn.MultiheadAttention(16, 4, batch_first=True, add_bias_kv=True)
    else:
        make = _watched if kind == "watched" else _derived
        make(layers[1].self_attn)
    net = elastic(model, torch.randn(*X))
    assert "encoder.layers.0.self_attn" in net.opened
    assert "encoder.layers.1.self_attn" not in net.opened
    assert "nn.MultiheadAttention" in net.left["encoder.layers.1.self_attn"]
    assert isinstance(layers[1].self_attn, nn.MultiheadAttention)


class Attention(nn.Module):
    """As people write it: the size of a head follows from the width."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.num_heads, self.qkv = 4, nn.Linear(16, 48)
        self.drop, self.proj = nn.Dropout(dropout), nn.Linear(16, 16)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 4)).permute(2, 0, 3, 1, 4)
        weights = self.drop((q @ k.transpose(-2, -1) / 2).softmax(-1))
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class Norm(nn.LayerNorm):
    """torch's, of a class of one's own."""


class Written(nn.Module):
    """Patches, two blocks of hand-written attention, a head."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.norm1, self.norm2 = Norm(16), Norm(16)
        self.one, self.two = Attention(dropout), Attention()
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.norm2(self.norm1(self.patch(x).flatten(2).transpose(1, 2)))
        x = x + self.one(x)
        return self.head((x + self.two(x)).mean(1))


def test_a_hand_written_attention_with_dropout_keeps_it_and_its_heads():
    model = Written(dropout=0.1)
    net = elastic(model, torch.randn(*X))
    assert net.opened == ("two",)
    assert model.one.drop.p == 0.1
    assert "one" in net.left


class Narrow(nn.Module):
    """A head's size follows from the width, and is the same for three heads as for four: 8 // 3 == 8 // 4."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.qkv, self.proj = 4, nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        shape = len(x), -1, self.num_heads, x.shape[-1] // self.num_heads
        q, k, v = (part.view(shape).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.proj(y.flatten(2))


def test_heads_whose_size_follows_from_the_width_are_opened_however_few_channels_they_have():
    torch.manual_seed(0)
    model, x = (
        nn.Sequential(nn.Linear(5, 8), Narrow(), nn.Linear(8, 3)).eval(),
        torch.randn(2, 6, 5),
    )
    wanted = model(x)
    net = elastic(model, x)
    assert net.opened == ("1",)
    assert torch.allclose(model(x), wanted, atol=1e-6)
    assert all(net.cut({"1.heads": heads})(x).shape == (2, 6, 3) for heads in (1, 2, 3))


def test_norms_of_one_s_own_class_are_no_blocks_that_may_be_skipped():
    net = elastic(Written(), torch.randn(*X))
    assert not any("norm" in v.name for v in net.variables if v.kind == "blocks")


def test_heads_whose_weights_another_attention_reads_stay_and_the_network_computes_the_same():
    torch.manual_seed(0)
    model = Own().double().eval()
    layers = model.encoder.layers
    layers[2].self_attn.in_proj_weight = layers[1].self_attn.in_proj_weight
    given, x = copy.deepcopy(model), torch.randn(*X).double()
    net = elastic(model, x)
    heads = [v.name for v in net.variables if v.name.endswith("heads")]
    assert heads == ["encoder.layers.0.self_attn.heads"]
    assert "another part" in net.left["encoder.layers.1.self_attn.heads"]
    torch.testing.assert_close(model(x), given(x), rtol=1e-10, atol=1e-10)


def test_a_layer_that_stands_in_two_places_has_its_attention_opened_once():
    torch.manual_seed(0)
    model = Own().double().eval()
    model.encoder.layers[2] = model.encoder.layers[1]
    given, x = copy.deepcopy(model), torch.randn(*X).double()
    net = elastic(model, x)
    assert "encoder.layers.1.self_attn" in net.opened
    assert model.encoder.layers[2].self_attn is model.encoder.layers[1].self_attn
    torch.testing.assert_close(model(x), given(x), rtol=1e-10, atol=1e-10)


class Broken(nn.Module):
    def loss(self, output, target):
        raise ValueError("no loss")


@pytest.mark.parametrize("make", [Attention, Own])
def test_a_network_that_is_refused_is_as_it_was_given(make):
    model = make()
    x = torch.randn(*X) if make is Own else torch.randn(2, 5, 16)
    before, modules = list(model.state_dict()), [*model.modules()]
    # an attention alone has nothing that may vary
    with pytest.raises((PruneError, ValueError)):
        elastic(model, x, batches=[(x, torch.zeros(2))], task=Broken())
    assert list(model.state_dict()) == before
    assert [*model.modules()] == modules


@pytest.mark.parametrize("need_weights", [True, False])
def test_an_opened_attention_drops_out_as_the_original_does(need_weights):
    torch.manual_seed(0)
    old = nn.MultiheadAttention(16, 4, dropout=0.5, batch_first=True).double()
    x = torch.randn(2, 5, 16).double()
    found = []
    for module in (old, opened(old)):
        torch.manual_seed(1)
        found.append(module(x, x, x, need_weights=need_weights))
    torch.testing.assert_close(found[1], found[0])


class Padded(nn.Module):
    """Sentences: torch's encoder as it is by default, which packs what is padded in evaluation."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.encoder(self.embed(x), src_key_padding_mask=x == 0).mean(1))


def test_an_encoder_that_packs_padded_inputs_is_refused_with_what_to_do():
    model, x = Padded(), torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])
    with pytest.raises(PruneError, match="enable_nested_tensor=False"):
        elastic(model, x)
    model.encoder.enable_nested_tensor = model.encoder.use_nested_tensor = False
    assert len(elastic(model, x).opened) == 2


def test_a_second_attempt_of_a_script_s_elastic_trial_reads_what_the_first_one_saved(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(elastic_family, "DeviceClock", Counting)
    torch.save(Own(dropout=0.0).state_dict(), tmp_path / "network.pt")
    options = {"batch": 1, "points": 1, "target_latency": 0.7, "looks": 8}
    record = {"trial_id": "abcd1234", "config": {"subnetwork": "elastic"}}
    record["elastic"] = {**options, "start": str(tmp_path / "network.pt"), "setting": "subnetwork"}
    folder = tmp_path / "abcd1234"
    folder.mkdir()
    (folder / "trial.json").write_text(json.dumps(record))
    saved = None
    for _ in range(2):
        trial = contract.Trial(folder)
        monkeypatch.setattr(contract, "_current", trial)
        model = autosearch.elastic(Own(dropout=0.0), X[1:])
        if saved is not None:
            model.load_state_dict(saved)
        autosearch.backward(nn.functional.cross_entropy, torch.randn(*X), torch.tensor([1, 2]))
        saved = model.state_dict()
        assert "encoder.layers.0.self_attn.qkv.weight" in saved
    (point,) = json.loads(trial.elastic.family.derive())
    cut, about = _cut(Own(dropout=0.0), point_path(tmp_path, point["value"]))
    assert about["replaced"]["encoder.layers.0.self_attn"] == "attention"
    assert cut.eval()(torch.randn(*X)).shape == (2, 5)
