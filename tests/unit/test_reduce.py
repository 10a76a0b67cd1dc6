"""`run` prunes or shrinks before it tunes, and ships no network that has lost its task."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from darts_core.commands.compose import compose, session
from darts_core.data import RawData, make_bundle
from darts_core.errors import ConfigError, DartsError, LatencyError, PruneError
from darts_core.latency import Timing
from darts_core.prune import PruneResult, find_groups, remove_channels
from darts_core.prune.store import Store
from darts_core.report.read import read_version
from darts_core.report.reduced import Reduced, read_reduced, write_reduced
from darts_core.report.results import headline
from darts_core.runlog import config_hash, write_json
from darts_core.stages import prune as prune_stage
from darts_core.stages import reduce, run
from darts_core.stages.inputs import describe_network, find_device, find_network, load_bundle
from darts_core.stages.later import _check_timed, check_on_data
from darts_core.stages.models import entries_of
from darts_core.stages.schema import ShrinkStage, TrainStage, deciding
from darts_core.stages.train import train
from darts_core.train import load_model, save_model

ACCURACY = {"name": "accuracy", "direction": "maximize", "share": True}
STEPS = ("search", "searched", "prune", "tune", "train", "export", "bench")


def pipeline(*overrides: str) -> Any:
    with session():
        return compose("run", ["data=digits", "space=convnet", "prune.budget=50%", *overrides])


class Calls(list[tuple[str, str | None]]):
    """(stage, model) of every stage that was run, in their order; what each takes of val."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = {"prune": 0.02}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """A pipeline of stages that only write down what they were given."""
    calls = Calls()

    def stage(config: Any, folder: Path) -> dict[str, Any]:
        calls.append((folder.name, getattr(config, "model", None)))
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text("{}")
        value = 0.9 - calls.lost.get(folder.name, 0.0)
        found = {"device_seconds": 1.0, "val_accuracy": value, "test_accuracy": value,
                 "metric": ACCURACY, "best": {}, "rows": []}  # fmt: skip
        write_json(folder / "result.json", found)
        return found

    for name in ("search", "train", "tune", "export", "bench"):
        monkeypatch.setattr(run, name, stage)
    monkeypatch.setattr(run, "report", lambda *_: {"report": "r"})
    monkeypatch.setattr(run, "run_front", lambda _: None)
    monkeypatch.setattr(run, "_baseline", lambda *_: {})
    monkeypatch.setattr(reduce, "prune", stage)
    return calls


def test_tuning_is_spent_on_the_pruned_network(tmp_path: Path, told: Calls) -> None:
    found = run.run(pipeline(), tmp_path)
    assert [name for name, _ in told] == list(STEPS)
    given = dict(told)
    assert (given["prune"], given["tune"], given["train"]) == ("searched", "prune", "prune")
    assert read_reduced(tmp_path) == Reduced("prune", shipped=True)
    assert "not_shipped" not in found
    assert (found["test_accuracy"], found["metric"]) == (0.9, ACCURACY)


def test_a_ruined_network_is_not_shipped_and_the_headline_says_why(
    tmp_path: Path, told: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    told.lost["prune"] = 0.45
    with caplog.at_level(logging.WARNING):
        found = run.run(pipeline(), tmp_path)
    given = dict(told)
    assert (given["tune"], given["train"]) == (None, None)
    said = (
        "prune took 45.0 points of val accuracy (may_lose=0.1), so the network before it is tuned and "
        "shipped."
    )
    assert found["not_shipped"] == said
    assert found["test_accuracy"] == 0.9
    assert said in caplog.text
    version = read_version(tmp_path)
    assert list(version.stages) == list(STEPS[:1] + STEPS[2:])
    assert said in headline(version, [])[1]
    assert "90.0 % test accuracy" in headline(version, [])[0]
    # what pruning took is part of the price all the same
    assert found["costs"]["prune"] == 1.0


def test_the_end_tells_which_formats_are_left_out(
    tmp_path: Path, told: Calls, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usual, said = run.export, "model_int8.onnx was not written: it loses 9 points."
    left_out = [{"name": "onnx_int8", "message": said}]
    monkeypatch.setattr(run, "export", lambda *given: {**usual(*given), "warnings": left_out})
    run.run(pipeline(), tmp_path)
    assert f"the format onnx_int8 is left out: {said}" in caplog.text


def test_of_an_error_rate_what_is_added_is_lost() -> None:
    rate = {"name": "error_rate", "direction": "minimize", "share": True}
    few, many = ({"val_error_rate": value, "metric": rate} for value in (0.1, 0.6))
    lost = reduce.what_it_lost(few, many, "prune", 0.1)
    assert lost == "prune added 50.0 points to val error_rate (may_lose=0.1)"
    assert reduce.what_it_lost(many, few, "prune", 0.1) == ""
    said = reduce.what_it_lost(few, {**few, "val_error_rate": None}, "prune", 0.1)
    assert said == "prune left a network whose val error_rate is no number"
    assert reduce.what_it_lost(few, {}, "prune", 0.1) == ""
    # just what it may lose is not more than that, though 0.8 - 0.7 is above 0.1 in a computer
    whole, pruned = ({"val_accuracy": v, "metric": ACCURACY} for v in (0.8, 0.7))
    assert reduce.what_it_lost(whole, pruned, "prune", 0.1) == ""
    assert reduce.what_it_lost(whole, pruned, "prune", 0.09) != ""
    # a correlation is no share, of which may_lose tells nothing, and NaN of outputs that are all alike
    rank = {"metric": {"name": "rank", "direction": "maximize", "share": False}, "val_rank": 0.9}
    assert reduce.what_it_lost(rank, {**rank, "val_rank": 0.1}, "prune", 0.1) == ""
    said = reduce.what_it_lost(rank, {**rank, "val_rank": None}, "prune", 0.1)
    assert said == "prune left a network whose val rank is no number"


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["reduce=shrink", "shrink.pick=half"], "The budget 'half' is not understood"),
        (["reduce=shrink", "shrink.budgets=[50%,fast]"], "The budget 'fast' is not understood"),
        (["reduce=shrink", "train.compile=true"], "does not go with an elastic training"),
        (["prune.budget=fast"], "The budget 'fast' is not understood"),
        (["export.formats=[onxx]"], "Unknown export format 'onxx'"),
        (["tune.policy=gradient"], r"searches an augmentation policy.*augment=found"),
        (["tune.sampler=tpee"], "Unknown sampler 'tpee'"),
        (["tune.pruner=ashaa"], "Unknown pruner 'ashaa'"),
        (["tune.trials=null"], "The study has no budget"),
        (["tune.enqueue=[{drop_pat: 0}]"], "Unknown dimension 'drop_pat'"),
        (["tune.options.constraints={latency_ms: fast}"], "The constraint on latency_ms is 'fast'"),
        # of these it takes the data to know
        (["tune.options.metric=val_acc"], "Unknown metric in tune.options.metric 'val_acc'"),
        (["train.auxiliary=true"], "of the space 'convnet' has no auxiliary head"),
        (["train.jitter=0.1"], "train.jitter=0.1 is not for images"),
        (["train.batch_size=5000"], "batch_size=5000 is larger than the split"),
        (
            ["device=cpu", "prune.options.runtime=graph"],
            r"prune\.options\.runtime=graph needs a cuda",
        ),
        (
            ["device=cpu", "reduce=shrink", "shrink.options.runtime=graph"],
            r"the device is cpu; use",
        ),
    ],
)
def test_what_a_later_stage_would_refuse_ends_it_before_the_search(
    tmp_path: Path, told: Calls, words: list[str], match: str
) -> None:
    with pytest.raises(DartsError, match=match):
        run.run(pipeline(*words), tmp_path)
    assert not told


@pytest.mark.parametrize("stage", ["prune", "shrink"])
def test_onnx_on_a_gpu_ends_it_before_the_search(stage: str) -> None:
    config = pipeline(f"reduce={stage}", f"{stage}.options.runtime=onnx")
    with pytest.raises(LatencyError, match=rf"^{stage}\.options\.runtime=onnx is timed on a CPU"):
        _check_timed(config, torch.device("cuda:1"))
    _check_timed(config, torch.device("cpu"))


def test_a_study_of_what_no_training_has_ends_it_before_the_search(
    tmp_path: Path, told: Calls
) -> None:
    config = pipeline()
    space = {"learnin_rate": {"low": 0.1, "high": 0.2}}
    with pytest.raises(ConfigError, match=r"setting in tune\.space 'learnin_rate'"):
        run.run(replace(config, tune=replace(config.tune, space=space)), tmp_path)
    assert not told


def test_how_much_may_be_lost_is_a_setting(
    tmp_path: Path, told: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    told.lost["prune"] = 0.45
    (much := tmp_path / "much").mkdir()
    assert "not_shipped" not in run.run(pipeline("may_lose=0.5"), much)
    assert dict(told)["tune"] == "prune"
    # which does not decide about a network that cannot be judged
    usual = reduce.prune
    monkeypatch.setattr(reduce, "prune", lambda *given: {**usual(*given), "val_accuracy": None})
    found = run.run(pipeline("may_lose=0.5"), tmp_path)
    assert found["not_shipped"] == (
        "prune left a network whose val accuracy is no number, so the network before it is tuned and "
        "shipped."
    )


@pytest.mark.parametrize("targets", [np.arange(60) % 2, np.arange(60.0)])
def test_how_much_may_be_lost_is_told_to_be_of_shares(
    caplog: pytest.LogCaptureFixture, targets: Any
) -> None:
    images = np.arange(60 * 64, dtype=np.float32).reshape(60, 1, 8, 8)
    bundle = make_bundle("made", RawData(images, targets, (), "made here")).without_test()
    check_on_data(pipeline("device=cpu", "may_lose=0.5", "train.batch_size=4"), bundle)
    said = "may_lose=0.5: not used, as R2 is no share (0 to 1)"
    assert (said in caplog.text) == (bundle.task.name == "regression")


def test_what_is_only_aimed_at_and_out_of_reach_ends_nothing(
    tmp_path: Path, told: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(config: Any, folder: Path) -> dict[str, Any]:
        folder.mkdir()
        raise PruneError("The budget is below the fastest.")

    monkeypatch.setattr(reduce, "prune", fails)
    found = run.run(pipeline("prune.budget=null"), tmp_path)
    assert found["not_shipped"].startswith("The budget is below the fastest. So the network before")
    assert not (tmp_path / "prune").exists()
    # timed again it might be within reach, and what was tuned since is of the whole network
    monkeypatch.setattr(reduce, "prune", lambda *_: pytest.fail("pruned once more"))
    again = run.run(pipeline("prune.budget=null"), tmp_path)
    assert again["not_shipped"] == found["not_shipped"]
    monkeypatch.setattr(reduce, "prune", fails)
    asked = tmp_path / "asked"
    asked.mkdir()
    with pytest.raises(PruneError):
        run.run(pipeline(), asked)


@pytest.mark.parametrize(("stage", "error"), [("prune", PruneError), ("shrink", LatencyError)])
def test_a_set_budget_that_is_out_of_reach_says_where_the_trained_network_is(
    stage: str,
    error: type[DartsError],
    tmp_path: Path,
    told: Calls,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def reduced(config: Any, folder: Path) -> dict[str, Any]:
        raise error("The budget is below the fastest.")

    monkeypatch.setattr(reduce, stage, reduced)
    with pytest.raises(error) as ended:
        run.run(pipeline(f"reduce={stage}"), tmp_path)
    command = f"darts-core {stage} model={tmp_path / 'searched'} goes on from it"
    assert str(ended.value).startswith("The budget is below the fastest. What was searched")
    assert command in str(ended.value)


def test_a_version_that_an_older_program_began_to_tune_goes_on_in_its_order(
    tmp_path: Path, told: Calls
) -> None:
    (tmp_path / "tune").mkdir()
    (tmp_path / "tune" / "config.yaml").write_text("{}")
    told.lost["prune"] = 0.05
    found = run.run(pipeline(), tmp_path)
    assert [name for name, _ in told] == [
        "search",
        "searched",
        "tune",
        "train",
        "prune",
        "export",
        "bench",
    ]
    assert {model for _, model in told} == {None}
    assert found["test_accuracy"] == pytest.approx(0.85)
    assert read_reduced(tmp_path) is None
    # and is read as before: what was pruned last is shipped
    assert [stage.name for stage in read_version(tmp_path).networks] == ["prune", "train"]


def test_settings_of_older_versions_have_the_same_hash() -> None:
    plain = deciding(pipeline())
    assert "may_lose" not in plain
    assert config_hash(plain) != config_hash(deciding(pipeline("may_lose=0.2")))
    rate = "fine_tuning_rate"
    assert rate not in plain["shrink"]["options"]
    shrinking = ShrinkStage()
    assert rate not in deciding(shrinking)["shrink"]["options"]
    # points that are fine-tuned are so with another rate than they were
    tuned = replace(shrinking, shrink=replace(shrinking.shrink, fine_tuning=1))
    assert deciding(tuned)["shrink"]["options"][rate] is None
    own = deciding(pipeline(f"shrink.options.{rate}=0.1"))
    assert own["shrink"]["options"][rate] == 0.1


def test_the_default_is_a_search_by_samples_in_a_space_for_the_data() -> None:
    with session():
        found = compose("run", [])
        small = compose("run", ["experiment=fashion_small", "data.path=."])
    assert (found.space.name, found.aim, found.search.channels) == ("auto", 0.5, 16)
    assert found.relax["_target_"].endswith("GumbelStraightThrough")
    assert (small.space.name, small.relax["_target_"].rpartition(".")[2]) == (
        "nasbench201",
        "Softmax",
    )


def test_the_table_tells_the_story_in_the_order_of_the_steps(tmp_path: Path) -> None:
    for name in ("searched", "train", "prune"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.pt").touch()
    assert [e.kind for e in entries_of(tmp_path)] == ["searched", "trained", "pruned"]
    # where a study chose the recipe, the word says so
    (tmp_path / "tune").mkdir()
    (tmp_path / "tune" / "result.json").write_text("{}")
    assert [e.kind for e in entries_of(tmp_path)] == ["searched", "tuned", "pruned"]
    write_reduced(tmp_path, Reduced("prune", shipped=True))
    assert [e.kind for e in entries_of(tmp_path)] == ["searched", "pruned", "tuned"]


def test_what_was_shrunk_and_then_trained_on_is_shipped_as_it_was_trained(tmp_path: Path) -> None:
    for name in ("shrink", "train"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.pt").touch()
    config = tmp_path / "train" / "config.yaml"
    # another network was trained here first: what is shrunk of it is shipped
    for model in ("model: null", "model: [shrink]", "model: searched", "model: a/V1/shrink", "{"):
        config.write_text(model)
        assert read_reduced(tmp_path) is None
        assert [e.folder.name for e in entries_of(tmp_path)] == ["train", "shrink"]
        assert [s.name for s in read_version(tmp_path).networks] == ["shrink", "train"]
    for model in ("shrink", "/".join(("runs", *tmp_path.parts[-2:], "shrink/points/03"))):
        config.write_text(f"model: {model}")
        assert read_reduced(tmp_path) == Reduced("shrink", shipped=True)
    assert [e.folder.name for e in entries_of(tmp_path)] == ["shrink", "train"]
    assert [s.name for s in read_version(tmp_path).networks] == ["train"]
    (tmp_path / "train" / "model.pt").unlink()  # as long as that training runs
    assert [s.name for s in read_version(tmp_path).networks] == ["shrink", "train"]


def test_a_damaged_note_is_none(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"stage": "else"}'):
        (tmp_path / "reduced.json").write_text(text)
        assert read_reduced(tmp_path) is None


@pytest.fixture
def narrow(tmp_path: Path) -> Path:
    """A ResNet-8 for digits that three channels were cut from, saved."""
    bundle = load_bundle(compose_train(), find_device("cpu"))
    network = describe_network("resnet8", compose_train().train, tmp_path, bundle, width=8)
    model = network.make().eval()
    group = find_groups(model, bundle.input_shape)[0]
    remove_channels(model, bundle.input_shape, {group.root: [0, 1, 2]})
    path = tmp_path / "runs" / "a" / "V001" / "prune" / "model.pt"
    path.parent.mkdir(parents=True)
    save_model(path, model, network.meta)
    return path


def compose_train(*overrides: str) -> TrainStage:
    with session():
        return compose("train", ["data=digits", "device=cpu", "train.epochs=1", *overrides])


def shapes(path: Path) -> dict[str, Any]:
    return {name: tensor.shape for name, tensor in load_model(path)[0].state_dict().items()}


def test_a_saved_network_is_trained_on_with_its_widths_and_params(narrow: Path) -> None:
    version = narrow.parent.parent
    config = compose_train("model=prune", "train.learning_rate=1e-9", "train.warmup_epochs=0")
    result = train(config, version / "train")
    assert shapes(version / "train" / "model.pt") == shapes(narrow)
    before, after = (load_model(p)[0] for p in (narrow, version / "train" / "model.pt"))
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)
    assert result["params"] == sum(p.numel() for p in before.parameters())


def test_a_saved_network_of_other_inputs_is_refused(narrow: Path) -> None:
    config = compose_train("data=synthetic", f"model={narrow}")
    bundle = load_bundle(config, find_device("cpu"))
    with pytest.raises(ConfigError, match=r"takes samples of shape|was trained (for|on)"):
        find_network(config, narrow.parent.parent, bundle)


def test_a_pruning_that_was_stopped_while_it_was_tested_is_not_done_again(
    narrow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with session():
        config = compose(
            "prune",
            ["data=digits", "data.limit=200", "data.test_limit=50", "device=cpu", "logger=none",
             f"model={narrow}"],
        )  # fmt: skip
    pruned: list[Path] = []

    def prune_to_budget(
        model: Any, bundle: Any, *, folder: Path, meta: Any, **_: Any
    ) -> PruneResult:
        pruned.append(folder)
        ms = Timing(2.0, 2.0, 2.0, 5, "a clock in the tests")
        found = PruneResult(model, ms, ms.scaled(0.5), 1.0, device_seconds=3.0)
        Store(folder, meta).finish(found)
        return found

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prune_stage, "prune_to_budget", prune_to_budget)
    folder = narrow.parents[2] / "V002" / "prune"
    with monkeypatch.context() as patch:
        patch.setattr(prune_stage, "evaluate", stopped)
        with pytest.raises(KeyboardInterrupt):
            prune_stage.prune(config, folder)
    result = prune_stage.prune(config, folder)
    assert pruned == [folder]
    assert (result["speedup"], result["fine_tuning_seconds"]) == (2.0, 3.0)
    assert result["device_seconds"] < 3.0  # of the stand-in itself, which took no time
