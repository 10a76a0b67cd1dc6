"""Choices in a user's own model: alphas, tied labels, exact plain networks."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from darts_core.architecture import Architecture
from darts_core.errors import ArchitectureError, ConfigError
from darts_core.relax import GumbelStraightThrough, PartialChannels
from darts_core.spaces.choices import ChoiceSpace
from darts_core.supernet.choices import (
    Choice,
    DepthChoice,
    HeadChoice,
    LayerChoice,
    WidthChoice,
)
from darts_core.supernet.module_supernet import ModuleSupernet


class Block(nn.Module):
    """A residual block of a user's ResNet, its inner width and its kernel searched."""

    def __init__(self, channels, kernel_label=None):
        super().__init__()
        self.conv1 = LayerChoice(
            {
                "k3": nn.Conv2d(channels, 8, 3, padding=1, bias=False),
                "k5": nn.Conv2d(channels, 8, 5, padding=2, bias=False),
            },
            label=kernel_label,
        )
        self.norm1 = nn.BatchNorm2d(8)
        self.width = WidthChoice([3, 5, 8])
        self.conv2 = nn.Conv2d(8, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.out = WidthChoice([4, 6], label="trunk")

    def forward(self, x):
        inner = self.width(torch.relu(self.norm1(self.conv1(x))))
        return self.out(torch.relu(x + self.norm2(self.conv2(inner))))


class UserResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.stem_width = WidthChoice([4, 6], label="trunk")
        self.first = Block(6, kernel_label="kernel")
        self.rest = DepthChoice(
            [Block(6, kernel_label="kernel"), Block(6)], [0, 1, 2], label="depth"
        )
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = self.rest(self.first(self.stem_width(self.stem(x))))
        return self.head(x.mean((2, 3)))


def supernet():
    torch.manual_seed(0)
    net = ModuleSupernet(UserResNet(), input_shape=(3, 8, 8))
    # give the running statistics something that is not 0 and 1
    net.train()
    for _ in range(2):
        net(torch.randn(8, 3, 8, 8))
    return net.eval()


def test_labels_options_and_alphas_without_parameters_twice():
    net = supernet()
    shapes = {label: tuple(alpha.shape) for label, alpha in net.named_alphas().items()}
    assert shapes == {
        "trunk": (1, 2),
        "kernel": (1, 2),
        "first.width": (1, 3),
        "depth": (1, 3),
        "rest.blocks.0.width": (1, 3),
        "rest.blocks.1.conv1": (1, 2),
        "rest.blocks.1.width": (1, 3),
    }
    ours = {id(p) for p in net.parameters()}
    assert not any(id(alpha) in ours for alpha in net.alphas())
    assert ours == {id(p) for p in net.module.parameters()}
    assert set(net.state_dict()) >= {"alpha.rest/blocks/0/width", "progress"}


@pytest.mark.parametrize(
    "values",
    [
        {"trunk": 4, "kernel": "k3", "depth": 2},
        {"trunk": 6, "kernel": "k5", "depth": 1, "first.width": 3},
        {"trunk": 4, "depth": 0, "first.width": 5},
        {"trunk": 4, "depth": 2, "rest.blocks.1.conv1": "k5", "rest.blocks.1.width": 3},
    ],
)
def test_the_plain_module_computes_what_the_masked_supernet_does(values):
    net = supernet()
    chosen = {label: values.get(label, options[-1]) for label, options in net.space.choices}
    architecture = Architecture("module", choices=tuple(chosen.items()))
    plain = net.build(architecture)
    assert not any(isinstance(m, (Choice, nn.BatchNorm1d)) for m in plain.modules())
    x = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(plain(x), net(x, net.one_hot(architecture)), atol=1e-5, rtol=1e-4)
    assert plain.head.in_features == chosen["trunk"]
    assert plain.first.conv2.in_channels == chosen["first.width"]
    assert len(plain.rest) == chosen["depth"]
    # training goes on from here, and the supernet is untouched
    plain.train()(x).sum().backward()
    assert all(p.grad is not None for p in plain.parameters())
    assert net.module.head.in_features == 6


def test_gradients_reach_every_alpha():
    net = supernet()
    x = torch.randn(2, 3, 8, 8)
    loss = net(x, net.mixing_weights()).square().sum()
    gradients = torch.autograd.grad(loss, net.alphas())
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_mixed_width_is_the_weighted_sum_of_masked_copies():
    width = WidthChoice([1, 3])
    width.bind(torch.tensor([0.25, 0.75]))
    x = torch.ones(1, 3, 1, 1)
    assert width(x).flatten().tolist() == [1.0, 0.75, 0.75]


def test_mixed_depth_is_the_weighted_sum_of_the_states():
    double = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.constant_(double.weight, 2.0)
    depth = DepthChoice([double, double], [0, 2])
    depth.bind(torch.tensor([0.5, 0.5]))
    assert depth(torch.ones(1, 1, 1, 1)).item() == pytest.approx(0.5 * 1 + 0.5 * 4)


def test_sampling_relaxations_work_and_cell_relaxations_are_refused():
    net = ModuleSupernet(UserResNet(), relaxation=GumbelStraightThrough())
    for weight in net.mixing_weights().values():
        assert sorted(weight.detach()[0].tolist())[-1] == pytest.approx(1.0)
    with pytest.raises(ConfigError, match="cells"):
        ModuleSupernet(UserResNet(), relaxation=PartialChannels())


def test_the_first_order_strategy_searches_the_users_model():
    from darts_core.strategies import FirstOrder, SearchSettings

    torch.manual_seed(0)
    net = ModuleSupernet(UserResNet(), input_shape=(3, 8, 8))
    strategy = FirstOrder()
    strategy.setup(net, SearchSettings(alpha_learning_rate=0.1))
    before = {k: a.detach().clone() for k, a in net.named_alphas().items()}
    images, labels = torch.randn(8, 3, 8, 8), torch.randint(5, (8,))
    for _ in range(2):
        stats = strategy.step((images, labels), (images, labels))
    assert torch.isfinite(stats.params_loss)
    assert all((a != before[k]).any() for k, a in net.named_alphas().items())
    assert net.build()(images).shape == (8, 5)


def test_mistakes_are_told_in_sentences():
    with pytest.raises(ConfigError, match="nothing to search"):
        ModuleSupernet(nn.Linear(2, 2))
    tied = nn.Sequential(
        WidthChoice([1, 2], label="w"), nn.Identity(), WidthChoice([1, 3], label="w")
    )
    with pytest.raises(ConfigError, match="different options"):
        ModuleSupernet(tied)
    with pytest.raises(ConfigError, match="wrap the model"):
        WidthChoice([1, 2])(torch.ones(1, 2))
    with pytest.raises(ConfigError, match="largest option"):
        ModuleSupernet(WidthChoice([1, 2]))(torch.ones(1, 3))
    with pytest.raises(ConfigError, match="depths"):
        DepthChoice([nn.Identity()], [1, 2])
    net = supernet()
    wrong = {label: options[0] for label, options in net.space.choices} | {"trunk": 7}
    with pytest.raises(ArchitectureError, match="cannot be 7"):
        net.build(Architecture("module", choices=tuple(wrong.items())))
    with pytest.raises(ConfigError, match="input_shape"):
        ModuleSupernet(UserResNet()).build()


def test_a_width_that_meets_unmasked_channels_is_refused():
    class Wrong(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
            self.width = WidthChoice([2, 4])

        def forward(self, x):
            return (self.width(self.a(x)) + self.b(x)).mean((2, 3))

    net = ModuleSupernet(Wrong())
    net.input_shape = (3, 4, 4)
    with pytest.raises(ConfigError, match="same label"):
        net.build(Architecture("module", choices=(("width", 2),)))
    with pytest.raises(ConfigError, match=r"same label .* \(width\)"):
        ModuleSupernet(Wrong(), input_shape=(3, 4, 4))


def test_a_width_before_its_norm_is_refused_before_the_search():
    """A fresh norm passes zeros on, a trained one does not."""
    wrong = nn.Sequential(
        nn.Conv2d(3, 4, 1), WidthChoice([2, 4]), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2)
    )
    with pytest.raises(ConfigError, match="behind norm and activation"):
        ModuleSupernet(wrong, input_shape=(3, 4, 4))


def test_a_backbone_whose_output_is_a_searched_width_gives_the_channels_that_are_left():
    torch.manual_seed(0)
    net = ModuleSupernet(
        nn.Sequential(nn.Conv2d(3, 4, 1), WidthChoice([2, 4], label="w")), input_shape=(3, 4, 4)
    )
    x = torch.randn(2, 3, 4, 4)
    found = Architecture("module", choices=(("w", 2),))
    torch.testing.assert_close(net.build(found)(x), net(x, net.one_hot(found))[:, :2])


class Chosen(nn.Module):
    """Called with keywords."""

    def forward(self, x, *, scale, shift=0.0):
        return scale * x + shift


@pytest.mark.parametrize(
    "make", [lambda: HeadChoice(4, [1, 2]), lambda: WidthChoice([1, 4], dim=-1)]
)
def test_a_choice_that_stands_in_two_places_is_made_in_both(make):
    """The search ran, and the network could not be built from what it had found."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
            self.choice = make()
            self.again = self.choice

        def forward(self, x):
            return self.head(self.again(self.two(self.choice(self.one(x)))))

    net = ModuleSupernet(Twice(), input_shape=(3, 4))
    architecture = Architecture("module", choices=(("choice", 1),))
    plain, x = net.build(architecture), torch.randn(2, 3, 4)
    assert not any(isinstance(module, Choice) for module in plain.modules())
    torch.testing.assert_close(plain(x), net(x, net.one_hot(architecture)))


@pytest.mark.parametrize("labels", [("values", "keys"), ("a.b", "a/b")])
def test_any_label_has_an_alpha_of_its_own(labels):
    """An attribute called `values` ended in a KeyError; two labels could share one alpha."""
    layers = [LayerChoice([nn.ReLU(), nn.Tanh()], label=label) for label in labels]
    net = ModuleSupernet(nn.Sequential(*layers), input_shape=(4,))
    assert len({id(alpha) for alpha in net.alphas()}) == 2
    assert set(net.named_alphas()) == set(labels)


def test_a_layer_choice_hands_keywords_on():
    choice = LayerChoice([Chosen(), Chosen()])
    choice.bind(torch.tensor([0.25, 0.75]))
    assert choice(torch.ones(2), scale=3.0, shift=1.0).tolist() == [4.0, 4.0]


class TokenBlock(nn.Module):
    """A transformer block whose heads and whose MLP's width are searched."""

    def __init__(self):
        super().__init__()
        self.norm1, self.heads = nn.LayerNorm(8), HeadChoice(8, [1, 2, 4], label="heads")
        self.norm2, self.up = nn.LayerNorm(8), nn.Linear(8, 12)
        self.width, self.down = WidthChoice([4, 12], label="mlp", dim=-1), nn.Linear(12, 8)

    def forward(self, x_BTC):
        x_BTC = x_BTC + self.heads(self.norm1(x_BTC))
        return x_BTC + self.down(self.width(torch.relu(self.up(self.norm2(x_BTC)))))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.block, self.head = nn.Embedding(7, 8), TokenBlock(), nn.Linear(8, 7)

    def forward(self, tokens_BT):
        return self.head(self.block(self.embed(tokens_BT)))


@pytest.mark.parametrize(("heads", "width"), [(1, 4), (2, 12), (4, 4)])
def test_heads_and_token_widths_are_cut_exactly_out_of_a_model_of_token_ids(heads, width):
    torch.manual_seed(0)
    tokens = torch.randint(7, (3, 5))
    net = ModuleSupernet(Tokens(), example_input=tokens).eval()
    found = Architecture("module", choices=(("heads", heads), ("mlp", width)))
    plain = net.build(found)
    torch.testing.assert_close(plain(tokens), net(tokens, net.one_hot(found)))
    assert plain.block.heads.query.out_features == 2 * heads
    assert plain.block.up.out_features == width
    assert not any(isinstance(m, Choice) for m in plain.modules())
    gradients = torch.autograd.grad(net(tokens).square().sum(), net.alphas())
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_what_is_held_fast_stays_so_and_one_weight_stays_one_in_the_plain_module():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(7, 8)
            self.width = WidthChoice([4, 8], "width", dim=-1)
            self.head = nn.Linear(8, 7, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids_BT):
            return self.head(self.width(self.embed(ids_BT)))

    supernet = ModuleSupernet(Words(), example_input=torch.arange(10).view(2, 5) % 7)
    supernet.module.embed.eval()
    plain = supernet.build(Architecture("module", choices=(("width", 4),)))
    assert [net.embed.training for net in (supernet.module, plain)] == [False, False]
    assert plain.head.weight is plain.embed.weight
    assert plain.embed.weight.shape == (7, 4)

    heads = HeadChoice(4, [1, 2])
    heads.attention.value.requires_grad_(False)
    moving = {name for name, p in heads.chosen(1).named_parameters() if not p.requires_grad}
    assert moving == {"value.weight", "value.bias"}


class Own(nn.Module):
    """A network that keeps what it computed, as for a picture, with a layer whose width is searched."""

    def __init__(self, give=lambda logits: logits):
        super().__init__()
        self.up, self.width, self.head = nn.Linear(3, 4), WidthChoice([2, 4]), nn.Linear(4, 2)
        self.give = give

    def forward(self, x_BC):
        self.kept = self.head(self.width(torch.relu(self.up(x_BC))))
        return self.give(self.kept)


@dataclass
class Outputs:
    logits: torch.Tensor
    attention: torch.Tensor | None = None


@pytest.mark.parametrize("give", [Outputs, lambda logits: (logits, None)])
def test_widths_are_cut_out_of_a_network_whose_output_holds_none(give):
    net = ModuleSupernet(Own(give), input_shape=(3,))
    assert net.build(Architecture("module", choices=(("width", 2),))).head.in_features == 2
    with pytest.raises(ConfigError, match="gives a NoneType in which no tensor is found"):
        ModuleSupernet(Own(lambda _: None), input_shape=(3,))


@pytest.mark.parametrize("derive", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_width_that_a_derived_weight_holds_is_refused_in_a_sentence(derive):
    model = Own()
    model.head = derive(model.head)
    with pytest.raises(ConfigError, match=r"'width' .* of 'head' is derived"):
        ModuleSupernet(model, input_shape=(3,))


def test_a_network_that_keeps_what_it_computed_is_built_after_its_search():
    """The search ran, and torch copied no tensor with a history."""
    net = ModuleSupernet(Own(), input_shape=(3,))
    net(torch.randn(2, 3)).sum().backward()
    assert net.build(Architecture("module", choices=(("width", 2),))).head.in_features == 2


def test_causal_heads_do_not_look_ahead():
    choice = HeadChoice(4, [1, 2], causal=True)
    choice.bind(torch.tensor([0.5, 0.5]))
    x = torch.randn(1, 3, 4)
    changed = x.clone()
    changed[:, 2] = 0.0
    torch.testing.assert_close(choice(changed)[:, :2], choice(x)[:, :2])
    torch.testing.assert_close(choice.chosen(1)(changed)[:, :2], choice.chosen(1)(x)[:, :2])


@pytest.mark.parametrize("floating", [False, True])
def test_causal_heads_do_not_look_ahead_under_a_mask_either(floating):
    """A mask took the place of the causal one, so that a mask of padding let tokens see what follows."""
    choice = HeadChoice(4, [1, 2], causal=True).double()
    choice.bind(torch.tensor([0.5, 0.5], dtype=torch.float64))
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    everything = torch.ones(3, 3, dtype=torch.bool)
    padding = torch.tensor([True, True, False]).view(1, 1, 1, 3)
    if floating:
        everything, padding = (
            torch.zeros(m.shape, dtype=torch.float64).masked_fill(~m, -torch.inf)
            for m in (everything, padding)
        )
    torch.testing.assert_close(choice(x, everything), choice(x))
    changed = x.clone()
    changed[:, 1] += 1.0
    torch.testing.assert_close(choice(changed, padding)[:, 0], choice(x, padding)[:, 0])
    # what is masked is seen by none
    changed = x.clone()
    changed[:, 2] += 1.0
    torch.testing.assert_close(choice(changed, padding)[:, :2], choice(x, padding)[:, :2])


def test_a_token_width_through_a_layer_norm_is_refused():
    """Its mean is over all channels, so that leaving some out changes the others."""
    wrong = nn.Sequential(
        nn.Linear(3, 4), WidthChoice([2, 4], dim=-1), nn.LayerNorm(4), nn.Linear(4, 2)
    )
    with pytest.raises(ConfigError, match="changes what the model computes"):
        ModuleSupernet(wrong, input_shape=(5, 3))
    with pytest.raises(ConfigError, match="dim=2"):
        WidthChoice([2, 4], dim=2)
    images_only = ModuleSupernet(nn.Sequential(nn.Linear(3, 4), WidthChoice([2, 4])))
    with pytest.raises(ConfigError, match="tokens"):
        images_only(torch.randn(2, 5, 3))
    with pytest.raises(ConfigError, match="7 channels out among 2 heads"):
        HeadChoice(7, [1, 2])


def test_choice_space_is_data():
    space = ChoiceSpace.of("s", {"a": ["x", "y"], "b": [1, 2, 3]})
    assert space.alpha_shapes() == {"a": (1, 2), "b": (1, 3)}
    found = space.discretize({"a": np.array([[0.1, 0.9]]), "b": np.array([[0.5, 0.5, 0.1]])})
    assert found.choices == (("a", "y"), ("b", 1))
    draws = {space.random(np.random.default_rng(seed)).choices for seed in range(60)}
    assert len(draws) == 6
    with pytest.raises(ConfigError, match="different options"):
        ChoiceSpace.of("s", {"a": [1, 1]})
    with pytest.raises(ConfigError, match="has choices"):
        space.with_ops(("x",))


@pytest.mark.parametrize("option", [None, (3, 3), [3, 3]])
def test_an_option_that_no_file_gives_back_is_refused_before_a_search(option):
    """The search ran to its end and left an architecture that `train` refused to read."""
    with pytest.raises(ConfigError, match=r"'a' of space 's' has the option .* a text, a number"):
        ChoiceSpace.of("s", {"a": [option, "x"]})
    for fine in ("x", 1, 0.5, True, np.float64(0.5), np.int64(3)):
        assert ChoiceSpace.of("s", {"a": [fine]}).options("a") == (fine,)


def test_a_choice_that_the_space_does_not_have_is_told():
    """It was passed over: what a file said of it was not in the network."""
    space = ChoiceSpace.of("s", {"width": [1, 2]})
    assert space.index(Architecture("s", choices=(("width", 2),))) == {"width": 1}
    with pytest.raises(ArchitectureError, match=r"Unknown choice 'widht'.*Did you mean 'width'"):
        space.index(Architecture("s", choices=(("width", 2), ("widht", 1))))
