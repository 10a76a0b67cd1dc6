"""What judges contestants at three latency budgets: equal time, paired summaries, words for the command."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks import elastic_case, three_budgets
from benchmarks.elastic import area
from benchmarks.three_budgets import RECIPE, TRIED, Contest, summary
from darts_core.commands.compose import compose, session
from darts_core.latency import turns as turns_module
from darts_core.runlog import read_json, write_json
from darts_core.stages.inputs import load_bundle


def _case(folder: Path) -> Contest:
    return Contest(7, folder, ("data=digits",), "convnet", 10, 4.0, 2, ())


def _contestant(hypervolume: float, *points: tuple[float, float]) -> dict:
    return {
        "hypervolume": hypervolume,
        # val prefers what test does not
        "points": [
            {"share": share, "metric": metric, "val_metric": 1.0 - metric}
            for share, metric in points
        ],
    }


def test_what_is_tried_is_one_word_of_yaml_for_the_command_line():
    for how in TRIED.values():
        word = three_budgets._flow(how)
        assert " " not in word
        assert yaml.safe_load(word.replace(":", ": ")) == how


def test_what_is_trained_and_judged_here_has_the_images_of_the_commands(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(three_budgets.cli, "main", lambda words: given.append(words) or 0)
    case = _case(tmp_path)
    case.run("train", "once")
    with session():
        config = compose("train", given[0][1:])
    commands, ours = load_bundle(config, torch.device("cpu")), case.bundle()
    for split in ("params", "alpha", "val", "test"):
        x, y = next(iter(commands.batches(split, 64, seed=0, epoch=0)))
        found_x, found_y = next(iter(ours.batches(split, 64, seed=0, epoch=0)))
        assert torch.equal(x, found_x)
        assert torch.equal(y, found_y)


def test_networks_share_the_time_that_choosing_and_tuning_left(tmp_path, monkeypatch):
    """Four trainings of 100 s; 30 s of choosing, 70 s of tuning with 1 s an epoch: 100 s a network."""
    epochs = {}

    def trained(self, job, number, *words, **settings):
        assert settings == {"learning_rate": 0.2}
        epochs[job] = number
        return tmp_path / job, 10.0

    monkeypatch.setattr(Contest, "once", lambda self: (tmp_path, 100.0))
    monkeypatch.setattr(
        Contest, "tuned", lambda self, job, *words: ({"learning_rate": 0.2}, 70.0, 1.0)
    )
    monkeypatch.setattr(Contest, "trained", trained)
    nets = [torch.nn.Flatten() for _ in range(3)]
    entries = [three_budgets._Entry((name,), net) for name, net in zip("abc", nets, strict=True)]
    # a step of the second takes half of the first's, one of the third a quarter
    steps = dict(zip(nets, (0.4, 0.2, 0.1), strict=True))
    monkeypatch.setattr(three_budgets, "_step_seconds", lambda net, _: steps[net])
    three_budgets._tuned_once(_case(tmp_path), "ours", entries, 30.0, tuned=2)
    assert epochs == {"ours0": 25, "ours1": 50, "ours2": 100}
    found = three_budgets._tuned_once(_case(tmp_path), "scaled", entries, 30.0)
    assert [epochs[f"scaled{number}"] for number in range(3)] == [100, 200, 400]
    assert found["seconds"] == {"choosing": 30.0, "tune": 70.0, "train": 30.0}
    assert found["networks"] == [str(tmp_path / f"scaled{number}") for number in range(3)]


def test_gains_are_paired_by_seed_and_what_counts_within_a_budget_is_the_best_on_val():
    rows = [
        {
            "ours": _contestant(0.6, (0.5, 0.95), (0.25, 0.91), (0.1, 0.8)),
            "scaled": _contestant(0.5, (0.4, 0.9), (0.2, 0.7), (0.12, 0.6)),
            "random": _contestant(0.7, (0.4, 0.9)),
            "reference": _contestant(0.0, (1.0, 0.9)),
        },
        {
            "ours": _contestant(0.8, (0.4, 0.95), (0.1, 0.9)),
            "scaled": _contestant(0.5, (0.4, 0.9), (0.2, 0.7), (0.12, 0.6)),
        },
    ]
    found = summary(rows)
    # 0.1 and 0.3: their mean, and half of their difference
    scaled = found["hypervolume_more_than_scaled"]
    assert (scaled["mean"], scaled["standard_error"]) == pytest.approx((0.2, 0.1))
    assert found["hypervolume_more_than_random"]["mean"] == pytest.approx(-0.1)
    # val prefers 0.8 to 0.91 and to 0.95, 0.9 to 0.95, and of scaled always 0.6
    more = {key: value["mean"] for key, value in found["metric_more_than_scaled"].items()}
    assert more == pytest.approx({"0.5": 0.25, "0.25": 0.25, "0.125": 0.25})
    # a contestant without a network within a budget has nothing there
    assert found["metric_more_than_random"]["0.25"]["mean"] == pytest.approx(0.8)
    # only the first seed has a reference
    assert found["quarter_minus_resnet18"] == {
        "mean": pytest.approx(-0.1),
        "standard_error": None,
        "n": 1,
    }
    assert set(summary([{"ours": rows[0]["ours"]}], (0.25,))) == {"quarter_minus_resnet18"}


def test_a_stage_runs_once_and_its_processor_seconds_are_kept(tmp_path, monkeypatch):
    calls = []

    def main(words):
        calls.append(words)
        folder = tmp_path / "seed7" / "job" / "V001" / "train"
        folder.mkdir(parents=True)
        write_json(folder / "result.json", {})
        return 0

    monkeypatch.setattr(three_budgets.cli, "main", main)
    case = _case(tmp_path)
    at, seconds = case.trained("job", 3, "architecture=resnet8", learning_rate=0.3)
    assert case.trained("job", 3, "architecture=resnet8", learning_rate=0.3) == (at, seconds)
    assert len(calls) == 1
    words = calls[0]
    assert {"train.epochs=3", "train.learning_rate=0.3", "seed=7", "data.seed=7"} <= set(words)
    assert f"train.weight_decay={RECIPE['weight_decay']}" in words
    assert read_json(tmp_path / "seed7" / "seconds" / "job-train.json")["seconds"] == seconds


def test_a_stage_that_fails_ends_the_benchmark_with_its_status(tmp_path, monkeypatch):
    monkeypatch.setattr(three_budgets.cli, "main", lambda words: 2)
    with pytest.raises(SystemExit) as error:
        _case(tmp_path).trained("job", 3)
    assert error.value.code == 2
    assert not (tmp_path / "seed7" / "seconds" / "job-train.json").exists()


@pytest.mark.parametrize(("budget", "width"), [(0.5, 48), (0.01, 16)])
def test_the_widest_form_within_the_budget_or_the_searched_one_takes_part(
    budget, width, tmp_path, monkeypatch
):
    entered = []

    def tuned(case, name, entries, spent):
        entered.extend(entries)
        return {"seconds": {"tune": 1.0}}

    case = replace(_case(tmp_path), budgets=(budget,))
    monkeypatch.setattr(three_budgets.Architecture, "from_yaml", lambda place: "found")
    monkeypatch.setattr(Contest, "bundle", lambda self: None)
    # a network's share is a hundredth of its channels
    monkeypatch.setattr(Contest, "built", lambda self, *_: torch.nn.Conv2d(1, self.channels, 1))
    monkeypatch.setattr(Contest, "share", lambda self, model: model.out_channels / 100)
    monkeypatch.setattr(three_budgets, "_tuned_once", tuned)
    found = three_budgets._widest(case, "ours", tmp_path / "a.yaml", 5.0)
    assert found["widths"] == [width]
    assert f"train.channels={width}" in entered[0].words
    assert entered[0].network.out_channels == width


def test_shares_are_medians_of_ratios_of_samples_taken_in_turn(monkeypatch):
    asked = []

    def in_turn(*calls, rounds, **_):
        asked.append((len(calls), rounds))
        assert all(call() is not None for call in calls)
        # the pace changes by the round, and one sample was interrupted
        return [
            (1.0, 4.0, 8.0),
            (2.0, 8.0, 16.0),
            (9.0, 6.0, 12.0),
            (1.0, 4.0, 8.0),
            (1.1, 4.0, 8.0),
        ]

    monkeypatch.setattr(turns_module, "in_turn", in_turn)
    small, middle, large = (torch.nn.Conv2d(1, n, 3) for n in (2, 3, 4))
    assert elastic_case.shares_in_turn([small, middle], large, (1, 8, 8), 5) == [0.125, 0.5]
    assert asked == [(3, 5)]


def test_what_is_kept_with_other_settings_is_no_result_of_these(tmp_path, monkeypatch):
    monkeypatch.setattr(Contest, "once", lambda self: (tmp_path, 1.0))
    monkeypatch.setattr(three_budgets, "ours", lambda case: pytest.fail("run anew"))
    words = ["--seeds", "0", "--only", "ours", "--runs", str(tmp_path), "--out", str(tmp_path)]
    point = {"share": 0.1, "metric": 0.9, "val_metric": 0.9}
    for name in ("ours", "ours-judged"):
        write_json(
            tmp_path / "seed400" / f"{name}.json", {"points": [point], "trainings": 4.0, "x": 1}
        )
    monkeypatch.setattr(Contest, "bundle", lambda self: type("Data", (), {"size": lambda *_: 10})())
    monkeypatch.setattr(three_budgets, "device_name", lambda _: "d")
    three_budgets.main([*words, "--epochs", "12", "--budgets", "0.25", "0.5"])
    (path,) = tmp_path.glob("three-budgets_*.json")
    notes = read_json(path)["notes"]
    assert (notes["epochs"], notes["budgets"], notes["space"]) == (12, [0.5, 0.25], "convnet_deep")
    with pytest.raises(SystemExit, match="holds results of epochs=12, not 20"):
        three_budgets.main([*words, "--budgets", "0.5", "0.25"])


def test_all_that_was_judged_is_timed_again_in_one_go(tmp_path, monkeypatch):
    case, asked = _case(tmp_path), []
    for name, number in {"ours": 1, "scaled": 2}.items():
        places = [str(tmp_path / f"{name}{index}") for index in range(number)]
        write_json(case.folder / f"{name}.json", {"networks": places})
        points = [{"share": 0.2, "metric": 0.9, "val_metric": 0.91} for _ in places]
        write_json(
            case.folder / f"{name}-judged.json", {"points": points, "hypervolume": 0.0, "x": 1}
        )

    def shares(self, models, rounds):
        asked.append([path.parent.name for path in models])
        return [0.1 * (1 + index) for index in range(len(models))]

    class Model(type(tmp_path)):
        def eval(self):
            return self

    monkeypatch.setattr(three_budgets, "load_model", lambda path: (Model(path), {}))
    monkeypatch.setattr(Contest, "shares", shares)
    with pytest.raises(SystemExit, match=r"random-judged\.json is missing"):
        three_budgets.timed_again(case, ["ours", "random"])
    three_budgets.timed_again(case, ["ours", "scaled"])
    three_budgets.timed_again(case, ["ours", "scaled"])  # the first share stays
    assert asked == [["ours0", "scaled0", "scaled1"]] * 2
    found = {name: read_json(case.folder / f"{name}-judged.json") for name in ("ours", "scaled")}
    assert [p["share"] for p in found["ours"]["points"]] == [0.1]
    assert [p["share"] for p in found["scaled"]["points"]] == pytest.approx([0.2, 0.3])
    assert all(p["first_share"] == 0.2 for name in found for p in found[name]["points"])
    assert found["ours"]["x"] == 1
    assert found["ours"]["hypervolume"] == pytest.approx(area(found["ours"]["points"], 0.8))
