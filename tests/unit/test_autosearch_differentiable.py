import copy
import json

import pytest
import torch
from torch import nn

from darts_core.autosearch import contract
from darts_core.autosearch.backbones import ResNet18, ResNet50, grammar
from darts_core.autosearch.backbones.blocks import Bottleneck
from darts_core.autosearch.backbones.resnet import Backbone
from darts_core.autosearch.catalogue import ALGORITHMS
from darts_core.autosearch.differentiable import DifferentiableSearch
from darts_core.autosearch.module_search import searchable
from darts_core.autosearch.spec import Objective, SearchSpec
from darts_core.errors import ArchitectureError, ConfigError, JobError
from darts_core.study.space import SearchDimension
from darts_core.supernet.choices import HeadChoice, LayerChoice, WidthChoice
from darts_core.supernet.count import count


@pytest.fixture
def trial(tmp_path, monkeypatch):
    record = {
        "config": {},
        "trial_id": "abcd1234",
        "differentiable": {
            "target_cost": 0.4, "cost_weight": 5.0, "alpha_learning_rate": 0.2, "warmup": 1,
        },
    }  # fmt: skip
    (tmp_path / "trial.json").write_text(json.dumps(record))
    made = contract.Trial(tmp_path)
    monkeypatch.setattr(contract, "_current", made)
    return made


def test_shape_notation_builds_the_written_network():
    net = ResNet50("2x8-1x12", stem="small", width=4)
    assert net.stage_channels == [32, 48]
    assert [len(stage) for stage in net.stages] == [2, 1]
    assert grammar.as_shape("111-2111-211111-211") == "3x64-4x128-6x256-3x512"
    with torch.device("meta"):
        a, b = ResNet50(), ResNet50("3x64-4x128-6x256-3x512")
    assert sum(p.numel() for p in a.parameters()) == sum(p.numel() for p in b.parameters())
    with pytest.raises(ArchitectureError):
        ResNet50("2x8-0x12")


def test_search_code_gives_a_supernet_that_learns_and_meets_the_target(trial):
    torch.manual_seed(0)
    net = ResNet50("search:11-21", stem="small", width=8, in_channels=1)
    model = nn.Sequential(
        net, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(net.out_channels, 2)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=0.1)
    x, y = torch.randn(8, 1, 8, 8), torch.tensor([0, 1] * 4)
    before = {k: v.clone() for k, v in net.shares().items()}
    costs = []
    for _ in range(12):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        costs.append(float(net.cost(net.supernet.mixing_weights()).detach()))
    assert all(alpha.grad is None for alpha in net.supernet.alphas())
    assert any(not torch.allclose(before[k], v) for k, v in net.shares().items())
    assert costs[-1] < costs[0]
    shape = net.derive()
    found = ResNet50(shape, stem="small", width=8, in_channels=1)
    base = ResNet50("11-21", stem="small", width=8, in_channels=1)
    # the stem is not part of the expected cost, hence the small slack
    ratio = count(found, (1, 16, 16)).macs / count(base, (1, 16, 16)).macs
    assert ratio <= 0.4 + 0.05
    assert trial.searchables == [net]


def test_expected_cost_is_the_true_ratio_of_operations_for_a_discrete_choice(trial):
    net = ResNet50("search:111-21", stem="small", width=8)
    one = {}
    for name, share in net.shares().items():
        one[name] = torch.zeros_like(share)
        one[name][0, 1 if name.startswith("width") else 0] = 1.0
    small = f"1x{net.widths[0][1]}-1x{net.widths[1][1]}"

    def blocks_only(code):
        backbone = Backbone(code, Bottleneck, stem="small", width=8)
        whole, stem = count(backbone, (3, 16, 16)).macs, count(backbone.stem, (3, 16, 16)).macs
        return whole - stem

    expected = blocks_only(small) / blocks_only(grammar.as_shape("111-21", 8))
    assert float(net.cost(one)) == pytest.approx(expected, rel=1e-5)


def test_basic_blocks_and_stage_outputs_can_be_searched_too(trial):
    net = ResNet18("search:11-2", stem="small", width=8, outputs="stages")
    outputs = net(torch.randn(2, 3, 8, 8))
    assert [tuple(o.shape) for o in outputs] == [(2, 8, 8, 8), (2, 16, 4, 4)]
    assert len(net.derive().split("-")) == 2


def _model():
    return nn.Sequential(
        LayerChoice(
            {"one": nn.Conv2d(1, 8, 1), "three": nn.Conv2d(1, 8, 3, padding=1)}, label="conv"
        ),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        WidthChoice([2, 8], label="width"),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )


def test_any_module_with_choices(trial):
    torch.manual_seed(0)
    plain = searchable(_model(), (1, 8, 8))
    assert isinstance(plain[0], nn.Conv2d)
    assert plain[0].kernel_size == (1, 1)
    assert plain[6].in_features == 8

    trial.config["architecture"] = "search:"
    supernet = searchable(_model(), (1, 8, 8))
    x, y = torch.randn(8, 1, 8, 8), torch.tensor([0, 1] * 4)
    before = [a.detach().clone() for a in supernet.alphas()]
    for _ in range(4):
        nn.functional.cross_entropy(supernet(x), y).backward()
    assert any(not torch.equal(a, b) for a, b in zip(before, supernet.alphas(), strict=True))

    trial.config["architecture"] = trial.searchables[-1].derive()
    assert set(json.loads(trial.config["architecture"])) == {"conv", "width"}
    trial.config["architecture"] = '{"conv": "three", "width": 2}'
    found = searchable(_model(), (1, 8, 8))
    assert found[0].kernel_size == (3, 3)
    assert found[6].in_features == 2


def test_alphas_that_have_not_moved_are_told_from_those_that_have(trial):
    trial.config["architecture"] = "search:"
    supernet = searchable(_model(), (1, 8, 8))
    x, y = torch.randn(8, 1, 8, 8), torch.tensor([0, 1] * 4)
    steps = trial.searchables[-1].steps
    nn.functional.cross_entropy(supernet(x), y).backward()
    assert steps.state() == {"moved": False, "passes": 1, "warmup": 1}
    (float("inf") * nn.functional.cross_entropy(supernet(x), y)).backward()  # a scale too large
    assert not steps.state()["moved"]
    nn.functional.cross_entropy(supernet(x), y).backward()
    assert steps.state()["moved"]
    assert all(bool(torch.isfinite(alpha).all()) for alpha in supernet.alphas())


def test_the_cost_counts_beside_a_loss_that_a_grad_scaler_scaled(trial):
    trial.config["architecture"] = "search:"
    found, x, y = [], torch.randn(8, 1, 8, 8), torch.tensor([0, 1] * 4)
    for scaled in (False, True):
        torch.manual_seed(0)
        supernet = searchable(_model(), (1, 8, 8))
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, enabled=scaled)
        for _ in range(4):
            scaler.scale(nn.functional.cross_entropy(supernet(x), y)).backward()
        found.append(torch.cat([alpha.detach().flatten() for alpha in supernet.alphas()]))
    assert torch.equal(*found)


def test_choices_that_never_moved_end_the_search_before_their_network_is_trained(shop):
    workshop = shop(
        """
        import json
        from darts_core import autosearch
        from darts_core.autosearch.contract import current
        class Steps:
            def state(self): return {"moved": False, "passes": 20, "warmup": 20}
        class Found:
            steps = Steps()
            def derive(self): return "x"
        def train():
            if autosearch.phase == "supernet":
                current().searchables.append(Found())
            autosearch.report(0.5)
        """
    )
    spec = SearchSpec(
        "s",
        (SearchDimension("code", choices=("base",)),),
        (Objective("acc"),),
        algorithm="differentiable_search",
        algorithm_options={**ALGORITHMS["differentiable_search"].defaults(), "setting": "code"},
    )
    search = DifferentiableSearch(spec, workshop, first={"code": "base"}, is_baseline=True)
    with pytest.raises(JobError, match=r"never moved: the supernet made 20 .* warmup=20"):
        search.run()
    assert len(workshop.known_rows("s")) == 1


def test_a_network_over_features_is_searched(trial):
    trial.config["architecture"] = "search:own"
    net = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), WidthChoice([4, 8, 16]), nn.Linear(16, 10))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        searchable(net, (63,))
    supernet = searchable(net, (64,))
    assert supernet(torch.randn(3, 64)).shape == (3, 10)
    assert json.loads(trial.searchables[-1].derive()) in ({"2": 4}, {"2": 8})


def test_a_network_over_token_numbers_is_searched(trial):
    trial.config["architecture"] = "search:own"
    last = (nn.ReLU(), WidthChoice([4, 8, 16]), nn.Linear(16, 10))
    net = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(24, 16), *last)
    supernet = searchable(net, (6,))
    assert supernet(torch.randint(5, (3, 6))).shape == (3, 10)
    assert set(json.loads(trial.searchables[-1].derive())) == {"4"}


class _Masked(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, mask):
        return self.net(x * mask)


class _MaybeMasked(_Masked):
    def forward(self, x, mask=1.0):
        return super().forward(x, mask)


def test_a_network_of_several_inputs_is_refused_in_a_sentence(trial):
    for setting in ("baseline", "search:own"):
        trial.config["architecture"] = setting
        with pytest.raises(
            ConfigError, match="_Masked is given other than one input; networks with"
        ):
            searchable(_Masked(_model()), (1, 8, 8))
        with pytest.raises(ConfigError, match="the whole numbers of one input's shape"):
            searchable(_model(), [(1, 8, 8), (1, 8, 8)])
    supernet, x = searchable(_MaybeMasked(_model()), (1, 8, 8)), torch.randn(2, 1, 8, 8)
    assert supernet(x).shape == (2, 2)
    with pytest.raises(ConfigError, match="_MaybeMasked is given other than one input"):
        supernet(x, torch.ones_like(x))  # it would stand in the weights' place


def test_a_loop_that_accumulates_moves_the_alphas_as_one_step_of_all_batches(trial):
    """The penalty was added, and Adam moved them, with each of the batches."""
    trial.config["architecture"] = "search:"
    found, x, y = [], torch.randn(8, 1, 8, 8), torch.tensor([0, 1] * 4)
    for parts in (1, 4):
        torch.manual_seed(0)
        net = _model()
        net[1] = nn.Identity()  # of several batches a batch norm knows no mean
        supernet = searchable(net, (1, 8, 8)).double()
        supernet.alpha_steps.warmup = 0
        # two optimizers, as of a trunk and a head
        optimizers = [torch.optim.SGD(part.parameters(), 0.1) for part in (net[0], net[6])]
        for optimizer in optimizers:
            optimizer.step()
        for _ in range(3):
            for images, classes in zip(x.double().chunk(parts), y.chunk(parts), strict=True):
                (nn.functional.cross_entropy(supernet(images), classes) / parts).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        found.append(torch.cat([alpha.detach().flatten() for alpha in supernet.alphas()]))
    torch.testing.assert_close(*found)


class _WithParts(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Sequential(*list(_model())[:-1]), nn.Linear(8, 2)
        self.shift, self.input_shape = 0.0, "mine"

    def forward(self, x):
        return self.head(self.backbone(x)) + self.shift

    def loss(self, x, y):
        return nn.functional.cross_entropy(self(x), y)


@pytest.mark.parametrize("setting", ["baseline", "search:own"])
def test_a_script_reaches_the_parts_methods_and_attributes_of_its_network(trial, setting):
    """In search `model.head` was missing, and what was set on the model did not reach the network."""
    trial.config["architecture"] = setting
    own = _WithParts()
    model = searchable(own, (1, 8, 8))
    assert own.input_shape == "mine"
    assert sum(p.numel() for p in model.head.parameters()) == 18
    x, y = torch.randn(4, 1, 8, 8), torch.tensor([0, 1] * 2)
    before = model.eval()(x)
    model.shift = 100.0
    torch.testing.assert_close(model(x), before + 100.0)
    torch.testing.assert_close(model.loss(x, y), nn.functional.cross_entropy(model(x), y))
    assert copy.deepcopy(model).shift == 100.0
    with pytest.raises(AttributeError, match="'_WithParts' object has no attribute 'tail'"):
        _ = model.tail


def test_a_network_without_products_is_searched_by_its_loss_alone(trial, caplog):
    """Its expected cost was 0 / 0, and its alphas and outputs became NaN."""
    trial.config["architecture"] = "search:own"
    pools = LayerChoice(
        {"mean": nn.AdaptiveAvgPool1d(1), "max": nn.AdaptiveMaxPool1d(1)}, label="pool"
    )
    supernet = searchable(nn.Sequential(nn.Embedding(5, 8), pools, nn.Flatten()), (6,))
    assert "target_cost pulls at nothing" in caplog.text
    for _ in range(4):
        supernet(torch.randint(5, (3, 6))).sum().backward()
    assert trial.searchables[-1].steps.state()["moved"]
    assert json.loads(trial.searchables[-1].derive()) == {"pool": "mean"}
    assert bool(torch.isfinite(supernet.alphas()[0]).all())


@pytest.mark.parametrize("setting", ["baseline", "search:own"])
def test_what_a_script_draws_behind_its_network_is_what_it_drew_without_a_search(trial, setting):
    """Trial 0 was not quite the user's own training: the alphas had been drawn from its random numbers."""
    trial.config["architecture"] = setting
    net = nn.Sequential(nn.Linear(4, 4), HeadChoice(4, [1, 2], label="heads"))
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    searchable(net, (5, 4))
    assert torch.equal(torch.rand(3), expected)


def test_the_alphas_of_two_networks_do_not_take_each_other_s_steps_for_the_loop_s(trial):
    trial.config |= {"first": "search:own", "second": "search:own"}
    nets = [searchable(_model(), (1, 8, 8), setting=name) for name in ("first", "second")]
    for net in nets:
        net.alpha_steps.warmup = 0
    for _ in range(2):
        x = torch.randn(4, 1, 8, 8)
        sum(net(x).square().sum() for net in nets).backward()
    assert not any(net.alpha_steps._loop_steps for net in nets)
    assert not any(net.alpha_steps._waiting for net in nets)
    assert all(net.alpha_steps.state()["moved"] for net in nets)
