"""Pruning of networks as people write them: what they return, keep, freeze and normalise with."""

import copy

import pytest
import torch
from prune_cases import SHAPE, Data, by_macs, count_costs
from torch import nn
from torch.nn.utils.parametrize import register_parametrization

from darts_core.elastic import Sandwich, elastic
from darts_core.errors import PruneError
from darts_core.prune import prune_to_budget
from darts_core.prune.finetune import fine_tune
from darts_core.prune.groups import copied, find_groups, remove_channels
from darts_core.prune.importance import taylor_products
from darts_core.prune.structure import find_cuts, find_dead
from darts_core.supernet.tied import tied, untied
from darts_core.train import TrainConfig, load_model, reshape_like, save, save_model
from darts_core.train.save import fit_to


class Pair(nn.Module):
    """Returns its output beside something else, as attention blocks of many libraries do."""

    def __init__(self, channels):
        super().__init__()
        self.one, self.two = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        inner = self.one(x).relu()
        return x + self.two(inner), inner


class Pairs(nn.Module):
    """Blocks that return pairs, and one that only a training runs."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList([Pair(8), Pair(8)])
        self.extra = nn.ModuleList([nn.Sequential(), Pair(8)])
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.first(x).relu()
        for block in self.blocks:
            x, _ = block(x)
        if self.training:
            x, _ = self.extra[1](x)
        return self.head(x.mean((2, 3)))


def test_blocks_that_return_more_than_a_tensor_or_do_not_run_are_no_cuts(monkeypatch):
    count_costs(monkeypatch)
    torch.manual_seed(0)
    model = Pairs().eval()
    assert find_cuts(model, SHAPE) == []
    found = prune_to_budget(
        model, Data(), budget="80%", batch=2, timer=by_macs, round_to=1, tune=lambda *_: None
    )
    assert found.after.median_ms <= 1.05 * 0.8 * by_macs(model).median_ms


class Fixed(nn.Module):
    """Features from which no gradient comes; what is dead beside them computes nothing that is read."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))
        self.unread = nn.Conv2d(3, 4, 1)
        self.head = nn.Linear(3, 3)

    def forward(self, x):
        with torch.no_grad():
            x = self.features(x)
        self.unread(x)
        return self.head(x.mean((2, 3)))


def test_features_without_a_gradient_are_not_taken_for_dead():
    torch.manual_seed(0)
    model = Fixed().eval()
    assert find_dead(model, SHAPE) == {"unread": "skip_connect"}
    assert isinstance(model.features[0], nn.Conv2d)
    assert isinstance(model.unread, nn.Conv2d)


class Keeping(nn.Module):
    """Keeps what it computed last, alone and in a list, for whoever wants to look at it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)
        self.head = nn.Linear(8, 3)
        self.seen, self.all = None, [None]

    def forward(self, x):
        self.seen = self.first(x).relu()
        self.all[0] = self.second(self.seen).relu()
        return self.head(self.all[0].mean((2, 3)))


def test_a_network_that_keeps_what_it_computed_is_pruned_and_timed(monkeypatch):
    count_costs(monkeypatch)
    torch.manual_seed(0)
    model, x = Keeping().eval(), Data().x[:4]

    def tune(network, part, parts):
        network.train()(x).sum().backward()  # as the last step of a fine-tuning leaves it

    found = prune_to_budget(
        # a clock copies what it times
        model, Data(), budget="60%", batch=2, timer=lambda m: by_macs(copy.deepcopy(m)), tune=tune,
        round_to=1,
    )  # fmt: skip
    assert found.rounds
    assert found.after.median_ms <= 1.05 * 0.6 * by_macs(model).median_ms


def test_a_network_that_keeps_what_it_computed_can_be_taught_by_its_copy():
    torch.manual_seed(0)
    model, data = Keeping().eval(), Data(8)
    net = elastic(model, data.x, batches=[(data.x, data.y)], step=4)
    loss = nn.functional.cross_entropy
    assert Sandwich(net).backward(data.x, lambda output: loss(output, data.y)) > 0
    model(data.x)  # with a history again, in a list, too
    assert copied(model).all[0].grad_fn is None
    taylor_products(model, [(data.x, data.y)])
    assert model.seen.grad_fn is None
    copy.deepcopy(model)


class Bare(nn.Module):
    """A layer norm and an instance norm, of which one has no weights and the other a number to keep."""

    def __init__(self, width):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.inner = nn.InstanceNorm2d(width, affine=True)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        x_BTC = self.inner(self.patch(x)).flatten(2).transpose(1, 2)
        return self.head(self.norm(x_BTC).mean(1))


def test_a_cut_network_whose_norms_have_no_weights_runs_when_it_is_loaded(tmp_path, monkeypatch):
    torch.manual_seed(0)
    narrow = Bare(12).eval()
    # what an earlier cut left is not what there is now
    meta = {"baseline": {"name": "of the test's own"}, "sizes": {"norm.normalized_shape": 14}}
    save_model(tmp_path / "model.pt", narrow, meta)
    monkeypatch.setattr(save, "_rebuild", lambda *_: Bare(16))
    again, kept = load_model(tmp_path / "model.pt")
    assert kept["sizes"] == {"norm.normalized_shape": 12}
    x = torch.randn(2, *SHAPE)
    torch.testing.assert_close(again(x), narrow(x))


@pytest.mark.parametrize("tracked", [False, True])
def test_instance_norms_take_the_width_of_what_they_are_given(tracked):
    def made(width):
        norm = nn.InstanceNorm2d(width, affine=True, track_running_stats=tracked)
        return nn.Sequential(nn.Conv2d(3, width, 1), norm).eval()

    narrow, x = made(5), torch.randn(2, 3, 4, 4)
    wide = reshape_like(made(8), narrow.state_dict())
    wide.load_state_dict(narrow.state_dict())
    torch.testing.assert_close(wide(x), narrow(x))


class Aided(nn.Module):
    """A second head that runs in training alone."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 12, 3, padding=1)
        self.third = nn.Conv2d(12, 12, 3, padding=1)
        self.helper, self.head = nn.Linear(12, 3), nn.Linear(12, 3)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        x = self.second(self.first(x).relu()).relu()
        y = self.head(self.third(x).relu().mean((2, 3)))
        if not self.training:
            return y
        self.passes += 1
        return y, self.helper(x.mean((2, 3)))


def test_channels_that_are_read_in_training_alone_stay(monkeypatch):
    count_costs(monkeypatch)
    torch.manual_seed(0)
    model = Aided().eval()
    assert {group.root for group in find_groups(model, SHAPE)} == {"first", "third"}
    assert not model.training
    assert float(model.passes) == 0.0
    recipe = TrainConfig(epochs=2, batch_size=32, cutout=0, crop_padding=0, flip=False)
    found = prune_to_budget(
        model, Data(), budget="60%", batch=2, timer=by_macs, round_to=1, fit_config=recipe
    )
    assert found.after.median_ms <= 1.05 * 0.6 * by_macs(model).median_ms
    assert found.model.second.out_channels == found.model.helper.in_features == 12


class Told(nn.Module):
    """A block that gives more than its output in training alone."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        y = x + self.two(self.one(x).relu())
        return (y, y.mean()) if self.training else y


class Telling(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 3)
        self.blocks = nn.ModuleList([Told(), Told(), Told()])

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            if self.training:
                x, _ = block(x)
            else:
                x = block(x)
        return self.head(x.mean((2, 3)))


def test_blocks_of_which_a_training_reads_more_stay():
    torch.manual_seed(0)
    model = Telling().eval()
    assert find_cuts(model, SHAPE) == []
    net = elastic(model, torch.randn(2, *SHAPE))
    assert {variable.kind for variable in net.variables} == {"channels"}
    assert set(net.left) >= {"blocks.0", "blocks.1", "blocks.2"}
    model.train()
    x, y = torch.randn(4, *SHAPE), torch.arange(4) % 3
    assert Sandwich(net).backward(x, lambda z: nn.functional.cross_entropy(z, y)).isfinite()


def test_what_only_a_training_reads_is_not_sorted_away():
    torch.manual_seed(0)
    model, x, y = Aided().eval(), torch.randn(4, *SHAPE), torch.arange(4) % 3
    given = copy.deepcopy(model).train()
    net = elastic(model, x)
    assert {variable.name for variable in net.variables} == {"first", "third"}
    assert "what runs in training alone" in net.left["second"]
    model.train()
    for found, wanted in zip(model(x), given(x), strict=True):
        torch.testing.assert_close(found, wanted)
    loss = Sandwich(net).backward(x, lambda z: sum(nn.functional.cross_entropy(o, y) for o in z))
    assert loss.isfinite()


class OneWeight(nn.Module):
    """A language model whose output is its embedding's weight."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 16)
        self.up, self.down = nn.Linear(16, 24), nn.Linear(24, 16)
        self.head = nn.Linear(16, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x_BT):
        x = self.embed(x_BT)
        return self.head(x + self.down(torch.relu(self.up(x))))


def test_a_weight_in_two_places_stays_one_when_it_is_cut_and_when_it_is_loaded():
    model = OneWeight().eval()
    lost = {group.root: [0, 3] for group in find_groups(model, (5,))}
    remove_channels(model, (5,), lost)
    assert model.embed.weight.shape == (11, 14)
    assert model.head.weight is model.embed.weight
    loaded = fit_to(OneWeight().eval(), model.state_dict())
    assert loaded.head.weight is loaded.embed.weight
    tokens = torch.arange(5)[None]
    assert torch.equal(loaded(tokens), model(tokens))


def test_places_of_one_weight_that_are_cut_differently_are_named():
    model = nn.Sequential(*(nn.Conv2d(8, 8, 1, bias=False) for _ in range(2)), nn.Conv2d(8, 3, 1))
    model[1].weight = model[0].weight
    before = tied(model)
    assert before == [("0.weight", "1.weight")]
    assert untied(model, before) == []
    remove_channels(model.eval(), (8, 4, 4), {"0": [2]})
    assert (model[0].weight.shape[:2], model[1].weight.shape[:2]) == ((7, 8), (8, 7))
    assert untied(model, before) == before


class Otherwise(nn.Module):
    """Gives something else in evaluation mode."""

    def __init__(self, then):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 8), nn.Flatten(), nn.Linear(8, 3))
        self.then = then

    def forward(self, x):
        return self.body(x) if self.training else self.then(self.body(x))


@pytest.mark.parametrize(
    ("then", "words"),
    [
        (
            lambda z: z.softmax(1),
            "Otherwise gives outputs before a softmax in training and behind it",
        ),
        (lambda z: z[:, :2], r"of shape \[8, 3\] in training and \[8, 2\] in evaluation mode"),
    ],
    ids=["a softmax", "fewer"],
)
def test_a_teacher_that_answers_otherwise_than_the_training_is_refused(then, words):
    """Probabilities passed for outputs before the softmax: the pruned network was drawn to even guesses."""
    config = TrainConfig(epochs=1, batch_size=8, warmup_epochs=0)
    options = {"teacher": Otherwise(then), "device": torch.device("cpu")}
    with pytest.raises(PruneError, match=words):
        fine_tune(Otherwise(then), Data(16), config, **options)
    fine_tune(Otherwise(then), Data(16), config, distillation=0.0, **options)
    same = Otherwise(lambda z: z.log_softmax(1))  # which teaches the same
    fine_tune(same, Data(16), config, teacher=copy.deepcopy(same), device=torch.device("cpu"))


class Named(nn.Sequential):
    def forward(self, x):
        return {"out": super().forward(x)}


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Named(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 8), nn.Flatten()), "gives a dict; put it into"),
        (
            nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 8), nn.Flatten()).double(),
            r"does not run on the data .*weights are float64, the data float32: .* model\.float\(\)",
        ),
    ],
)
def test_what_prune_cannot_take_is_refused_in_a_sentence(model, why, monkeypatch):
    count_costs(monkeypatch)
    with pytest.raises(PruneError, match=why):
        prune_to_budget(
            model.eval(), Data(), budget="60%", batch=2, timer=by_macs, tune=lambda *_: None
        )


class Twice(nn.Module):
    """A parametrization that takes no new value."""

    def forward(self, value):
        return 2 * value


def test_a_layer_whose_bias_is_derived_is_rebuilt():
    """Its inputs may be fewer: the bias, which no cut touches, was to be set, and has no inverse."""

    def made():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), nn.Flatten())
        register_parametrization(model[1], "bias", Twice())
        return model.eval()

    narrow = remove_channels(made(), SHAPE, {"0": [1, 2]})
    x = torch.randn(2, *SHAPE)
    assert torch.equal(fit_to(made(), narrow.state_dict()).eval()(x), narrow(x))
