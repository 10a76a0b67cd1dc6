"""What shrink is told: wrong settings end it before any work, unused ones are named, the others count."""

import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from elastic_cases import SHAPE, Images, settled
from test_elastic_shrink import CONFIG, Counting
from torch import nn

from darts_core.data import load_data
from darts_core.distributed import Group, first_may_fail
from darts_core.elastic import Sandwich, elastic, network
from darts_core.elastic import shrink as growing
from darts_core.elastic.archive import Judged
from darts_core.elastic.choose import Chosen
from darts_core.elastic.fit import fit_elastic
from darts_core.elastic.network import Elastic
from darts_core.elastic.points import described_point, write_points
from darts_core.elastic.shrink import Family, grow_family
from darts_core.errors import (
    ConfigError,
    DartsError,
    DataError,
    ExportError,
    LatencyError,
    PruneError,
    TuneError,
)
from darts_core.models import trust
from darts_core.models.baselines import baseline
from darts_core.prune.finetune import fine_tune
from darts_core.prune.rounds import take_batches
from darts_core.runlog import read_json
from darts_core.settings import Export, Shrink, ShrinkOptions, Train
from darts_core.stages.schema import ShrinkStage
from darts_core.stages.shrink import (
    _fine_tuning,
    _say_left_out,
    _say_untuned,
    _wanted,
    check_shrink,
    shrink,
)
from darts_core.tasks import Classification
from darts_core.train import load_model, save_model
from darts_core.train.config import TrainConfig

CPU = torch.device("cpu")
HEADS = "blocks.1.attention.heads"
SIZE = "blocks.1.attention.num_heads"


def _model():
    torch.manual_seed(0)
    return baseline("resnet8", 10, 1, 4).eval()


@pytest.fixture(scope="module")
def plain():
    return load_data("digits", limit=160, test_limit=40).without_test()


BOTH = ShrinkOptions(ray={}, slurm={})


@pytest.mark.parametrize(
    ("settings", "formats", "kind", "match"),
    [
        (Shrink(pick="half"), ["pt2"], LatencyError, "The budget 'half' is not understood"),
        (Shrink(budgets=["50%", "fast"]), ["pt2"], LatencyError, "The budget 'fast' is not"),
        (Shrink(options=ShrinkOptions(ray={"num_cpu": 2})), ["pt2"], TuneError, "setting of Ray"),
        (Shrink(options=ShrinkOptions(slurm={"cpu": 2})), ["pt2"], ConfigError, "cpu"),
        (Shrink(options=BOTH), ["pt2"], TuneError, "give one of the two"),
        (Shrink(), ["pt2", "onxx"], ExportError, "Unknown export format 'onxx'"),
    ],
)
def test_a_wrong_setting_ends_it_before_anything_is_read_or_written(
    tmp_path, settings, formats, kind, match
):
    config = ShrinkStage(
        model=str(tmp_path / "nowhere.pt"), shrink=settings, export=Export(formats=formats), device="cpu"
    )  # fmt: skip
    with pytest.raises(kind, match=match):
        shrink(config, tmp_path / "shrink")
    assert not (tmp_path / "shrink").exists()


def test_a_compiled_step_ends_it_before_anything_is_read_or_written():
    # what a pipeline asks before its search, too
    with pytest.raises(ConfigError, match=r"train\.compile=true does not go with an elastic"):
        check_shrink(ShrinkStage(train=Train(compile=True), device="cpu"))


def test_a_recipe_that_is_not_for_the_data_ends_it_before_anything_is_timed(plain, tmp_path):
    clock = SimpleNamespace(device=CPU)  # it times nothing
    for recipe, match in (
        (replace(CONFIG, batch_size=10_000), "batch_size=10000 is larger than"),
        (replace(CONFIG, time_shift=3), "time_shift"),
    ):
        with pytest.raises((ConfigError, DataError), match=match):
            grow_family(_model(), plain, Shrink(), recipe, clock, tmp_path)


def test_formats_of_an_export_that_is_not_asked_for_are_nobody_s_business():
    check_shrink(
        ShrinkStage(shrink=Shrink(export=False), export=Export(formats=["onxx"]), device="cpu")
    )
    check_shrink(ShrinkStage(shrink=Shrink(pick="2.5 ms", budgets=["30%", "1ms"]), device="cpu"))


def test_a_pick_allows_the_whole_network_all_of_its_time_and_tells_what_it_misses(caplog):
    largest = {"width": 8}
    points = [
        {"latency_ms": 10.05, "choices": largest},
        {"latency_ms": 6.0, "choices": {"width": 2}},
    ]
    # beside the given network's 10 ms the same network may take a little more
    assert _wanted("100%", 10.0, points, largest) == 10.05
    assert _wanted("90%", 10.0, points, largest) == 9.0
    assert not caplog.records
    assert _wanted("50%", 10.0, points, largest) == 6.0
    assert "shrink.pick=50%: no point takes at most 5.000 ms" in caplog.text
    assert "picked, which takes 6.000 ms" in caplog.text


class _Unasked(Classification):
    """A task whose labels nobody may ask for."""

    def loss(self, output, target, *, label_smoothing=0.0):
        raise AssertionError("the labels were asked")


def test_a_fine_tuning_may_learn_from_the_teacher_alone(plain):
    blind = replace(plain, task=_Unasked(outputs=10, names=plain.class_names))
    model, one = _model().requires_grad_(True), replace(CONFIG, epochs=1)
    before = model.state_dict()["features.0.0.weight"].clone()
    seconds = fine_tune(model, blind, one, teacher=_model(), distillation=1.0, device=CPU)
    assert seconds > 0
    assert not torch.equal(model.state_dict()["features.0.0.weight"], before)
    with pytest.raises(PruneError, match=r"distillation=1\.5 must lie in \[0, 1\]"):
        fine_tune(model, blind, one, teacher=_model(), distillation=1.5, device=CPU)


def test_a_short_fine_tuning_takes_smaller_steps_than_the_elastic_training_did():
    trained = TrainConfig(epochs=15, learning_rate=0.3)
    settings = Shrink(learning_rate=0.3)
    for epochs, rate in ((1, 0.1), (4, 0.2), (9, 0.3), (100, 0.3)):
        found = _fine_tuning(replace(settings, fine_tuning=epochs), trained)
        assert found == replace(trained, epochs=epochs, learning_rate=found.learning_rate)
        assert found.learning_rate == pytest.approx(rate)
    own = replace(settings, fine_tuning=2, options=replace(settings.options, fine_tuning_rate=0.2))
    assert _fine_tuning(own, trained) == replace(trained, epochs=2, learning_rate=0.2)
    assert _fine_tuning(replace(settings, fine_tuning=0), trained) is None


class _Helped(nn.Module):
    """In training a second head gives outputs, too."""

    def __init__(self, outputs=2):
        super().__init__()
        self.outputs = outputs
        self.body, self.head, self.helper = nn.Flatten(), nn.Linear(64, 10), nn.Linear(64, 10)

    def forward(self, x):
        x = self.body(x)
        both = (self.head(x), *[self.helper(x)] * (self.outputs - 1))
        return both if self.training else both[0]


def test_a_second_head_learns_beside_a_teacher_as_it_does_without(plain):
    torch.manual_seed(0)
    model, one = _Helped(), replace(CONFIG, epochs=1)
    before = model.helper.bias.detach().clone()
    fine_tune(model, plain, one, teacher=_model(), distillation=0.5, device=CPU)
    assert not torch.equal(model.helper.bias, before)
    with pytest.raises(ConfigError, match="the network gives a tuple of 3; it must give"):
        fine_tune(_Helped(3), plain, one, teacher=_model(), distillation=0.5, device=CPU)


class _Noting(Classification):
    """A task that notes how far its labels are smoothed."""

    seen: ClassVar[list] = []

    def loss(self, output, target, *, label_smoothing=0.0):
        self.seen.append(label_smoothing)
        return super().loss(output, target, label_smoothing=label_smoothing)


def test_the_elastic_training_smooths_labels_as_the_recipe_says(plain):
    _Noting.seen.clear()
    x, _ = next(iter(plain.batches("params", 2)))
    net = elastic(_model(), x)
    task = _Noting(outputs=10, names=plain.class_names)
    smooth = replace(CONFIG, epochs=1, label_smoothing=0.25)
    fit_elastic(net, plain, smooth, Sandwich(net, drawn=0, share=0.0, task=task))
    assert set(_Noting.seen) == {0.25}


def test_settings_that_the_elastic_training_leaves_out_are_told_in_one_line(caplog):
    _say_left_out(Train())
    _say_left_out(Train(drop_path=0.0))
    assert not caplog.records
    _say_left_out(Train(min_learning_rate=0.001, warmup_epochs=5, drop_path=0.3))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    told = record.getMessage()
    for text in ("train.min_learning_rate=0.001", "train.warmup_epochs=5", "train.drop_path=0.3"):
        assert text in told


def test_how_points_are_fine_tuned_is_not_used_where_none_is_and_that_is_told(caplog):
    both = ShrinkOptions(fine_tuning_rate=0.01, ray={})
    for settings in (Shrink(), Shrink(fine_tuning=1, options=both)):
        _say_untuned(settings)
    assert not caplog.records
    _say_untuned(Shrink(options=both))
    (record,) = caplog.records
    names = "shrink.options.fine_tuning_rate, shrink.options.ray"
    assert record.getMessage() == (
        f"{names}: not used, as no point is fine-tuned; shrink.fine_tuning=EPOCHS does so"
    )


@pytest.fixture
def first(monkeypatch):
    monkeypatch.setattr(trust, "_NAMED", {"elastic_cases"})
    return elastic(settled("vit").float(), torch.randn(2, *SHAPE))


META = {"model": {"name": "elastic_cases:vit", "arguments": {}}}


def test_a_point_of_a_network_that_had_lost_heads_is_built_again(first, tmp_path):
    given = first.cut({HEADS: 2})
    meta = {**META, **first.described({HEADS: 2})}
    assert meta["sizes"] == {SIZE: 2}
    x = torch.randn(2, *SHAPE)
    second = elastic(given, x)
    width = next(v for v in second.variables if v.name == "blocks.0.up")
    choices = {**second.largest, width.name: width.options[0]}
    found = Chosen(rows=[Judged(choices, 1.0, 0.5, 0.5, "greedy")], budgets_ms=[1.0])
    family = Family(second, found, None, [], 0.0)
    clock = Counting(SHAPE, CPU, batch=1)
    (row,) = write_points(family, given, Images(), clock, clock(given), tmp_path, meta)
    again, kept = load_model(tmp_path / row["folder"] / "model.pt")
    assert kept["sizes"][SIZE] == 2
    with torch.no_grad():
        assert torch.equal(again(x), second.cut(choices)(x))
    # a size that this run lists anew is this run's
    fewer = described_point(meta, second.described({HEADS: 1}))
    assert fewer["sizes"] == {SIZE: 1}


def test_a_block_that_does_not_run_has_no_heads_to_set(first, tmp_path):
    net = Elastic(
        first.model,
        [replace(v, order=("blocks.0", "blocks.2", "blocks.1")) if v.kind == "blocks" else v
         for v in first.variables],
        first.left,
    )  # fmt: skip
    depth = next(v for v in net.variables if v.kind == "blocks")
    choices = {**net.largest, depth.name: depth.options[0], HEADS: 1}
    cut, x = net.cut(choices), torch.randn(2, *SHAPE)
    described = described_point(META, net.described(choices))
    assert described["replaced"] == {"blocks.1": "skip_connect"}
    assert described["sizes"] == {}
    save_model(tmp_path / "model.pt", cut, described)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "model.pt")[0](x), cut(x))
    # an opened attention is there, and so are its sizes
    opened = {"replaced": {"blocks.1.attention": "attention"}, "sizes": {SIZE: 3}}
    merged = described_point({**META, **opened}, {"replaced": {}, "sizes": {}})
    assert merged == {**META, **opened}


def test_another_device_goes_on_with_the_widths_and_the_orders_of_the_first(tmp_path, monkeypatch):
    bundle = load_data("digits", limit=160, test_limit=40)
    torch.manual_seed(0)
    given = baseline("resnet14", 10, 1, 4)
    batches, nets = take_batches(bundle, CPU), []
    settings = Shrink(options=ShrinkOptions())
    judged, skipped = network.most_important_first, network.skip_losses
    for liked in (16, 8):
        monkeypatch.setattr(growing, "preferred_step", lambda device, liked=liked: liked)
        nets.append(
            growing._made_elastic(
                copy.deepcopy(given), bundle.task, settings, batches, tmp_path, Group.alone()
            )
        )
        # near ties fall the other way there
        monkeypatch.setattr(
            network, "most_important_first",
            lambda *given: {name: order[::-1] for name, order in judged(*given).items()},
        )  # fmt: skip
        monkeypatch.setattr(
            network, "skip_losses",
            lambda *given: {block: -loss for block, loss in skipped(*given).items()},
        )  # fmt: skip
    assert read_json(tmp_path / "widths.json")["round_to"] == 16
    assert nets[1].variables == nets[0].variables
    assert nets[1].orders == nets[0].orders
    assert any(variable.kind == "blocks" for variable in nets[0].variables)
    for name, tensor in nets[0].model.state_dict().items():
        assert torch.equal(nets[1].model.state_dict()[name], tensor)
    for damaged in (None, 5, "ab", [0, 0], [0, None], {"0": 1, "1": 0}):
        assert network._known_order({"a": damaged}, "a", range(2)) == []
    (tmp_path / "widths.json").unlink()
    anew = growing._made_elastic(
        copy.deepcopy(given), bundle.task, settings, batches, tmp_path, Group.alone()
    )
    assert anew.variables != nets[0].variables


def test_what_fails_in_the_first_process_ends_the_others_with_its_sentence(tmp_path, monkeypatch):
    sent: list[str] = []

    def text(group: Group, own: str) -> str:
        if not group.primary:
            return sent.pop(0)
        sent.append(own)
        return own

    monkeypatch.setattr(Group, "text", text)
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    batches, told = [(torch.randn(2, 1, 8, 8), torch.tensor([0, 1]))], []
    for rank in (0, 1):
        with pytest.raises(PruneError, match="Nothing in Sequential may vary") as failed:
            growing._made_elastic(
                fixed, Classification(), Shrink(options=ShrinkOptions(round_to=8)), batches, tmp_path,
                Group(rank, 2, CPU),
            )  # fmt: skip
        told.append(str(failed.value))
    assert told[0] == told[1]
    assert not sent
    with pytest.raises(OSError, match="elsewhere"), first_may_fail(Group(0, 2, CPU)):
        raise OSError("elsewhere")
    other = first_may_fail(Group(1, 2, CPU))
    with pytest.raises(DartsError, match="The first process failed: elsewhere"), other:
        pass
    for rank in (0, 1):
        with first_may_fail(Group(rank, 2, CPU)):
            pass
    assert not sent
