"""From a given network to a front: killed anywhere it goes on to the same, and its points are networks."""

import copy
import itertools
import json
import os
import pickle
import signal
import traceback
from dataclasses import replace

import numpy as np
import pytest
import torch

from darts_core import cli
from darts_core.checkpoint import load_checkpoint
from darts_core.data import RawData, load_data, make_bundle
from darts_core.elastic import fit, points, shrink
from darts_core.elastic.archive import Archive
from darts_core.elastic.device_clock import DeviceClock
from darts_core.elastic.points import given_network, write_points
from darts_core.elastic.shrink import grow_family
from darts_core.elastic.within import measure_chosen
from darts_core.errors import LatencyError, NonFiniteLossError
from darts_core.latency import Timing
from darts_core.metric import ACCURACY
from darts_core.models.baselines import baseline
from darts_core.prune.cost import LayerCosts
from darts_core.prune.finetune import fine_tune
from darts_core.report.family import family_front, family_headline, family_rows
from darts_core.runlog import read_json, write_json
from darts_core.settings import Shrink, ShrinkOptions
from darts_core.spaces import get_space
from darts_core.stages import point_training
from darts_core.stages.schema import ShrinkStage
from darts_core.study.ray_cluster import RayCluster
from darts_core.supernet import build, count
from darts_core.train import TrainConfig, load_model, save_model
from darts_core.train.evaluation import Evaluation

CONFIG = TrainConfig(
    epochs=2, batch_size=32, learning_rate=0.02, drop_path=0.0, crop_padding=0, flip=False
)
OPTIONS = ShrinkOptions(looks=8, val_examples=32, norm_examples=32)
SETTINGS = Shrink(points=3, options=OPTIONS)
META = {"baseline": {"name": "resnet8", "num_classes": 10, "in_channels": 1, "width": 4}}


class Counting(DeviceClock):
    """A clock without noise: a million multiply-adds take a millisecond."""

    def __call__(self, network):
        ms = count(network, self.input_shape).macs / 1e6
        return Timing(ms, 0.9 * ms, 1.1 * ms, 5, "a clock in the tests")

    def beside(self, reference, first):
        return self

    def layers(self):
        return LayerCosts(self.device, folded=True, analytic=True)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """A forked child that computes on its parent's pool of threads waits for ever: none is used."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def bundle():
    return load_data("digits", limit=160, test_limit=40)


def _model():
    torch.manual_seed(0)
    return baseline("resnet8", 10, 1, 4).eval()


def _clock(bundle):
    return Counting(bundle.image_shape, torch.device("cpu"), batch=1)


def _grow(bundle, folder, settings=SETTINGS):
    folder.mkdir(exist_ok=True)
    plain = bundle.without_test()
    return grow_family(_model(), plain, settings, CONFIG, _clock(bundle), folder, seed=1)


@pytest.fixture(scope="module")
def family(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, _grow(bundle, folder)


def _ended(work, owner, name, at, *, before=False):
    """How `work` ended in a child process that is killed at its call number `at` of `owner.name`.

    It is killed behind the call, or before it; 0 where there were fewer calls.
    """
    pid = os.fork()
    if pid == 0:
        try:
            plain, calls = getattr(owner, name), itertools.count(1)

            def deadly(*given, **named):
                number = next(calls)
                if before and number == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = plain(*given, **named)
                if number == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            setattr(owner, name, deadly)
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(7)
    status = os.waitpid(pid, 0)[1]
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL
    return status


def _killed(*given, **named):
    assert _ended(*given, **named)


def test_a_shrinking_killed_anywhere_goes_on_to_the_same_sub_networks(bundle, family, tmp_path):
    wanted_at, wanted = family
    folder = tmp_path / "killed"

    def work():
        _grow(bundle, folder)

    # between the two files of the second epoch, while judging, and behind the first budget's alphas (before
    # which the other two searches note what they took)
    _killed(work, fit, "save_checkpoint", 2)
    _killed(work, Archive, "_keep", 5)
    _killed(work, shrink.runlog, "write_json", 3)
    found = _grow(bundle, folder)
    states = [f.net.model.state_dict() for f in (wanted, found)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert found.chosen.rows == wanted.chosen.rows
    assert found.chosen.metrics == wanted.chosen.metrics
    files = [(at / "judged.jsonl").read_text() for at in (wanted_at, folder)]
    assert files[0] == files[1]
    assert load_checkpoint(folder / "checkpoint.pt")["epoch"] == 2


# what is written, and where a step of each part ends
_PLACES = (
    (fit, "save_checkpoint"), (shrink.runlog, "write_json"), (Archive, "_keep"), (Archive, "__call__"),
    (fit._Trainer, "_step"), (fit._Trainer, "select"), (shrink, "fit_cost"), (shrink, "choose"),
)  # fmt: skip


@pytest.mark.full
def test_thirty_kills_anywhere_change_nothing(bundle, family, tmp_path):
    _, wanted = family
    generator, kills, folder = np.random.default_rng(0), 0, tmp_path / "0"

    def work():
        _grow(bundle, folder)

    while kills < 30:
        owner, name = _PLACES[generator.integers(len(_PLACES))]
        at, before = int(generator.integers(1, 8)), bool(generator.integers(2))
        if _ended(work, owner, name, at, before=before):
            kills += 1
        else:  # it came to its end: from the start again
            folder = tmp_path / str(kills)
    found = _grow(bundle, folder)
    states = [f.net.model.state_dict() for f in (wanted, found)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert found.chosen.rows == wanted.chosen.rows
    assert found.chosen.metrics == wanted.chosen.metrics


def test_points_are_saved_networks_that_were_measured(bundle, family, tmp_path):
    _, grown = family
    given = _model()
    base, first = given_network(given, bundle, _clock(bundle), tmp_path)
    rows = write_points(grown, given, bundle, _clock(bundle), first, tmp_path, META)
    assert [row["latency_ms"] for row in rows] == sorted(
        (row["latency_ms"] for row in rows), reverse=True
    )
    for row in rows:
        model, _ = load_model(tmp_path / row["folder"] / "model.pt")
        assert count(model, bundle.image_shape).macs == row["macs"]
        assert row["latency_ms"] == pytest.approx(row["macs"] / 1e6)
        low, high = row["metric_range"]
        assert low <= row["metric"] <= high
        assert row["predicted_ms"] <= 1.001 * row["budget_ms"]
    content = json.loads(
        json.dumps({"points": rows, "base": base, "metric": "accuracy", "share": True})
    )
    front = family_front(content)
    assert (
        len(front.points) == len(rows) + 1
    )  # and the given network, which is no point of the front
    assert {point.counts for point in front.points if point.shape == "cross"} == {False}
    assert all(point.y_range for point in front.points)
    assert front.baseline[0] == pytest.approx(base["latency_ms"])
    assert len(family_rows(content)) == len(rows) + 1
    again = write_points(grown, given, bundle, _clock(bundle), first, tmp_path, META)
    assert again == rows


def test_points_are_fine_tuned_on_a_cluster_as_they_are_here(bundle, family, tmp_path, monkeypatch):
    _, grown = family
    given, plain = _model(), bundle.without_test()
    calls = []

    def called(place, call, count, folder, *, look):
        calls.append((place, count))
        sent = pickle.loads(pickle.dumps(call))
        return [sent(number) for number in range(count)]

    monkeypatch.setattr(point_training, "run_calls", called)
    monkeypatch.setattr(point_training, "trial_bundle", lambda *_: plain)
    options = replace(OPTIONS, ray={"num_cpus": 2})
    config = ShrinkStage(shrink=replace(SETTINGS, options=options), seed=3, device="cpu")
    tuning = replace(CONFIG, epochs=1)
    found = []
    for name in ("here", "there"):
        folder = tmp_path / name
        folder.mkdir()
        tuned = None
        if name == "there":
            tuned = point_training.tuned_elsewhere(config, tuning, META, given, folder)
        _, first = given_network(given, bundle, _clock(bundle), folder)
        rows = write_points(
            grown, given, bundle, _clock(bundle), first, folder, META, tuning=tuning, seed=3,
            elsewhere=tuned,
        )  # fmt: skip
        assert all(row.pop("fine_tuning_seconds") > 0 for row in rows)
        models = [load_model(folder / row["folder"] / "model.pt")[0] for row in rows]
        found.append((rows, models))
    assert found[0][0] == found[1][0]
    for near, far in zip(found[0][1], found[1][1], strict=True):
        states = near.state_dict(), far.state_dict()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert calls == [(RayCluster(num_cpus=2), len(found[0][0]))]
    assert point_training.tuned_elsewhere(config, None, META, given, tmp_path) is None


def test_a_language_model_grows_a_family_too(tmp_path):
    tokens = np.cumsum(np.random.default_rng(0).random(601) < 0.9).astype(np.int32) % 2
    rows, ahead, names = tokens[:600].reshape(60, 10), tokens[1:].reshape(60, 10), ("a", "b")
    raw = RawData(rows, ahead, names, "made here", vocabulary=names, ordered=True)
    text = make_bundle("flips", raw).without_test()
    torch.manual_seed(0)
    architecture = get_space("gpt_tiny").random(np.random.default_rng(1))
    model = build(architecture, channels=8, num_classes=2, in_channels=2).eval()
    clock = Counting(text.input_shape, torch.device("cpu"), batch=1)
    one = replace(CONFIG, epochs=1, batch_size=8, crop_padding=None, flip=None)
    few = Shrink(points=2, options=replace(OPTIONS, val_examples=16, norm_examples=16))
    found = grow_family(model, text, few, one, clock, tmp_path)
    small = found.chosen.rows[-1]
    assert small.predicted_ms < found.chosen.rows[0].predicted_ms
    x, y = next(iter(text.batches("val", 4)))
    assert found.member(small.choices)(x).shape == (*y.shape, 2)


class Stretched(Counting):
    """Sub-networks take more than the table of the family says."""

    def __init__(self, bundle, factor):
        super().__init__(bundle.image_shape, torch.device("cpu"), batch=1)
        self.factor, self.whole, self.asked = factor, count(_model(), bundle.image_shape).macs, 0

    def __call__(self, network):
        self.asked += 1
        ms = super().__call__(network).median_ms
        ms *= 1.0 if ms * 1e6 >= self.whole else self.factor
        return Timing(ms, ms, ms, 5, "a clock in the tests")


def test_a_sub_network_above_its_budget_as_measured_gives_way_to_a_faster_one(
    bundle, family, tmp_path
):
    _, grown = family
    clock, path = Stretched(bundle, 1.3), tmp_path / "measured.json"
    given = clock(_model())
    given_ms = given.median_ms
    limits = ["90%", "70%"]
    two = copy.copy(grown)
    two.chosen = copy.deepcopy(grown.chosen)
    two.chosen.rows = [grown.archive.best(0.01 * float(text[:-1]) * given_ms)[0] for text in limits]
    rows = measure_chosen(two, clock, given, path, limits)
    assert [row.within for row in rows] == [True] * len(rows)
    assert all(row.timing.median_ms <= row.budget_ms for row in rows)
    assert rows[-1].budget_ms == pytest.approx(0.7 * given_ms)
    asked = clock.asked
    assert measure_chosen(two, clock, given, path, limits) == rows
    assert clock.asked == asked  # an interrupted command measures nothing twice
    # without budgets of the user's the sub-networks stay what they were chosen to be
    free = measure_chosen(grown, clock, given, tmp_path / "free.json")
    assert [row.found for row in free] == list(
        {tuple(row.choices.values()): row for row in grown.chosen.rows}.values()
    )


def test_a_budget_that_nothing_meets_as_measured_is_told(bundle, family, tmp_path, caplog):
    _, grown = family
    clock = Stretched(bundle, 1e3)
    two = copy.copy(grown)
    two.chosen = copy.deepcopy(grown.chosen)
    two.chosen.rows = [grown.archive.best(0.5)[0]]
    (row,) = measure_chosen(two, clock, clock(_model()), tmp_path / "m.json", ["50%"])
    assert row.within is False
    times = [one["median_ms"] for one in read_json(tmp_path / "m.json").values()]
    assert row.timing.median_ms == min(times)
    assert "the fastest of" in caplog.text


def test_a_loss_that_is_not_finite_names_the_setting_that_it_depends_on(bundle, tmp_path):
    wild = replace(CONFIG, learning_rate=100.0, weight_decay=10.0, epochs=6)
    model = _model()
    plain = bundle.without_test()
    with pytest.raises(NonFiniteLossError, match=r"Lower shrink\.learning_rate \(now 100\.0\)"):
        grow_family(model, plain, SETTINGS, wild, _clock(bundle), tmp_path)
    with pytest.raises(NonFiniteLossError, match=r"Lower prune\.learning_rate"):
        fine_tune(model, plain, wild, device=torch.device("cpu"))


def test_a_whole_network_that_did_not_come_back_is_told(bundle, tmp_path, caplog):
    caplog.set_level("INFO")
    ruinous = replace(CONFIG, learning_rate=20.0)
    shares = Evaluation(0.9, 0.1, 1000), Evaluation(0.89, 0.1, 1000), Evaluation(0.85, 0.1, 1000)
    for after in shares[:2]:  # a point is less than two standard errors
        shrink._say_what_it_cost(shares[0], after, ACCURACY, ruinous)
    assert "whole network has 89.00 % on val, the given one 90.00 %" in caplog.text
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    shrink._say_what_it_cost(shares[0], shares[2], ACCURACY, ruinous)
    said = caplog.records[-1].getMessage()
    assert "cost the whole network 5.0 points of val accuracy (standard error 1.5)" in said
    assert "shrink.learning_rate (now 20)" in said


class Busy(Counting):
    """A clock of a machine that does other work."""

    def __call__(self, network):
        return replace(super().__call__(network), flagged=True, flag_reason="others were busy")


def test_times_taken_beside_other_work_are_told(bundle, family, tmp_path, caplog):
    caplog.set_level("INFO")
    _, grown = family
    given, clock = _model(), Busy(bundle.image_shape, torch.device("cpu"), batch=1)
    base, first = given_network(given, bundle, clock, tmp_path)
    assert "timed beside other work (others were busy)" in caplog.text
    rows = write_points(grown, given, bundle, clock, first, tmp_path, META)
    assert f"{rows[0]['predicted_ms']:.3f}) beside other work, test" in caplog.text
    content = {"base": base, "points": rows, "metric": "accuracy", "share": True}
    assert all(row["ms"].endswith(" !") for row in family_rows(content))
    assert f"{len(rows) + 1} of {len(rows) + 1} times" in family_headline(content, "points/01")[1]


def test_an_epoch_of_few_steps_is_told(bundle, caplog):
    examples = bundle.size("params") + bundle.size("alpha")
    points._say_how_long(replace(CONFIG, epochs=1, batch_size=1), bundle)
    assert examples >= 100
    assert not caplog.records
    points._say_how_long(replace(CONFIG, epochs=3, batch_size=examples - 1), bundle)
    assert f"fine-tuned for 3 steps only ({examples} examples" in caplog.text
    assert "see shrink.fine_tuning (now 3)" in caplog.text


class Answering(torch.nn.Module):
    """A teacher that notes how many images each call asked about."""

    calls: list = []

    def __init__(self):
        super().__init__()
        self.network = _model()

    def forward(self, x):
        self.calls.append(len(x))
        return self.network(x)


def test_a_teacher_is_asked_once_of_an_image_that_comes_back(bundle):
    Answering.calls.clear()
    plain = bundle.without_test()
    steps = plain.steps(("params", "alpha"), CONFIG.batch_size)
    model = _model().requires_grad_(True)
    config = replace(CONFIG, epochs=8)
    fine_tune(model, plain, config, teacher=Answering(), device=torch.device("cpu"))
    # the first epoch, and images that an epoch left out as its last batch was not whole
    assert steps <= len(Answering.calls) <= 4 * steps


def test_a_budget_below_the_smallest_ends_before_any_training(bundle, tmp_path):
    with pytest.raises(LatencyError, match="below the smallest"):
        _grow(bundle, tmp_path / "low", Shrink(budgets=["1%"], options=OPTIONS))
    assert not (tmp_path / "low" / "checkpoint.pt").exists()


@pytest.mark.full
def test_the_command_leaves_a_front_of_verified_exports(bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = copy.deepcopy(_model())
    about = {"image_shape": list(bundle.image_shape), "class_names": list(bundle.class_names)}
    about |= {"mean": list(bundle.mean), "std": list(bundle.std), "data": bundle.name}
    save_model("model.pt", model, {**META, **about})
    write_json(tmp_path / "result.json", {"device_seconds": 0.5})
    words = [
        "shrink", "model=model.pt", "data=digits", "data.limit=160", "data.test_limit=40", "job=f",
        "shrink.epochs=1", "train.batch_size=32", "shrink.points=2", "shrink.options.looks=8",
        "shrink.options.seconds=0.05", "shrink.options.val_examples=32", "export.formats=[onnx]",
        "export.options.max_seconds=0.05", "device=cpu",
    ]  # fmt: skip
    assert cli.main(words) == 0
    told = capsys.readouterr()
    assert "of the given network's time" in told.err + told.out
    assert "times the training of the given network" in told.err + told.out
    folder = tmp_path / "runs" / "f" / "V001" / "shrink"
    front = read_json(folder / "front.json")
    assert (folder / "front.png").is_file()
    for point in front["points"]:
        manifest = read_json(folder / point["folder"] / "export" / "manifest.json")
        assert manifest["artifacts"]["onnx"]["relative_error"] < 1e-4
    assert load_model(folder / "model.pt")
    result = read_json(folder / "result.json")
    assert result["speedup"] == result["latency_before_ms"] / result["latency_after_ms"]
    assert result["given_training_seconds"] == 0.5
    assert cli.main(["jobs", "best", "f", "--export", "taken", "--json"]) == 0
    left = json.loads(capsys.readouterr().out)["files"]
    assert left[0] == str(folder / result["picked"] / "export")
    assert left[1:] == [str(folder / "model.pt")]
    assert (tmp_path / "taken" / "export" / "manifest.json").is_file()
    assert cli.main(["report", "job=f", "version=V001"]) == 0
    page = (tmp_path / "runs" / "f" / "V001" / "report.html").read_text()
    assert "Measured front" in page
    assert "of the given network&#39;s time" in page or "of the given network's time" in page
    assert "No benchmark was run" not in page
    assert cli.main([*words, "shrink.budgets=[1%]", "version=V002"]) == 2
    assert "below the smallest" in capsys.readouterr().err
