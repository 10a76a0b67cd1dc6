"""A study under random kills, for each runner and each storage, is the study that nobody killed."""

from __future__ import annotations

import json
import random
import sys

import pytest
from kills import EPOCHS, SPACE, check_books, kill_and_continue, settings, start_study, steps

from darts_core.study import run_study

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kills processes by /proc")


def _seed():
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    return seed


def _equal_to_an_unkilled_one(result, folder, trials, options):
    quiet = {**options, "storage": None, "workers": 1, "isolate": False}
    other = run_study(steps, SPACE, folder=folder, trials=trials, **quiet)
    assert [r.params for r in result.trials] == [r.params for r in other.trials]
    assert [r.value for r in result.trials] == [r.value for r in other.trials]
    assert result.best_number == other.best_number


def test_five_random_kills_lose_and_repeat_nothing(tmp_path):
    options = settings("child", None)
    done = kill_and_continue(
        lambda: start_study(tmp_path / "s", 30, options), kills=5, seed=_seed()
    )
    result = check_books(tmp_path / "s", 30, options)
    assert len(done) >= 1
    # a sitting that goes on from a checkpoint repeats no finished epoch
    for record in result.trials:
        starts = [int(line.split()[1]) for line in (record.folder / "sittings").open()]
        assert starts == sorted(starts)
    _equal_to_an_unkilled_one(result, tmp_path / "other", 30, options)


def test_random_kills_lose_no_promotion_and_repeat_no_epoch(tmp_path):
    options = settings("child", None, pruner="asha")
    assert kill_and_continue(lambda: start_study(tmp_path, 30, options), kills=4, seed=_seed())
    result = run_study(steps, SPACE, folder=tmp_path, trials=30, **options)
    assert [r.number for r in result.trials] == list(range(30))
    assert {r.state for r in result.trials} == {"complete", "pruned"}
    assert result.best_value == max(r.params["x"] for r in result.trials)
    assert result.spent["epochs"] == sum(r.epochs for r in result.trials) < 30 * EPOCHS
    for record in result.trials:
        rows = (record.folder / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(row)["epoch"] for row in rows] == list(range(record.epochs))
        assert not (record.folder / "lease.json").exists()


@pytest.mark.full
@pytest.mark.parametrize("runner", ["callable", "child"])
def test_random_kills_of_a_study(tmp_path, storage, runner):
    """34 kills for each of three storages: a hundred for each runner."""
    options = settings(runner, storage)
    options["study_name"] = f"kills-{runner}"
    trials = 100 if runner == "callable" else 200
    done = kill_and_continue(
        lambda: start_study(tmp_path / "s", trials, options), kills=34, seed=_seed()
    )
    print(f"{len(done)} kills")
    assert len(done) >= 20
    result = check_books(tmp_path / "s", trials, options)
    _equal_to_an_unkilled_one(result, tmp_path / "other", trials, options)
