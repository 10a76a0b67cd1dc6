"""What judges an elastic front against its rivals: areas, budgets, shares of a cost, Torch-Pruning's cut."""

import math
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from benchmarks import elastic, elastic_rivals, elastic_whole, picture
from benchmarks.elastic import (
    LEAST,
    WORST_SHARE,
    again,
    ahead,
    ahead_of,
    area,
    at_budgets,
    best_together,
    compared,
    forget_again,
    retimed,
    summary,
)
from benchmarks.elastic_case import RECIPE, Case, bundle_of, kept, train_config
from benchmarks.elastic_rivals import epochs_for, least_cut, step_share, taylor_cut
from benchmarks.elastic_whole import row_of
from benchmarks.front_picture import draw, series
from darts_core.bench.results import write_results
from darts_core.commands.compose import compose, session
from darts_core.latency import turns
from darts_core.models.baselines import baseline
from darts_core.runlog import read_json, write_json
from darts_core.stages.inputs import load_bundle
from darts_core.supernet import count


def _point(share, metric, val=0.0):
    return {"share": share, "budget": share, "metric": metric, "val_metric": val}


def test_a_rivals_training_here_has_the_images_of_the_commands_whatever_the_seed():
    words = ("data=digits", "data.limit=300")
    with session():
        config = compose("train", [*words, "seed=7"])
    commands = load_bundle(config, torch.device("cpu"))
    ours = Case(7, Path(), words).bundle()
    assert ours.size("val") == bundle_of(words).size("val") > 0
    for split in ("params", "alpha", "val", "test"):
        x, y = next(iter(commands.batches(split, 32, seed=0, epoch=0)))
        found_x, found_y = next(iter(ours.batches(split, 32, seed=0, epoch=0)))
        assert torch.equal(x, found_x)
        assert torch.equal(y, found_y)
    divided = next(iter(bundle_of((*words, "data.seed=7")).batches("val", 32)))[0]
    assert not torch.equal(divided, next(iter(ours.batches("val", 32)))[0])


def test_the_hypervolume_is_the_area_over_log_time_that_the_points_dominate():
    assert area([]) == 0.0
    one = area([_point(0.5, 0.9)])
    assert one == pytest.approx((0.9 - LEAST) * math.log(WORST_SHARE / 0.5))
    two = area([_point(0.5, 0.9), _point(0.25, 0.8)])
    assert two == pytest.approx(one + (0.8 - LEAST) * math.log(0.5 / 0.25))
    # what another point dominates, or the reference does, adds nothing
    dominated = [_point(0.6, 0.85), _point(1.1, 0.99), _point(0.1, 0.4)]
    assert area([_point(0.5, 0.9), _point(0.25, 0.8), *dominated]) == pytest.approx(two)


def test_a_point_is_chosen_for_a_budget_on_val_not_on_test():
    points = [_point(0.7, 0.9, 0.80), _point(0.4, 0.95, 0.70), _point(0.3, 0.6, 0.75)]
    assert [p["share"] for p in at_budgets(points, [0.75, 0.5, 0.2])] == [0.7, 0.3]


def test_points_are_chosen_together_by_their_hypervolume_on_val():
    fast = _point(0.1, 0.5, 0.70)
    points = [_point(0.7, 0.6, 0.80), _point(0.4, 0.99, 0.70), _point(0.2, 0.5, 0.79), fast]
    # the best on val within 25 % is the slower one, but the faster one dominates more
    assert [p["share"] for p in at_budgets(points, [0.75, 0.25])] == [0.7, 0.2]
    assert [p["share"] for p in best_together(points, [0.75, 0.25])] == [0.2, 0.1]
    assert [p["share"] for p in best_together(points, [0.25, 0.05])] == [0.2]


def test_what_is_faster_than_anybody_was_asked_for_counts_no_more_than_that():
    bounded = area([_point(0.1, 0.9), _point(0.5, 0.95)], fastest=0.25)
    assert bounded == pytest.approx(area([_point(0.25, 0.9), _point(0.5, 0.95)]))
    assert area([_point(0.1, 0.0, val=0.9)], metric="val_metric") == pytest.approx(
        area([_point(0.1, 0.9)])
    )


def test_a_rival_is_compared_with_what_is_no_slower_and_best_on_val():
    ours = [_point(0.6, 0.9, 0.80), _point(0.3, 0.7, 0.75), _point(0.2, 0.8, 0.70)]
    theirs = [_point(0.5, 0.75), _point(0.25, 0.7), _point(0.6, 0.95), _point(0.1, 0.5)]
    found = ahead_of(ours, theirs)
    assert found[:3] == pytest.approx([-0.05, 0.1, -0.05])
    assert found[3] is None
    rows = [{"ahead_of": {"prune": found}}, {"ahead_of": {"prune": [0.02], "taylor": [None]}}, {}]
    over = ahead(rows)
    assert list(over) == ["prune"]
    assert over["prune"]["mean"] == pytest.approx(0.01)
    assert over["prune"]["n"] == 2


def test_all_points_are_timed_again_in_one_go(tmp_path, monkeypatch):
    """Ours and the rivals'; what is written takes these shares, and keeps the first ones."""
    case, asked = Case(0, tmp_path, ("data=digits",)), []
    front = case.folder / "front"
    write_json(front / "front.json", {"points": [{"folder": "points/01"}, {"folder": "points/02"}]})
    shares = {"points": [_point(1.0, 0.9), _point(0.5, 0.85)], "test_examples": 4}
    write_json(case.folder / "shares.json", shares)
    scaled = {"points": [{"budget": 0.5, "share": 0.4, "metric": 0.8}], "seconds_over_ours": 1.0}
    write_json(case.folder / "scaled.json", scaled)

    def load(path):
        return torch.nn.Identity(), {"image_shape": [1, 8, 8], "at": path.parent}

    def in_turn(models, base, shape, rounds):
        asked.append((len(models), list(shape), rounds))
        return [0.9, 0.6, 0.3]

    monkeypatch.setattr(elastic, "load_model", load)
    monkeypatch.setattr(elastic_rivals, "load_model", load)
    monkeypatch.setattr(elastic, "shares_in_turn", in_turn)
    monkeypatch.setattr(Case, "shrink", lambda self: front)
    monkeypatch.setattr(Case, "base", lambda self: front)
    found = again(case)
    assert found == {"shares": [0.9, 0.6], "scaled": [0.3]}
    assert asked == [(3, [1, 8, 8], 15)]
    write_json(case.folder / "again.json", found)
    row = summary(case)
    assert [point["share"] for point in row["shares"]["points"]] == [0.9, 0.6]
    assert row["scaled"]["points"][0]["first_share"] == 0.4
    assert row["hypervolume"]["scaled"] == pytest.approx(area([_point(0.3, 0.8)]))
    assert row["hypervolume"]["whole_front"] == pytest.approx(
        area([_point(0.9, 0.9), _point(0.6, 0.85)])
    )
    assert row["hypervolume"]["best_four"] == pytest.approx(area([_point(0.6, 0.85)]))
    assert row["hypervolume_bounded"] == {
        "ours": pytest.approx(area([_point(0.6, 0.85)])), "scaled": pytest.approx(area([_point(0.3, 0.8)])),
    }  # fmt: skip
    assert row["ours"]["points"][0]["share"] == 0.6  # chosen by what was asked for
    assert row["ahead_of"] == {"scaled": [None]}
    assert retimed({"seed": 0}) == {"seed": 0}
    forget_again(case)
    assert (case.folder / "again.json").is_file()
    write_json(case.folder / "prune.json", scaled)
    forget_again(case)  # a rival that came later is in no go with the others
    assert not (case.folder / "again.json").is_file()


def test_points_at_other_budgets_are_no_points_of_these(tmp_path, monkeypatch):
    monkeypatch.setattr(elastic, "rival", lambda case, name: {"points": list(case.budgets)})
    words = ["scaled", "--seeds", "0", "--runs", str(tmp_path), "--budgets"]
    elastic.main([*words, "0.5"])
    elastic.main([*words, "0.5"])
    with pytest.raises(SystemExit, match=r"results of budgets=\[0\.5\], not \[0\.25\]"):
        elastic.main([*words, "0.25"])
    # nor is ours compared at other budgets than they were given
    with pytest.raises(SystemExit, match=r"results of budgets=\[0\.5\], not \[0\.75, 0\.5, "):
        elastic.main(["write", "--seeds", "0", "--runs", str(tmp_path), "--out", str(tmp_path)])
    assert read_json(tmp_path / "seed0" / "scaled.json")["points"] == [0.5]


def test_differences_are_paired_over_the_seeds_that_have_both():
    rows = [
        {"hypervolume": {"ours": 1.0, "prune": 0.5, "taylor": 0.9}},
        {"hypervolume": {"ours": 2.0, "prune": 1.7, "whole_front": 2.5}},
        {},
    ]
    assert compared(rows[1:], "whole_front")["prune"]["mean"] == pytest.approx(0.8)
    found = compared(rows)
    assert found["prune"]["mean"] == pytest.approx(0.4)
    assert found["prune"]["standard_error"] == pytest.approx(0.1)
    assert found["taylor"] == {"mean": pytest.approx(0.1), "standard_error": None, "n": 1}
    assert "scaled" not in found
    bounded = [{"hypervolume_bounded": {"ours": 1.0, "taylor": 0.75}}, {"hypervolume": {"ours": 1}}]
    assert compared(bounded, of="hypervolume_bounded")["taylor"]["mean"] == pytest.approx(0.25)


def test_seconds_become_epochs_of_a_network_of_that_share():
    assert epochs_for(100.0, 10.0, 0.5) == 20
    assert epochs_for(1.0, 10.0, 1.0) == 1


def test_a_training_step_is_held_against_one_of_the_base_and_leaves_both_as_they_are(monkeypatch):
    now = [0.0]

    class Taking(torch.nn.Linear):
        seconds = 1.0

        def forward(self, x):
            now[0] += self.seconds
            return super().forward(x)

    monkeypatch.setattr(turns, "clock_in_turn", lambda device: lambda: now[0])
    model, base = Taking(4, 3), Taking(4, 3)
    base.seconds = 4.0
    before = [p.clone() for p in (*model.parameters(), *base.parameters())]
    batches = [(torch.randn(8, 4), torch.arange(8) % 3)]
    assert step_share(model, base, batches) == 0.25
    assert step_share(base, model, batches) == 4.0
    after = [*model.parameters(), *base.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_rival_that_was_stopped_goes_on_with_the_epochs_that_it_was_given(tmp_path, monkeypatch):
    measured, asked = iter([7, 9]), []

    def run(command, job, *words):
        asked.append(words)
        if len(asked) == 1:
            raise KeyboardInterrupt
        write_json(tmp_path / "result.json", {"test_accuracy": 0.9, "fine_tuning_seconds": 1.0})
        return tmp_path

    case = Namespace(
        folder=tmp_path, base=lambda: tmp_path, bundle=lambda: Namespace(without_test=lambda: None),
        run=run, share_of=lambda at: 0.5, timing_seconds=1.0,
    )  # fmt: skip
    monkeypatch.setattr(elastic_rivals, "load_model", lambda path: (None, {}))
    for name in ("take_batches", "taylor_ratio", "taylor_cut"):
        monkeypatch.setattr(elastic_rivals, name, lambda *_: None)
    monkeypatch.setattr(elastic_rivals, "allowance", lambda *_: next(measured))
    with pytest.raises(KeyboardInterrupt):
        elastic_rivals.by_prune(case, 0.5)
    assert elastic_rivals.by_prune(case, 0.5)["epochs"] == 7
    assert asked[0] == asked[1]


def test_the_least_cut_that_fits_is_found_and_cuts_channels():
    assert least_cut(lambda cut: True) == 0.0
    assert least_cut(lambda cut: cut >= 0.4) == pytest.approx(0.4, abs=0.01)
    torch.manual_seed(0)
    base = baseline("resnet8", 10, 1, 8).eval()
    batches = [(torch.randn(4, 1, 8, 8), torch.arange(4))]
    whole = count(base, (1, 8, 8)).params
    cut = taylor_cut(base, 0.5, batches)
    assert count(cut, (1, 8, 8)).params < 0.4 * whole
    assert cut(batches[0][0]).shape == (4, 10)
    assert count(base, (1, 8, 8)).params == whole


def test_what_is_there_is_not_made_again(tmp_path):
    made = []
    for _ in range(2):
        assert kept(tmp_path / "a" / "b.json", lambda: made.append(1) or {"x": 1}) == {"x": 1}
    assert made == [1]
    case = Case(3, tmp_path, ("data=digits", "data.limit=400"))
    assert case.folder == tmp_path / "seed3"
    assert case.bundle().name == "digits"


def test_a_recipe_s_row_holds_points_against_the_base_of_the_same_seed():
    def one(whole):
        return {"whole": whole, "middle": 0.8, "smallest": 0.7,
                "drawn": [0.6, 0.8], "process_seconds": 2.0}  # fmt: skip

    row = row_of("lr", {0: one(0.91), 1: one(0.88)}, {0: 0.9, 1: 0.9})
    assert row["whole"]["points"] == [pytest.approx(1.0), pytest.approx(-2.0)]
    assert row["whole"]["mean"] == pytest.approx(-0.5)
    assert row["drawn"]["mean"] == pytest.approx(-20.0)


def test_a_recipe_of_other_epochs_is_no_row_of_these(tmp_path, monkeypatch):
    found = {"whole": 0.9, "middle": 0.8, "smallest": 0.7, "drawn": [0.8], "process_seconds": 1.0}
    monkeypatch.setattr(elastic_whole, "bundle_of", lambda args, seed: None)
    monkeypatch.setattr(elastic_whole, "base_of", lambda args, seed, bundle: None)
    monkeypatch.setattr(elastic_whole, "evaluate", lambda *_: Namespace(value=0.85))
    monkeypatch.setattr(elastic_whole, "train", lambda *_: found)
    words = ["--recipes", "lr0.02", "--seeds", "10", "--runs", str(tmp_path / "runs"), "--out",
             str(tmp_path), "--elastic-epochs"]  # fmt: skip
    elastic_whole.main([*words, "2"])
    elastic_whole.main([*words, "2", "--judge", "test", "--seeds", "0"])
    with pytest.raises(SystemExit, match="holds results of elastic_epochs=2, not 8"):
        elastic_whole.main([*words, "8"])
    names = sorted(path.name.rpartition("_")[2] for path in tmp_path.glob("*.json"))
    assert names == ["2-epochs-test.json", "2-epochs-val.json"]


def test_a_results_file_that_is_the_last_word_is_no_place_for_the_picture(
    tmp_path, monkeypatch, capsys
):
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in files:
        path.write_text("{}")
    monkeypatch.setattr(sys, "argv", ["picture", *map(str, files)])
    with pytest.raises(SystemExit) as error:
        picture.run(lambda *paths, to: to.write_text("drawn"), None, most=9)
    assert error.value.code == 2
    assert f"which ends in .png: {files[1]} does not." in " ".join(capsys.readouterr().err.split())
    assert files[1].read_text() == "{}"


def test_the_picture_shows_every_network_that_was_measured(tmp_path):
    row = {
        "shares": {"points": [_point(1.0, 0.9), _point(0.5, 0.85)], "test_examples": 400},
        "taylor": {"points": [_point(0.5, 0.8)]},
        "whole": {"base": 0.91},
    }
    found = series([row, row])
    assert {name: len(points) for name, points in found.items()} == {
        "one elastic training": 4, "Torch-Pruning, Taylor": 2, "the given network": 2,
    }  # fmt: skip
    results = write_results("elastic", [row], device="here", folder=tmp_path)
    assert draw(results, to=tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_of_three_budgets_has_their_contestants(tmp_path, monkeypatch):
    row = {
        "ours": {"points": [_point(0.12, 0.9), _point(0.4, 0.91)]},
        "scaled": {"points": [_point(0.11, 0.88)]},
        "reference": {"points": [_point(1.0, 0.9)]},
    }
    found = series([row, row], "three-budgets")
    assert {name: len(points) for name, points in found.items()} == {
        "searched": 4, "ResNet-18, narrower": 2, "ResNet-18": 2,
    }  # fmt: skip
    results = write_results(
        "three-budgets", [row], device="here", folder=tmp_path, notes={"test_examples": 9}
    )
    assert draw(results, to=tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
    drawn = []
    monkeypatch.setattr(picture, "save_png", lambda figure, to: drawn.append(figure) or to)
    draw(results, results, to=tmp_path / "both.png")
    axes = drawn[0].axes[0]
    assert axes.get_title() == "here, 2 runs"
    assert sorted(len(one.lines[0].get_xdata()) for one in axes.containers) == [2, 2, 4]


def test_words_of_a_recipe_are_its_settings():
    config = train_config((*RECIPE, "train.optimizer=adamw"), epochs=3)
    assert (config.learning_rate, config.weight_decay, config.epochs) == (0.1, 5e-4, 3)
    assert (config.optimizer, config.batch_size, config.drop_path) == ("adamw", 64, 0.0)
