"""The spoken digits' fronts: every speaker is left out in turn, and their mean is what the aims read."""

import numpy as np
import pytest

from benchmarks import elastic_speakers
from benchmarks.elastic_aims import half_over_speakers
from benchmarks.elastic_speakers import over_speakers
from darts_core.bench.results import read_results


@pytest.fixture
def words(tmp_path):
    """Of the command line, for recordings of three speakers."""
    random = np.random.default_rng(0)
    path = tmp_path / "spoken_digits.npz"
    np.savez(
        path, x=random.integers(-9999, 9999, (6, 1, 3200), dtype=np.int16), y=np.arange(6) % 2,
        group=np.arange(6) % 3, groups=np.array(["ann", "bob", "cay"]), classes=np.array(["0", "1"]),
    )  # fmt: skip
    return ["--recordings", str(path), "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]


@pytest.fixture
def rows(monkeypatch):
    """Speaker -> the case that was run with it left out; nothing is trained."""
    seen = {}

    def row(case, who):
        seen[who] = case
        return {"left_out": who, "half_minus_base": {"ann": -0.02, "bob": 0.0, "cay": -0.01}[who]}

    monkeypatch.setattr(elastic_speakers, "speaker_row", row)
    return seen


def test_every_speaker_is_left_out_in_turn(words, rows, tmp_path):
    words += ["--front", "0.75", "0.5", "--fine-tuning", "10", "--name", "spoken"]
    elastic_speakers.main(words)
    assert list(rows) == ["ann", "bob", "cay"]
    assert "data.leave_out=bob" in rows["bob"].data
    assert (rows["ann"].front, rows["ann"].fine_tuning) == ((0.75, 0.5), 10)
    assert len({case.folder for case in rows.values()}) == 3
    (path,) = tmp_path.glob("elastic_*_spoken.json")
    results = read_results(path)
    assert [row["left_out"] for row in results.rows] == ["ann", "bob", "cay"]
    reached = half_over_speakers(results)
    assert (reached.text, reached.met) == ("- 1.0 ± 0.6, the mean of 3", True)


def test_other_settings_need_a_folder_of_their_own(words, rows):
    elastic_speakers.main([*words, "--speakers", "cay"])
    assert list(rows) == ["cay"]
    with pytest.raises(SystemExit, match="fine_tuning=1, not 10"):
        elastic_speakers.main([*words, "--fine-tuning", "10"])


def test_a_mean_is_over_the_speakers_that_have_it():
    assert over_speakers([]) == {}
    one = over_speakers(
        [{"whole_minus_base": 0.1}, {"cost_in_trainings": 2.0, "whole_minus_base": 0.3}]
    )
    assert one["whole_minus_base"]["mean"] == pytest.approx(0.2)
    assert one["cost_in_trainings"] == {"mean": 2.0, "standard_error": None, "n": 1}
