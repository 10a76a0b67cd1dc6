"""Heads of attentions: opened where they must be, cut, saved and built again."""

import copy

import onnxruntime
import pytest
import torch
from elastic_cases import Fused
from prune_cases import Data, by_macs, count_costs
from torch import nn

from darts_core.errors import ExportError
from darts_core.export.fold import trace
from darts_core.latency import Timing
from darts_core.latency.deployed import onnx_bytes
from darts_core.prune import PruneResult, prune_to_budget
from darts_core.prune.groups import channels_to_remove, find_groups
from darts_core.prune.heads import groups_of_heads, open_attentions, remove
from darts_core.prune.importance import channel_importance
from darts_core.prune.store import Store
from darts_core.prune.structure import find_cuts
from darts_core.supernet.open_attention import OpenMultihead, opened
from darts_core.train.save import load_model, replace_modules, reshape_like

SHAPE = (3, 8, 8)


class Written(Fused):
    """As many write it: the heads' share of the width is read off the input."""

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * self.head_dim**-0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, t, c))


class Scored(Written):
    """Not what an attention computes: its scores are not scaled."""

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        return self.proj(
            ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).reshape(b, t, c)
        )


class Own(nn.Module):
    """torch's attention, called with its weights asked for."""

    def __init__(self, channels, heads):
        super().__init__()
        self.inner = nn.MultiheadAttention(channels, heads, batch_first=True)

    def forward(self, x):
        return self.inner(x, x, x)[0]


class Vit(nn.Module):
    def __init__(self, attention, num_classes=3):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.first = nn.Parameter(torch.randn(1, 1, 16))
        self.blocks = nn.Sequential(*[Residual(attention(16, 4)) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, num_classes)

    def forward(self, x):
        x_BTC = self.patch(x).flatten(2).transpose(1, 2)
        x_BTC = torch.cat([self.first.expand(x.shape[0], -1, -1), x_BTC], 1)
        return self.head(self.norm(self.blocks(x_BTC))[:, 0])


class Residual(nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(16), attention
        self.mlp = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, x):
        x = x + self.attention(self.norm(x))
        return x + self.mlp(x)


class Encoder(nn.Module):
    """torch's own encoder, whose fast path reads parameters of the attention itself."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.encoder(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


CASES = {
    "fused": lambda: Vit(Fused),
    "written": lambda: Vit(Written),
    "torch": lambda: Vit(Own),
    "encoder": Encoder,
}


@pytest.mark.parametrize("name", CASES)
def test_cut_heads_equal_silenced_heads(name):
    torch.manual_seed(0)
    model = CASES[name]().eval()
    whole = copy.deepcopy(model)
    replaced, left = open_attentions(model, SHAPE)
    assert not left
    assert bool(replaced) == (name != "fused")
    x = torch.randn(2, *SHAPE)
    torch.testing.assert_close(model(x), whole(x), rtol=1e-4, atol=1e-5)
    groups = groups_of_heads(model, SHAPE)
    assert [group.channels for group in groups] == [4, 4]
    silent = copy.deepcopy(model)
    with torch.no_grad():
        for group in groups:
            reader = group.members[-1]
            at = [i for p, i in zip(reader.positions, reader.indices, strict=True) if p in (0, 2)]
            silent.get_submodule(reader.name).weight[:, at] = 0.0
    removed = {group.root: [0, 2] for group in groups}
    cut = remove(copy.deepcopy(model), SHAPE, groups, removed)
    torch.testing.assert_close(cut(x), silent(x), rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in cut.parameters()) < sum(p.numel() for p in model.parameters())
    # and from the saved tensors
    again = reshape_like(replace_modules(CASES[name](), replaced), cut.state_dict())
    if name != "fused":
        again.load_state_dict(cut.state_dict())
        torch.testing.assert_close(again.eval()(x), cut(x))


def test_an_attention_that_computes_something_else_is_left_and_said():
    model = Vit(Scored).eval()
    replaced, left = open_attentions(model, SHAPE)
    assert not replaced
    assert list(left) == ["blocks.0.attention", "blocks.1.attention"]
    assert "follows from the width" in left["blocks.0.attention"]
    assert not groups_of_heads(model, SHAPE)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_an_opened_multihead_attention_is_called_as_the_original(batch_first, bias):
    torch.manual_seed(0)
    old = nn.MultiheadAttention(8, 2, batch_first=batch_first, bias=bias).eval()
    new = opened(old)
    x, y = torch.randn(3, 3, 8), torch.randn(3, 3, 8)
    hidden = torch.tensor([[False, True, False]] * 3)
    causal = torch.full((3, 3), float("-inf")).triu(1)
    calls = [
        ((x, x, x), {}), ((x, y, y), {}), ((x, x, x), {"need_weights": False}),
        ((x, x, x), {"key_padding_mask": hidden}),
        ((x, x, x), {"attn_mask": causal, "is_causal": True, "need_weights": False}),
        ((x, x, x), {"attn_mask": causal < 0, "average_attn_weights": False}),
    ]  # fmt: skip
    for inputs, options in calls:
        for found, wanted in zip(new(*inputs, **options), old(*inputs, **options), strict=True):
            torch.testing.assert_close(found, wanted)


def test_attentions_with_keys_of_their_own_are_not_opened():
    assert opened(nn.MultiheadAttention(8, 2, add_zero_attn=True)) is None
    assert opened(nn.MultiheadAttention(8, 2, add_bias_kv=True)) is None
    assert opened(nn.MultiheadAttention(8, 2, kdim=4, vdim=4)) is None
    assert isinstance(opened(nn.MultiheadAttention(8, 2)), OpenMultihead)


@pytest.mark.parametrize("kind", ["taylor", "magnitude"])
def test_an_idle_head_is_the_least_important(kind):
    torch.manual_seed(0)
    model = Vit(Own).eval()
    open_attentions(model, SHAPE)
    groups = groups_of_heads(model, SHAPE)
    assert len(groups) == 2
    with torch.no_grad():
        for group in groups:
            for member in group.members[:-1]:
                layer = model.get_submodule(member.name)
                at = [i for p, i in zip(member.positions, member.indices, strict=True) if p == 1]
                layer.weight[at] = 0.0
                layer.bias[at] = 0.0
    batch = (torch.randn(4, *SHAPE), torch.tensor([0, 1, 2, 0]))
    for group in groups:
        scores = channel_importance(model, [group], kind, [batch])[group.root]
        assert scores[1] == scores.min() == 0
        assert scores.max() > 0
        assert channels_to_remove(group, scores, 3) == [1]


@pytest.mark.parametrize("name", ["fused", "torch"])
def test_a_budget_is_met_by_heads_and_the_network_is_built_again(tmp_path, monkeypatch, name):
    count_costs(monkeypatch)
    monkeypatch.setattr("darts_core.models.named.is_trusted", lambda module: True)
    torch.manual_seed(0)
    model = CASES[name]().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear) and module.out_features == 32:
                module.weight *= 30  # nothing of the MLPs is to be spared
    module = f"{__name__}:make_{name}"
    found = prune_to_budget(
        model, Data(), budget="70%", tune=lambda *_: 0.0, timer=by_macs, structure=False, rounds=1,
        folder=tmp_path, meta={"model": {"name": module, "arguments": {}}}, round_to=4, batch=1,
    )  # fmt: skip
    cut = [root for root in found.rounds[0]["widths"] if root.endswith(".heads")]
    assert cut
    again, _ = load_model(tmp_path / "model.pt")
    x = torch.randn(2, *SHAPE)
    torch.testing.assert_close(again(x), found.model(x))


def test_a_block_that_goes_after_its_heads_leaves_a_network_that_can_be_loaded(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("darts_core.models.named.is_trusted", lambda module: True)
    torch.manual_seed(0)
    model = make_fused().eval()
    groups = groups_of_heads(model, SHAPE)
    remove(model, SHAPE, groups, {group.root: [0, 2] for group in groups})
    sizes = {f"{at}.{name}": 2 * unit for g in groups for at, name, unit in g.attributes}
    replaced = {"blocks.1": "skip_connect"}
    replace_modules(model, replaced)
    ms = Timing(1.0, 1.0, 1.0, 5, "a clock in the tests")
    found = PruneResult(model, ms, ms, 1.0, replaced=replaced, sizes=sizes)
    Store(tmp_path, {"model": {"name": f"{__name__}:make_fused", "arguments": {}}}).finish(found)
    again, meta = load_model(tmp_path / "model.pt")
    x = torch.randn(2, *SHAPE)
    torch.testing.assert_close(again(x), model(x))
    assert meta["sizes"] == {at: size for at, size in sizes.items() if at.startswith("blocks.0.")}
    assert meta["sizes"]


def make_fused():
    return CASES["fused"]()


def make_torch():
    return CASES["torch"]()


@pytest.mark.parametrize("make", [lambda: Vit(Own), Encoder])
def test_torch_s_attention_runs_in_onnx_runtime(make):
    model, x = make().eval(), torch.randn(2, *SHAPE)
    with torch.no_grad():
        content = onnx_bytes(model, x)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
    torch.testing.assert_close(found, model(x), rtol=1e-4, atol=1e-5)
    assert torch.backends.mha.get_fastpath_enabled()


def test_tokens_alone_behind_a_free_parameter_can_be_followed():
    """torch-pruning divides by the width of what it does not find there."""
    model = replace_modules(Vit(Own).eval(), {f"blocks.{i}": "skip_connect" for i in (0, 1)})
    (group,) = find_groups(model, SHAPE)
    assert [member.name for member in group.members] == ["patch", "norm", "head"]


def test_the_first_layer_of_torch_s_encoder_is_not_cut_out():
    """The encoder asks it for its attention, which nothing in its place has; the others are only called."""
    model = Encoder().eval()
    assert [cut.path for cut in find_cuts(model, SHAPE)] == ["encoder.layers.1"]
    assert isinstance(model.encoder.layers[0], nn.TransformerEncoderLayer)


def test_a_number_of_samples_that_is_burnt_in_is_named():
    class Counted(Vit):
        def forward(self, x):
            return super().forward(x) + len(x)

    with pytest.raises(ExportError, match=r"take it as x.shape\[0\]"):
        trace(Counted(Own), SHAPE)
