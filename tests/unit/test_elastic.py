"""Networks made elastic: the whole one computes what the given one did, sub-networks are plain networks."""

import copy

import numpy as np
import pytest
import torch
from elastic_cases import NETWORKS, SHAPE, settled
from torch import nn

from darts_core.elastic import elastic
from darts_core.errors import ConfigError, PruneError
from darts_core.models import trust
from darts_core.spaces import get_space
from darts_core.supernet import build
from darts_core.train.save import load_model, save_model


def _batches(count=2):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(8, *SHAPE, generator=generator).double(), torch.arange(8) % 5)
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def made():
    found = {}
    for name in NETWORKS:
        given = settled(name)
        found[name] = (copy.deepcopy(given), elastic(given, _batches()[0][0], batches=_batches()))
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_the_whole_network_computes_what_the_given_one_did(made, name):
    before, net = made[name]
    x = torch.randn(8, *SHAPE).double()
    with torch.no_grad():
        wanted = before(x)
        error = float((net.model(x) - wanted).abs().max() / wanted.abs().max())
    assert error < 1e-10
    moved = [
        p
        for p, q in zip(before.parameters(), net.model.parameters(), strict=True)
        if not p.equal(q)
    ]
    assert moved, "nothing was sorted"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_cut_network_computes_what_the_sliced_one_does(made, name):
    _, net = made[name]
    x = torch.randn(8, *SHAPE).double()
    generator = np.random.default_rng(3)
    for choices in [net.smallest, net.largest, *(net.draw(generator) for _ in range(4))]:
        plain = net.cut(choices)
        with torch.no_grad(), net.running(choices):
            sliced = net.model(x)
        assert torch.equal(plain(x), sliced)
        shapes = {p.shape for p in plain.parameters()}
        assert choices == net.largest or shapes != {p.shape for p in net.model.parameters()}
    with torch.no_grad():
        assert sum(p.numel() for p in net.cut(net.smallest).parameters()) < 0.7 * sum(
            p.numel() for p in net.model.parameters()
        )


def test_a_sliced_network_equals_one_whose_further_channels_are_read_by_nobody(made):
    _, net = made["resnet14"]
    x = torch.randn(8, *SHAPE).double()
    generator = np.random.default_rng(4)
    for _ in range(4):
        choices = {
            **net.draw(generator),
            **{v.name: v.options[-1] for v in net.variables if v.kind == "blocks"},
        }
        silent = copy.deepcopy(net.model)
        with torch.no_grad():
            for width in net.variables:
                for member in getattr(width, "members", ()):
                    if member.side == "in":
                        pairs = zip(member.positions, member.indices, strict=True)
                        silent.get_submodule(member.name).weight[
                            :, [i for p, i in pairs if p >= choices[width.name]]
                        ] = 0.0
            wanted = silent(x)
            found = net.cut(choices)(x)
        assert torch.allclose(found, wanted, rtol=0, atol=1e-10 * float(wanted.abs().max()))


def test_what_may_vary_is_found(made):
    kinds = {name: {} for name in NETWORKS}
    for name, (_, net) in made.items():
        for variable in net.variables:
            kinds[name].setdefault(variable.kind, []).append(variable.name)
    assert len(kinds["resnet14"]["blocks"]) == 3
    assert len(kinds["resnet14"]["channels"]) == 9
    assert len(kinds["vit"]["heads"]) == 3
    assert len(kinds["vit"]["blocks"]) == 1
    assert {"blocks.2.down", "blocks.0.up"} <= set(kinds["vit"]["channels"])
    assert len(kinds["mobilenetv2"]["blocks"]) == 5
    assert {"norm", "depthwise", "hidden"} == set(kinds["foreign"]["channels"])
    foreign = made["foreign"][1]
    assert "fixed" in foreign.left
    assert "out" in foreign.left
    assert "left (" in str(foreign)
    assert "hidden: " in str(foreign)


def test_gradients_of_a_sub_network_reach_the_shared_parameters_and_statistics_stay(made):
    _, net = made["resnet14"]
    before = {name: b.clone() for name, b in net.model.named_buffers()}
    net.model.train().zero_grad()
    with net.running(net.smallest):
        net.model(torch.randn(8, *SHAPE).double()).square().sum().backward()
    first = net.model.features[0][0].weight.grad
    kept = net.smallest["features.0.0"]
    assert first is not None
    assert bool((first.flatten(1).norm(dim=1) > 0).any())
    assert 0 < kept < len(first)
    assert not bool(first[kept:].any())
    assert all(before[name].equal(b) for name, b in net.model.named_buffers())
    net.model.eval().zero_grad()


@pytest.mark.parametrize("name", ["resnet14", "vit"])
def test_a_saved_sub_network_is_built_again(made, tmp_path, monkeypatch, name):
    _, net = made[name]
    choices = {**net.largest, **{v.name: v.options[0] for v in net.variables[2:]}}
    plain = net.cut(choices).float()
    monkeypatch.setattr(trust, "_NAMED", {"elastic_cases"})
    node = {"name": f"elastic_cases:{name}", "arguments": {}}
    save_model(tmp_path / "model.pt", plain, {"model": node, **net.described(choices)})
    again, _ = load_model(tmp_path / "model.pt")
    x = torch.randn(2, *SHAPE)
    with torch.no_grad():
        assert torch.equal(again(x), plain(x))


def test_an_unknown_choice_is_refused(made):
    _, net = made["resnet14"]
    with pytest.raises(ConfigError, match="no option"):
        net.cut({net.variables[0].name: 3})
    with pytest.raises(ConfigError, match="elastic variable"):
        net.cut({"nowhere": 3})


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_a_script_may_call_it_where_gradients_are_off(made, without):
    (before, usual), batches = made["resnet14"], _batches()
    given = copy.deepcopy(before)
    with without():
        net = elastic(given, batches[0][0], batches=batches)
    assert net.orders == usual.orders
    assert net.variables == usual.variables
    pairs = zip(net.model.parameters(), usual.model.parameters(), strict=True)
    assert all(torch.equal(p, q) for p, q in pairs)
    assert all(p.requires_grad and not p.is_inference() for p in net.model.parameters())


class _Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        raise ValueError("not today")


def test_a_network_that_cannot_be_followed_or_varied_is_refused_in_a_sentence():
    with pytest.raises(PruneError, match="does not run on example_inputs"):
        elastic(_Branching(), torch.randn(2, 1, 4))
    with pytest.raises(PruneError, match="may vary"):
        elastic(nn.Sequential(nn.Linear(4, 3)), torch.randn(2, 1, 4))
    with pytest.raises(PruneError, match=r"as \[B, 1, features\].*nn.Flatten\(\), network\)"):
        elastic(nn.Linear(4, 3), torch.randn(2, 4))
    rows = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Linear(16, 3))
    assert elastic(nn.Sequential(nn.Flatten(), rows), torch.randn(2, 1, 4)).largest == {"1.0": 16}
    with pytest.raises(PruneError, match=r"token numbers \[B, T\]"):
        elastic(nn.Linear(4, 3), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(PruneError, match="bool must be floating-point numbers, or token numbers"):
        elastic(nn.Linear(4, 3), torch.zeros(2, 1, 4, dtype=torch.bool))
    with pytest.raises(PruneError, match="must be one tensor"):
        elastic(nn.Linear(4, 3), [torch.zeros(2, 1, 4)])
    plain = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    several = copy.deepcopy(plain)
    several.register_forward_hook(lambda module, args, output: {"logits": output})
    with pytest.raises(PruneError, match="Sequential gives a dict; put it into a module whose"):
        elastic(several, torch.randn(2, 1, 4))
    with pytest.raises(PruneError, match=r"compiled by torch\.compile; give the plain"):
        elastic(torch.compile(plain, backend="eager"), torch.randn(2, 1, 4))
    spread = nn.DataParallel(nn.Linear(4, 3))  # which moves what it is given where there is a GPU
    spread.device_ids = [0]  # as on a machine with a GPU
    with pytest.raises(PruneError, match=r"its `module`\), not DataParallel around it"):
        elastic(spread, torch.randn(2, 1, 4))
    traced = nn.Sequential(torch.jit.trace(plain, torch.randn(2, 1, 4)), nn.ReLU())
    with pytest.raises(PruneError, match="a part of it, is TorchScript"):
        elastic(traced, torch.randn(2, 1, 4))
    plain.compile(backend="eager")
    with pytest.raises(PruneError, match=r"elastic before that.*leave `compile\(\)` out there"):
        elastic(plain, torch.randn(2, 1, 4))
    broken = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    nn.init.constant_(broken[0].weight, float("nan"))
    with pytest.raises(PruneError, match="NaN or infinite outputs"):
        elastic(broken, torch.randn(2, 1, 4))


class _Logarithm(nn.Module):
    def forward(self, x):
        return (x + 1e-6).log()


def test_a_network_of_its_inputs_logarithms_is_tried_on_inputs_as_it_takes_them():
    """ "Its parameters are not those of a finished training", as negative numbers have no logarithm."""
    torch.manual_seed(0)
    x = torch.rand(2, 1, 4, dtype=torch.float64)
    model = nn.Sequential(_Logarithm(), nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).double()
    wanted, net = model(x), elastic(model, x, step=4)
    assert net.smallest == {"1": 4}
    assert model[1].weight.shape == (16, 4)
    torch.testing.assert_close(model(x), wanted, rtol=0, atol=1e-12)


def test_channels_that_are_normalised_beside_their_neighbours_keep_their_places():
    """In a reversed order, which alone was tried, neighbours stay neighbours; sorted ones did not."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.LocalResponseNorm(5, alpha=1.0), nn.Conv2d(16, 16, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    ).double().eval()  # fmt: skip
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    wanted, net = model(x), elastic(model, x, step=4)
    assert [variable.name for variable in net.variables] == ["2"]
    assert "by position" in net.left["0"]
    torch.testing.assert_close(model(x), wanted, rtol=0, atol=1e-12)


def test_a_language_model_s_stream_mlps_heads_and_depth_vary():
    torch.manual_seed(0)
    architecture = get_space("gpt_tiny").random(np.random.default_rng(1))
    model = build(architecture, channels=8, num_classes=5, in_channels=5).double().eval()
    x = torch.randint(5, (3, 6))
    wanted = model(x)
    net = elastic(model, x)
    assert torch.allclose(net.model(x), wanted, rtol=0, atol=1e-10)
    names = {variable.name: variable.kind for variable in net.variables}
    assert set(names.values()) == {"channels", "heads", "blocks"}
    stream = next(
        v for v in net.variables if any(m.name == "embedding" for m in getattr(v, "members", ()))
    )
    assert {"head", "norm"} <= {member.name for member in stream.members}
    generator = np.random.default_rng(0)
    for choices in (net.smallest, net.draw(generator), net.draw(generator)):
        with net.running(choices) as network:
            sliced = network(x)
        assert torch.equal(net.cut(choices)(x), sliced)
    assert sum(p.numel() for p in net.cut(net.smallest).parameters()) < 0.5 * sum(
        p.numel() for p in model.parameters()
    )
