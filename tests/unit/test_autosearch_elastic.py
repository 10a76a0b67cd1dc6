"""`search_algorithm: elastic`: a user's own loop trains a front, and her script judges each point."""

import json

import pytest
import torch
from test_elastic_shrink import Counting
from torch import nn

from darts_core import autosearch
from darts_core.autosearch import contract, elastic_family
from darts_core.autosearch.catalogue import ALGORITHMS
from darts_core.autosearch.contract import Trial
from darts_core.autosearch.elastic_family import ElasticFamily
from darts_core.autosearch.elastic_network import _started
from darts_core.autosearch.elastic_search import ElasticSearch
from darts_core.autosearch.elastic_stage import Stage
from darts_core.autosearch.forecast import trainings
from darts_core.autosearch.loading import load
from darts_core.autosearch.plan_files import build_plan
from darts_core.autosearch.spec import Objective, SearchSpec
from darts_core.elastic.device_clock import DeviceClock
from darts_core.errors import ConfigError, JobError
from darts_core.models.baselines import baseline
from darts_core.prune.cost import LayerCosts
from darts_core.study.space import SearchDimension

CPU = torch.device("cpu")
# a clock without noise: a million multiply-adds take a millisecond
SCRIPT = """
    import torch
    from torch import nn
    from darts_core import autosearch
    from darts_core.elastic.device_clock import DeviceClock
    from darts_core.latency import Timing
    from darts_core.prune.cost import LayerCosts
    from darts_core.supernet import count
    from net import Net

    def counted(clock, network):
        ms = count(network, clock.input_shape).macs / 1e6
        return Timing(ms, ms, ms, 5, "a clock in the tests")

    DeviceClock.__call__ = counted
    DeviceClock.beside = lambda clock, reference, first: clock
    DeviceClock.layers = lambda clock: LayerCosts(clock.device, analytic=True)

    def train():
        torch.manual_seed(0)
        x, y = torch.randn(64, 1, 8, 8), torch.arange(64) % 3
        x[:, 0, 0, :3] += 3 * nn.functional.one_hot(y, 3)
        model = autosearch.elastic(Net(), (1, 8, 8))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        loss_of = nn.CrossEntropyLoss()
        for epoch in range(4):
            model.train()
            for part in range(4):
                own = slice(16 * part, 16 * part + 16)
                optimizer.zero_grad()
                loss = autosearch.backward(loss_of, x[own], y[own])
                assert model.training or autosearch.phase == "search"
                assert loss.isfinite()
                optimizer.step()
            right = (model.eval()(x).argmax(1) == y).float().mean()
            autosearch.reporter(acc=right, size=sum(p.numel() for p in model.parameters()))
        autosearch.report(right)
"""
NET = """
from torch import nn
from torch.nn.functional import relu

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)

    def forward(self, x):
        return relu(x + self.norm(self.conv(x)))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.hidden, self.head = nn.Linear(16, 32), nn.Linear(32, 3)

    def forward(self, x):
        return self.head(relu(self.hidden(self.blocks(self.stem(x)).mean((2, 3)))))
"""


def _spec(**options):
    given = {**ALGORITHMS["elastic_search"].defaults(), "points": 1, "looks": 8, **options}
    return SearchSpec(
        "s", (SearchDimension("subnetwork", choices=("whole",)),), (Objective("acc"),),
        algorithm="elastic_search", algorithm_options=given, max_iterations=4, confirm_seeds=0,
    )  # fmt: skip


def _search(workshop, spec):
    return ElasticSearch(spec, workshop, first={"subnetwork": "whole"}, is_baseline=True)


def test_a_front_of_a_user_s_own_network_from_her_own_loop(shop, tmp_path):
    workshop = shop(SCRIPT)
    (tmp_path / "code" / "net.py").write_text(NET)
    best = _search(workshop, _spec(target_latency=0.6)).run()
    rows = {row["number"]: row for row in workshop.known_rows("s")}
    assert rows[0]["config"] == {"subnetwork": "whole"}
    points = [rows[number] for number in sorted(rows) if number >= 2]
    assert points
    assert {row["state"] for row in points} == {"done"}
    assert all(row["training_iteration"] == 1 for row in points)  # judged, not trained
    assert points[-1]["metrics"]["size"] < rows[0]["metrics"]["size"]
    assert best["values"]["acc"] == max(row["values"]["acc"] for row in rows.values())
    (supernet,) = workshop.known_rows("s", "supernet")
    folder = workshop.version / "autosearch" / "trials"
    assert supernet["training_iteration"] in (1, 2)  # half of four, which a stop may round
    assert (folder / supernet["trial_id"] / "latency.json").is_file()

    # the winner is built again from her code, with its weights
    last = folder / points[-1]["trial_id"]
    model = load(last, code=tmp_path / "code")
    assert sum(p.numel() for p in model.parameters()) == points[-1]["metrics"]["size"]
    left = torch.load(
        folder / supernet["trial_id"] / f"point-{points[-1]['config']['subnetwork'][9:]}.pt",
        weights_only=True,
    )
    assert all(
        torch.equal(left["state"][name], value) for name, value in model.state_dict().items()
    )

    # a second start takes all trials as they are
    assert _search(shop(SCRIPT), _spec(target_latency=0.6)).run()["trial_id"] == best["trial_id"]


@pytest.mark.full
def test_a_latency_out_of_reach_costs_no_elastic_training(shop, tmp_path):
    workshop = shop(SCRIPT)
    (tmp_path / "code" / "net.py").write_text(NET)
    with pytest.raises(JobError, match="named no architecture"):
        _search(workshop, _spec(target_latency=0.01)).run()
    (row,) = workshop.known_rows("s", "supernet")
    assert row["training_iteration"] == 0
    log = workshop.version / "autosearch" / "trials" / row["trial_id"] / "log.txt"
    assert "target_latency=0.01 is below the smallest sub-network" in log.read_text()


def test_a_script_that_keeps_no_network_ends_in_a_sentence(shop):
    workshop = shop("from darts_core import autosearch\ndef train(): autosearch.report(0.5)\n")
    with pytest.raises(JobError, match=r"left no network; give yours to autosearch\.elastic"):
        _search(workshop, _spec()).run()


@pytest.fixture
def trial(tmp_path, monkeypatch):
    def make(**config):
        record = {"config": config, "trial_id": "abcd1234", "elastic": {"fine_tuning": 0}}
        (tmp_path / "trial.json").write_text(json.dumps(record))
        made = contract.Trial(tmp_path)
        monkeypatch.setattr(contract, "_current", made)
        return made

    return make


def test_outside_a_job_both_calls_do_what_the_script_did(monkeypatch):
    monkeypatch.setattr(contract, "_current", contract.Trial())
    net, x, y = nn.Linear(3, 2), torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    with pytest.raises(ConfigError, match=r"needs a network made by autosearch\.elastic"):
        autosearch.backward(nn.functional.cross_entropy, x, y)
    assert autosearch.elastic(net, (3,)) is net
    loss = autosearch.backward(nn.functional.cross_entropy, x, y, scale=lambda loss: 2 * loss)
    wanted = nn.functional.cross_entropy(net(x), y)
    grads = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    wanted.backward()
    assert float(loss) == pytest.approx(float(wanted.detach()))
    for got, parameter in zip(grads, net.parameters(), strict=True):
        assert torch.allclose(got, 2 * parameter.grad)


def test_counting_the_layers_leaves_a_network_in_its_mode():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).train()
    LayerCosts(CPU, analytic=True).observe(net, (1, 4, 4), 2)
    assert net.training
    assert net[1].training


def test_a_network_of_half_precision_weights_is_counted_and_timed():
    net, clock = (
        nn.Sequential(nn.Linear(4, 2)).bfloat16(),
        DeviceClock((3, 4), CPU, batch=2, runtime="eager"),
    )
    assert clock.ready(net)().dtype == torch.bfloat16
    costs = clock.layers()
    costs.observe(net, (3, 4), 2)
    assert [shape for _, shape in costs.layers.values()] == [(2, 3, 4)]


def test_a_setting_that_names_no_sub_network_is_refused(trial):
    trial(subnetwork="../../else")
    with pytest.raises(ConfigError, match="is no sub-network"):
        autosearch.elastic(nn.Linear(3, 2), (3,))
    trial(subnetwork="whole")  # the first one: the elastic one comes when it has been trained
    with pytest.raises(ConfigError, match="'regresion'"):
        autosearch.elastic(nn.Linear(3, 2), (3,), task="regresion")
    # the elastic trial of a job file with another name would train the whole network once more
    trial(net="elastic").record["elastic"] = {"start": "network.pt", "setting": "net"}
    with pytest.raises(ConfigError, match="setting: net, and the script asks for 'subnetwork'"):
        autosearch.elastic(nn.Linear(3, 2), (3,))


def test_layers_that_are_built_by_their_first_input_state_their_sizes_in_the_elastic_trial(
    tmp_path,
):
    half = {"dtype": torch.bfloat16}
    built = nn.Sequential(nn.Conv2d(2, 4, 1, **half), nn.BatchNorm2d(4, **half))
    lazy = nn.Sequential(nn.LazyConv2d(4, 1, **half), nn.LazyBatchNorm2d(**half))
    lazy[1].eval()  # held fast
    torch.save(built.state_dict(), tmp_path / "network.pt")
    found = _started(lazy, tmp_path / "network.pt", (2, 3, 3))
    assert (type(found[0]), found[0].in_channels) == (nn.Conv2d, 2)
    assert [module.training for module in found.modules()] == [True, True, False]
    assert torch.equal(found[0].weight, built[0].weight)


def test_a_sub_network_that_is_only_judged_is_moved_by_no_optimizer(trial, monkeypatch):
    """A GradScaler needs gradients, and at zeros the weight decay went on."""
    monkeypatch.setattr(
        "darts_core.autosearch.elastic_network._cut", lambda model, _: (model, None)
    )
    trial(subnetwork="abcd1234/1")
    net = autosearch.elastic(nn.Linear(3, 2), (3,))
    before = [parameter.clone() for parameter in net.parameters()]
    optimizer, scaler = torch.optim.AdamW(net.parameters(), lr=0.5), torch.amp.GradScaler("cpu")
    x, y = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    autosearch.backward(nn.functional.cross_entropy, x, y, scale=scaler.scale)
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize("reused", [False, True])
def test_each_kept_batch_is_judged_as_it_was_with_the_loss_that_came_with_it(
    tmp_path, monkeypatch, reused
):
    monkeypatch.setattr(elastic_family, "DeviceClock", Counting)
    (tmp_path / "trial.json").write_text(json.dumps({"trial_id": "abcd1234", "config": {}}))
    torch.manual_seed(0)
    model = baseline("resnet8", 10, 1, 4).train()
    options = {"batch": 1, "points": 1, "target_latency": 0.9, "looks": 8}
    stage = Stage(model, "elastic", (1, 8, 8), "classification", options)
    family, came = ElasticFamily(stage, Trial(tmp_path)), []
    place = torch.empty(6, 1, 8, 8), torch.empty(6, dtype=torch.int64)

    def step(size):
        # as a Lightning module's training_step: each call knows its own weights
        x, y, weights = torch.randn(size, 1, 8, 8), torch.arange(size), torch.rand(size)

        def loss_of(output, target):
            return (weights * nn.functional.cross_entropy(output, target, reduction="none")).sum()

        came.append((x, y, weights))
        if reused:
            x, y = (kept.copy_(new) for kept, new in zip(place, (x, y), strict=True))
        family.backward(loss_of, x, y)

    for _ in range(3):
        step(6)
    if not reused:
        step(4)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    plain = nn.functional.cross_entropy
    # of memory that was written over before that was seen nothing is left
    last = came[1:] if reused else came
    wanted = [float((w * plain(network(x), y, reduction="none")).sum()) for x, y, w in last]
    assert family._judge(network)[0] == pytest.approx(sum(wanted) / len(wanted), rel=1e-5)
    assert len(json.loads(family.derive())) == 1


JOB = """
general: {max_iterations: 10}
search_algorithm: {type: elastic, reward_attr: acc, points: 4, target_latency: 0.4}
"""


def test_a_job_file_names_it_and_is_forecast(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text(JOB)
    plan = build_plan([file])
    (step,) = plan.steps
    assert step.algorithm == "elastic_search"
    assert step.baseline_configuration() == {"subnetwork": "whole"}
    assert step.confirm_seeds == 0
    assert plan.trial_count() == 6
    # yours, half as long at 2.5 times a step, and four looks of one iteration
    assert trainings(plan)[0] == pytest.approx(1 + 2.5 * 0.5 + 4 * 0.1)
    file.write_text(JOB.replace("max_iterations: 10", "confirm_seeds: 2"))
    with pytest.raises(ConfigError, match="which fresh seeds do not repeat"):
        build_plan([file])
    file.write_text(JOB.replace("0.4", "1.4"))
    with pytest.raises(ConfigError, match="target_latency"):
        build_plan([file])
    # in the native form, whose defaults hold for every algorithm
    file.write_text("algorithm: {type: elastic}\nmax_iterations: 4\n")
    (step,) = build_plan([file]).steps
    assert (step.algorithm, step.confirm_seeds) == ("elastic_search", 0)
