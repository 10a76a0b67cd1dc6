"""What judges the demo: paired differences, the line through scaled rivals, calls that take turns."""

import json
import math
from argparse import Namespace

import numpy as np
import pytest

from benchmarks import demo_folds, demo_picture, picture
from benchmarks.demo_folds import FOLDS, HAND, OURS, write_fold, write_hand
from benchmarks.demo_judge import interleaved, line_at, paired, ratio
from darts_core.architecture import Architecture
from darts_core.bench.results import write_results
from darts_core.supernet import build, count


def test_a_paired_difference_and_its_error():
    ours, theirs = np.array([1.0, 1, 1, 0]), np.array([1.0, 0, 1, 1])
    gain, error = paired(ours, theirs)
    assert gain == 0
    # the differences are 0, 100, 0, -100
    assert error == pytest.approx(100 * math.sqrt(2 / 3) / 2)


def test_the_line_is_straight_in_log_time_and_ends_at_its_ends():
    small, middle, large = np.array([0.0, 0]), np.array([1.0, 0]), np.array([1.0, 1])
    rivals = [(4.0, large), (1.0, small), (2.0, middle)]
    assert line_at(0.5, rivals).tolist() == [0, 0]
    assert line_at(2.0, rivals).tolist() == [1, 0]
    assert line_at(2 * math.sqrt(2), rivals) == pytest.approx([1, 0.5])
    assert line_at(9.0, rivals).tolist() == [1, 1]


def test_a_ratio_is_taken_round_by_round():
    value, error = ratio([1.0, 2.0, 3.0], [2.0, 4.0, 3.0])
    assert value == 0.5
    assert error == pytest.approx(math.sqrt(1 / 12) / math.sqrt(3))


def test_all_calls_take_turns_in_every_round():
    seen = []
    calls = {name: (lambda name=name: seen.append(name)) for name in "ab"}
    found = interleaved(calls, rounds=4, seconds=0.0)
    assert {name: len(values) for name, values in found.items()} == {"a": 4, "b": 4}
    turns = [seen[i] for i in range(10, len(seen), 3)]
    assert len(turns) == 8
    assert all({*turns[i : i + 2]} == {"a", "b"} for i in range(0, 8, 2))


def test_the_folds_hold_every_image_once_for_the_test(tmp_path):
    whole, sizes = [], []
    for fold in range(FOLDS):
        with np.load(write_fold(fold, tmp_path, 3)) as held:
            sizes.append(len(held["y_test"]))
            assert len(held["y_train"]) + len(held["y_test"]) == 1797
            assert np.ptp(np.bincount(held["y_test"])) <= 3
            whole += [image.tobytes() for image in held["x_test"]]
    assert sorted(sizes) == [359, 359, 359, 360, 360]
    assert len(whole) == 1797


def _args(runs, **more):
    usual = {"runs": runs, "choosing": False, "only_time": False, "override": [], "batch": 32,
             "rounds": 3}  # fmt: skip
    return Namespace(**{**usual, **more})


def test_a_fold_judged_with_other_seeds_or_settings_is_refused(tmp_path):
    kept = tmp_path / "fold0" / "V001" / "judged.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps({"right": {}, "times": {"a": 1}}))
    assert demo_folds.judge(0, _args(tmp_path, choosing=True))["times"] == {"a": 1}
    with pytest.raises(SystemExit, match=r"holds results of .*=\[7, 200\], not \[20261127, 100\]"):
        demo_folds.judge(0, _args(tmp_path))
    with pytest.raises(SystemExit, match=r"overrides=\[\], not \['search.epochs=1'\]"):
        demo_folds.judge(0, _args(tmp_path, choosing=True, override=["search.epochs=1"]))


def test_a_fold_is_timed_again_at_another_batch_size(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(demo_folds.cli, "main", lambda words: given.append(words) or 0)
    monkeypatch.setattr(demo_folds, "exported", lambda version, data: {})
    monkeypatch.setattr(demo_folds, "times", lambda folders, batch, rounds: {"batch": batch})
    version = tmp_path / "fold1" / "V001"
    (version / "search").mkdir(parents=True)
    (version / "costs.json").write_text('{"trainings": {}}')
    (version / "search" / "result.json").write_text('{"text": "t"}')
    for batch in (32, 32, 1):
        found = demo_folds.judge(1, _args(tmp_path, batch=batch))
        assert found["times"] == {"batch": batch}
    # one run and one new timing; with the version that is read, or none
    assert len(given) == 2
    assert all("version=V001" in words for words in given)
    assert demo_folds.judge(1, _args(tmp_path, only_time=True))["times"] == {"batch": 32}
    with pytest.raises(
        SystemExit, match=r"fold2/V001 holds no finished run: --only-time needs one"
    ):
        demo_folds.judge(2, _args(tmp_path, only_time=True))
    assert not (tmp_path / "fold2").exists()


def test_networks_that_answer_every_image_alike_are_no_standard_error_apart():
    fold = {
        "right": {OURS: [1, 0, 1], "ResNet-8, width 4": [1, 0, 1]},
        "times": {OURS: {"onnx": [1.0]}, "ResNet-8, width 4": {"onnx": [2.0]}},
    }
    assert demo_folds.above_the_line([fold]) == {
        "points": 0.0, "paired_standard_error": 0.0, "in_standard_errors": None,
    }  # fmt: skip


def test_the_hand_drawn_network_has_three_convolutions_of_16_48_48(tmp_path):
    net = build(Architecture.from_yaml(write_hand(tmp_path)), channels=16, in_channels=1)
    convolutions = 9 * (16 + 16 * 48 + 48 * 48)
    assert count(net, (1, 8, 8)).params == convolutions + 2 * (16 + 48 + 48) + 490


def test_the_picture_shows_every_network_of_the_results(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(picture, "save_png", lambda figure, to: drawn.append(figure) or to)
    rows = [
        {"network": name, "n_images": 100, "accuracy": accuracy, "time_over_resnet8": time,
         "time_over_resnet8_by_fold": [0.9 * time, 1.2 * time]}
        for name, accuracy, time in (
            (OURS, 99.0, 0.3), (HAND, 99.5, 0.2),
            ("ResNet-8, width 16", 98.0, 1.0), ("ResNet-8, width 4", 97.0, 0.4),
        )
    ]  # fmt: skip
    path = write_results("demo-folds", rows, device="d", folder=tmp_path, notes={"folds": [0, 1]})
    demo_picture.draw(path, tmp_path / "demo.png")
    axes = drawn[0].axes[0]
    line = axes.lines[0]
    assert line.get_xdata().tolist() == [0.4, 1.0]
    assert line.get_ydata().tolist() == [97.0, 98.0]
    places = {container.lines[0].get_xdata()[0] for container in axes.containers}
    assert places == {0.3, 1.0, 0.4, 0.2}
    assert len(axes.get_legend().get_texts()) == 3
