"""Gone on with: on another device, in another attempt, behind a stop, with what the teacher kept."""

import copy
import json
import os
import signal
import time
import tracemalloc
from dataclasses import replace

import pytest
import torch
from test_elastic_shrink import CONFIG, META, SETTINGS, Counting
from torch import nn

from darts_core import cli
from darts_core.autosearch import elastic_family
from darts_core.autosearch.contract import Trial
from darts_core.autosearch.elastic_family import ElasticFamily
from darts_core.autosearch.elastic_stage import Stage
from darts_core.checkpoint import save_checkpoint
from darts_core.data import load_data
from darts_core.elastic import Sandwich, device_clock, elastic, fit, points
from darts_core.elastic.archive import Archive
from darts_core.elastic.fit import fit_elastic
from darts_core.elastic.points import given_network, write_points
from darts_core.elastic.shrink import grow_family, measured_cost
from darts_core.elastic.within import taken_alike
from darts_core.latency import Timing
from darts_core.models.baselines import baseline
from darts_core.runlog import read_json, read_jsonl, write_json
from darts_core.settings import Shrink
from darts_core.stages.interrupt import deferred_stop, handle_signals
from darts_core.stages.schema import ShrinkStage
from darts_core.stages.shrink import _finish_point
from darts_core.train import save_model, teacher
from darts_core.train.teacher import Teacher


class _Stop(Exception):
    pass


class Machine(Counting):
    """A device of a name and pace of its own, which counts what it is asked."""

    def __init__(self, bundle, name, pace):
        super().__init__(bundle.image_shape, torch.device("cpu"), batch=1)
        self.name, self.pace, self.asked = name, pace, 0

    def described(self):
        return {"batch": 1, "runtime": "onnx", "device": self.name}

    def __call__(self, network):
        self.asked += 1
        ms = self.pace * super().__call__(network).median_ms
        return Timing(ms, ms, ms, 5, self.name, "onnx", 1)


def _model(seed=0):
    torch.manual_seed(seed)
    return baseline("resnet8", 10, 1, 4).eval()


@pytest.fixture(scope="module")
def bundle():
    return load_data("digits", limit=160, test_limit=40)


def _grow(bundle, folder, **given):
    folder.mkdir(exist_ok=True)
    clock = Counting(bundle.image_shape, torch.device("cpu"), batch=1)
    plain = bundle.without_test()
    return grow_family(_model(), plain, SETTINGS, CONFIG, clock, folder, seed=1, **given)


@pytest.fixture(scope="module")
def grown(bundle, tmp_path_factory):
    return _grow(bundle, tmp_path_factory.mktemp("whole"))


@pytest.fixture
def machines(bundle):
    return Machine(bundle, "one", 1.0), Machine(bundle, "other", 3.0)


def test_the_given_network_is_timed_anew_on_another_device(bundle, machines, tmp_path, caplog):
    one, other = machines
    base, _ = given_network(_model(), bundle, one, tmp_path)
    assert given_network(_model(), bundle, one, tmp_path)[0] == base
    assert one.asked == 1
    again, first = given_network(_model(), bundle, other, tmp_path)
    assert first.device == "other"
    assert again["latency_ms"] == pytest.approx(3 * base["latency_ms"])
    assert again["metric"] == base["metric"]
    assert caplog.text.count("timed anew") == 1
    # a row that does not tell what its time is of counts as this device's
    row = read_json(tmp_path / "base.json")
    del row["timing"]["runtime"], row["timing"]["batch"]
    write_json(tmp_path / "base.json", row)
    _, first = given_network(_model(), bundle, other, tmp_path)
    assert (first.device, first.runtime, first.batch) == ("other", "onnx", 1)
    assert other.asked == 1


class Told(Counting):
    """Its times tell what they are of, as those of a real clock do."""

    def __call__(self, network):
        return Timing.from_dict({**super().__call__(network).to_dict(), **self.described()})


def test_times_that_were_taken_on_another_number_of_threads_are_taken_anew(
    bundle, grown, tmp_path, monkeypatch, caplog
):
    clock, own = Told(bundle.image_shape, torch.device("cpu"), batch=1), torch.get_num_threads()
    for _ in range(2):
        _, first = given_network(_model(), bundle, clock, tmp_path)
        measured_cost(grown.net, clock, tmp_path, 1)
    table = read_json(tmp_path / "latency.json")
    assert first.threads == table["threads"] == own
    assert "anew" not in caplog.text
    monkeypatch.setattr(torch, "get_num_threads", lambda: own + 1)
    _, other = given_network(_model(), bundle, clock, tmp_path)
    assert "the given network is timed anew" in caplog.text
    measured_cost(grown.net, clock, tmp_path, 1)
    assert "the latency is measured anew" in caplog.text
    assert read_json(tmp_path / "latency.json")["threads"] == other.threads == own + 1
    assert taken_alike(other.to_dict(), other)
    assert not taken_alike(first.to_dict(), other)
    # files of an older program tell nothing of threads
    del table["threads"]
    assert clock.fits(table)
    assert taken_alike({"device": first.device}, other)


def test_times_of_another_version_of_torch_are_taken_anew(
    bundle, grown, tmp_path, monkeypatch, caplog
):
    clock = Told(bundle.image_shape, torch.device("cpu"), batch=1)
    _, first = given_network(_model(), bundle, clock, tmp_path)
    measured_cost(grown.net, clock, tmp_path, 1)
    table = read_json(tmp_path / "latency.json")
    assert first.versions == table["versions"] != {}
    other = dict.fromkeys(first.versions, "0.1")
    monkeypatch.setattr(device_clock, "versions", lambda runtime: other)
    _, again = given_network(_model(), bundle, clock, tmp_path)
    assert "the given network is timed anew" in caplog.text
    measured_cost(grown.net, clock, tmp_path, 1)
    assert "the latency is measured anew" in caplog.text
    assert read_json(tmp_path / "latency.json")["versions"] == again.versions == other
    assert not taken_alike(first.to_dict(), again)
    # files of an older program tell nothing of versions
    assert clock.fits({**clock.described(), "versions": None})
    assert taken_alike({**again.to_dict(), "versions": {}}, again)


def test_finished_points_get_another_device_s_times_and_keep_their_networks(
    bundle, grown, machines, tmp_path, monkeypatch, caplog
):
    given, tuning = _model(), replace(CONFIG, epochs=1)

    def written(clock, **more):
        _, first = given_network(given, bundle, clock, tmp_path)
        return write_points(
            grown, given, bundle, clock, first, tmp_path, META, tuning=tuning, seed=3, **more
        )

    one, other = machines
    before = written(one, done=lambda at: (at / "export").mkdir())
    networks = [(tmp_path / row["folder"] / "model.pt").read_bytes() for row in before]

    def refuse(*_, **__):
        raise AssertionError("a finished point was trained again")

    monkeypatch.setattr(points, "fine_tune", refuse)
    after = written(other)
    assert caplog.text.count("these sub-networks are measured anew") == 1
    assert len(after) == len(before)
    for old, new in zip(before, after, strict=True):
        assert new["timing"]["device"] == "other"
        assert new["latency_ms"] == pytest.approx(3 * old["latency_ms"])
        for key in ("choices", "metric", "val_metric", "fine_tuning_seconds", "folder"):
            assert new[key] == old[key]
        # what was exported was made and timed on the other device
        assert not (tmp_path / new["folder"] / "export").exists()
    assert [(tmp_path / row["folder"] / "model.pt").read_bytes() for row in after] == networks
    kept = read_json(tmp_path / "measured.json")
    assert {row["device"] for row in kept.values()} == {"other"}
    asked = other.asked
    assert written(other) == after
    assert other.asked == asked


def test_a_point_of_another_sub_network_is_made_anew(bundle, grown, machines, tmp_path):
    given, clock = _model(), machines[0]
    _, first = given_network(given, bundle, clock, tmp_path)
    rows = write_points(grown, given, bundle, clock, first, tmp_path, META)
    path = tmp_path / rows[-1]["folder"] / "point.json"
    name = next(iter(rows[-1]["choices"]))
    write_json(path, {**rows[-1], "choices": {**rows[-1]["choices"], name: 0}, "metric": 2.0})
    assert write_points(grown, given, bundle, clock, first, tmp_path, META) == rows


def test_alphas_that_descended_along_another_device_s_table_are_dropped(bundle, grown, tmp_path):
    clock = Counting(bundle.image_shape, torch.device("cpu"), batch=1)
    (tmp_path / "alphas.json").write_text("{}")
    measured_cost(grown.net, clock, tmp_path, 1)
    assert (tmp_path / "alphas.json").exists()
    table = read_json(tmp_path / "latency.json")
    write_json(tmp_path / "latency.json", {**table, "device": "another"})
    measured_cost(grown.net, clock, tmp_path, 1)
    assert not (tmp_path / "alphas.json").exists()
    assert read_json(tmp_path / "latency.json") == table


def test_a_stop_while_choosing_comes_behind_the_row_and_changes_nothing(bundle, grown, tmp_path):
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 3:
            raise _Stop

    with pytest.raises(_Stop):
        _grow(bundle, tmp_path, on_judged=stop)
    assert len(read_jsonl(tmp_path / "judged.jsonl")) == 3
    found = _grow(bundle, tmp_path)
    assert found.chosen.rows == grown.chosen.rows
    assert found.chosen.metrics == grown.chosen.metrics


def test_a_signal_is_obeyed_between_points(tmp_path):
    config = ShrinkStage(shrink=Shrink(export=False), device="cpu")
    with handle_signals():
        _finish_point(config, tmp_path)
        with deferred_stop():
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt, match="checkpoint is saved"):
            _finish_point(config, tmp_path)


def test_the_command_obeys_a_signal_while_it_chooses_and_goes_on(
    bundle, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("darts_core.stages.shrink.DeviceClock", Counting)
    about = {"image_shape": list(bundle.image_shape), "class_names": list(bundle.class_names)}
    about |= {"mean": list(bundle.mean), "std": list(bundle.std), "data": bundle.name}
    about |= {} if bundle.unit == 255 else {"unit": bundle.unit}
    save_model("model.pt", _model(), {**META, **about})
    words = [
        "shrink", "model=model.pt", "data=digits", "data.limit=160", "data.test_limit=40", "job=f",
        "shrink.epochs=1", "train.batch_size=32", "shrink.points=2", "shrink.options.looks=8",
        "shrink.options.val_examples=32", "shrink.options.norm_examples=32", "device=cpu",
    ]  # fmt: skip
    left_out = {"name": "onnx", "message": "no such operation"}
    monkeypatch.setattr("darts_core.stages.shrink.export", lambda *_: {"warnings": [left_out]})
    plain, kept = Archive._keep, []

    def keep(archive, row):
        plain(archive, row)
        kept.append(row)
        if len(kept) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as during:
        during.setattr(Archive, "_keep", keep)
        assert cli.main(words) == cli.INTERRUPTED
    assert "stopped" in capsys.readouterr().err
    folder = tmp_path / "runs" / "f" / "V001" / "shrink"
    assert len(read_jsonl(folder / "judged.jsonl")) == 3
    spent = read_json(folder / "spent.json")["device_seconds"]
    assert spent > 0
    noted = read_json(folder / "choosing.json")
    assert set(noted["seconds"]) == {"greedy"}
    write_json(folder / "choosing.json", {**noted, "seconds": {"greedy": 1e3}})
    # of a front of more points
    write_json(folder / "points" / "07" / "point.json", {"choices": {}})
    began = time.perf_counter()
    assert cli.main(words) == 0
    assert len(read_jsonl(folder / "judged.jsonl")) > 3
    result = read_json(folder / "result.json")
    assert spent < result["device_seconds"] < spent + time.perf_counter() - began
    assert result["choosing_seconds"]["greedy"] >= 1e3
    assert result["warnings"][0] == {**left_out, "name": "points/01 onnx"}
    assert len(result["warnings"]) == result["points"] == len([*(folder / "points").iterdir()])
    assert not (folder.parents[1] / "V002").exists()


def test_a_second_attempt_of_the_elastic_trial_judges_its_own_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(elastic_family, "DeviceClock", Counting)
    (tmp_path / "trial.json").write_text(json.dumps({"trial_id": "abcd1234", "config": {}}))
    options = {"batch": 1, "points": 1, "target_latency": 0.9, "looks": 8}
    x, y = torch.randn(8, 1, 8, 8), torch.arange(8)
    losses = []
    for seed in (0, 1):
        stage = Stage(_model(seed).train(), "elastic", (1, 8, 8), "classification", options)
        family = ElasticFamily(stage, Trial(tmp_path))
        family.backward(nn.functional.cross_entropy, x, y)
        assert not (tmp_path / "judged.jsonl").exists()
        assert not (tmp_path / "architecture.json").exists()
        (tmp_path / "architecture.json").write_text(json.dumps({"value": family.derive()}))
        losses.append({row["loss"] for row in read_jsonl(tmp_path / "judged.jsonl")})
    assert min(map(len, losses)) > 1
    assert not losses[0] & losses[1]


def test_the_teacher_s_memory_counts_what_an_output_costs_beside_its_numbers():
    net, x = nn.Linear(4, 10), torch.randn(16, 4)
    room = Teacher(net, cache_mib=10 * (40 + 200) / 2**20)
    assert torch.equal(room(x), net(x))
    assert room.mark[0] == 10


def test_the_usual_memory_holds_every_image_of_a_set_of_50000_and_its_mirror_image():
    kept, row = teacher._Outputs(), torch.arange(10.0)
    tracemalloc.start()
    for number in range(20_000):
        kept.put(number.to_bytes(16, "little"), row)
    beside = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    # the numbers themselves are torch's, which Python does not count
    assert beside <= teacher._BESIDE
    assert 100_000 * (4 * 10 + teacher._BESIDE) <= 64 * 2**20


def test_outputs_in_several_blocks_come_back_as_they_were_and_older_states_are_read(monkeypatch):
    monkeypatch.setattr(teacher, "_BLOCK", 3 * 4 * 4)  # three outputs of four numbers
    net, x = nn.Linear(2, 4), torch.randn(8, 2)
    asked = Teacher(net)
    given = asked(x)
    assert torch.equal(asked(x.flip(0)), given.flip(0))
    assert asked.asked == 1
    state = asked.state_dict()
    assert state["keys"].shape == (8, 2)
    assert state["keys"].dtype == torch.int64
    assert torch.equal(state["kept"], given)
    asked.back_to((4, 0))
    assert torch.equal(asked.state_dict()["kept"], given[:4])
    asked(x)
    assert asked.mark[0] == 8
    assert torch.equal(asked.state_dict()["keys"], state["keys"])
    # an older program's: the same numbers, in tensors that one example each was stacked from
    again = Teacher(net)
    again.load_state_dict({"keys": state["keys"].clone(), "kept": torch.stack([*given])})
    assert torch.equal(again(x[2:5]), given[2:5])
    assert again.asked == 0


def test_outputs_of_several_shapes_are_answered_and_the_first_ones_kept():
    net = nn.Conv1d(1, 2, 1)
    asked = Teacher(net)
    short, long = torch.randn(3, 1, 4), torch.randn(3, 1, 6)
    assert torch.equal(asked(short), net(short))
    assert torch.equal(asked(long), net(long))
    assert asked.state_dict()["kept"].shape == (3, 2, 4)


def test_a_teacher_keeps_no_more_where_nothing_comes_back_and_begins_again(monkeypatch):
    monkeypatch.setattr(teacher, "_IN_VAIN", 3)
    net = nn.Linear(2, 1)
    asked = Teacher(net)
    batches = torch.randn(8, 2, 2)
    for batch in batches[:5]:
        asked(batch)
    assert asked.mark == (6, 5)  # of five batches of two the first three
    again = Teacher(net)
    again.load_state_dict(asked.state_dict())
    assert again.mark == asked.mark
    state = asked.state_dict()
    del state["in_vain"]  # as files of an older version
    again.load_state_dict(state)
    assert again.mark == (6, 0)
    asked(torch.cat([batches[0, :1], batches[5, :1]]))
    assert asked.mark == (7, 0)
    asked(batches[6])
    assert asked.mark == (9, 1)
    asked.back_to((6, 5))
    assert asked.mark == (6, 5)
    asked(batches[7])
    assert asked.mark == (6, 6)
    answers = asked.asked
    asked(batches[:3].flatten(0, 1))
    assert asked.asked == answers
    assert asked.mark == (6, 0)


class _Fresh:
    """Data whose images never come back."""

    def __init__(self, plain):
        self.plain = plain

    def __getattr__(self, name):
        return getattr(self.plain, name)

    def batches(self, names, batch_size, *, epoch=0, **more):
        found = self.plain.batches(names, batch_size, epoch=epoch, **more)
        for number, (x, y) in enumerate(found):
            generator = torch.Generator().manual_seed(100 * epoch + number)
            yield x + 0.01 * torch.randn(x.shape, generator=generator), y


def test_a_kill_between_the_two_files_leaves_the_teacher_s_memory_as_it_would_be(
    bundle, tmp_path, monkeypatch
):
    fresh = _Fresh(bundle.without_test())
    # the first epoch's outputs are kept, and those of two batches of the second
    batches = fresh.steps(fit.SPLITS, CONFIG.batch_size) + 2
    monkeypatch.setattr(teacher, "_IN_VAIN", batches)
    made = elastic(_model(), next(iter(fresh.batches("params", 2)))[0])

    def ahead(path, content):
        save_checkpoint(path, content)
        if content["epoch"] == 2:
            raise _Stop

    found = []
    for killed in (False, True):
        folder = tmp_path / str(killed)
        folder.mkdir()
        if killed:
            net = copy.deepcopy(made)
            with monkeypatch.context() as during:
                during.setattr(fit, "save_checkpoint", ahead)
                with pytest.raises(_Stop):
                    fit_elastic(net, fresh, CONFIG, Sandwich(net, drawn=0), seed=1, folder=folder)
        net = copy.deepcopy(made)
        sandwich = Sandwich(net, drawn=0)
        fit_elastic(net, fresh, CONFIG, sandwich, seed=1, folder=folder)
        found.append((sandwich.teacher.state_dict(), net.model.state_dict()))
    (one, whole), (other, resumed) = found
    assert len(one["keys"]) == batches * CONFIG.batch_size
    assert one["in_vain"] == other["in_vain"]
    assert torch.equal(one["keys"], other["keys"])
    assert torch.equal(one["kept"], other["kept"])
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
