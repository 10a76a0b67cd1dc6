"""Callbacks: what they are told, how they end a search and a training, resumes, errors."""

import logging

import pytest
import torch
from test_search import digits, small_net  # noqa: F401
from test_train_fit import TinyBundle, config, make

from darts_core.callbacks import Callback, Callbacks, EarlyStopping, EpochEnd, Snapshots
from darts_core.errors import ConfigError
from darts_core.metric import ACCURACY, Metric
from darts_core.models.weights import load_weights
from darts_core.search import SearchConfig, search
from darts_core.stages.callbacks import asking
from darts_core.strategies import FirstOrder
from darts_core.train import evaluate, fit


def ended(values, metric=ACCURACY, **settings):
    """After which epoch, from 1, early stopping gives a reason; None: never."""
    callback = EarlyStopping(**settings)
    rows = [{f"val_{metric.name}": value} for value in values]
    for count in range(1, len(rows) + 1):
        if callback.after_epoch(EpochEnd("train", None, None, metric, 9, rows[:count])):
            return count
    return None


def test_early_stopping_counts_epochs_since_the_best():
    assert ended([0.1, 0.2, 0.2, 0.1], patience=2) == 4
    assert ended([0.1, 0.2, 0.2, 0.3, 0.3, 0.3], patience=2) == 6
    assert ended([0.1, 0.2, 0.3, 0.4], patience=1) is None
    # too small an improvement is none
    assert ended([0.1, 0.11, 0.12, 0.13], patience=2, least=0.05) == 3
    assert ended([None, None, None], patience=1) is None
    error = Metric("mse", "minimize")
    assert ended([3.0, 2.0, 2.5, 2.6], error, patience=2) == 4
    assert ended([3.0, 2.0, 1.0], error, patience=1) is None


class Told(Callback):
    """Keeps what it is told; ends at an epoch."""

    def __init__(self, end=None):
        self.end, self.heard = end, []

    def start(self, stage, folder):
        self.heard.append(("start", stage))

    def after_epoch(self, now):
        self.heard.append((now.epoch, [row["epoch"] for row in now.history]))
        return "that is enough" if now.epoch == self.end else None


def test_a_training_ends_with_the_reason_and_a_resume_ends_at_once(tmp_path):
    told, path = Told(end=1), tmp_path / "checkpoint.pt"
    model = make()
    ask = asking(Callbacks({"mine": told}, "train", tmp_path), model, ACCURACY, 4)
    found = fit(model, TinyBundle(), config(), checkpoint=path, should_end=ask)
    assert found.ended == "mine: that is enough"
    assert (found.epochs, found.steps, len(found.history)) == (2, 12, 2)
    assert told.heard == [("start", "train"), (0, [0]), (1, [0, 1])]
    again = fit(make(), TinyBundle(), config(), checkpoint=path, should_end=ask)
    assert (again.ended, again.steps, again.val) == (found.ended, found.steps, found.val)
    assert told.heard[3:] == [(1, [0, 1])], "no epoch is run again"
    # left out, the same checkpoint goes on to the end
    whole = fit(make(), TinyBundle(), config(), checkpoint=path)
    assert (whole.ended, whole.epochs) == (None, 4)


def test_a_search_ends_with_what_it_has(digits, tmp_path):  # noqa: F811
    told, path = Told(end=1), tmp_path / "checkpoint.pt"
    settings = SearchConfig(epochs=4, batch_size=16)
    ask = asking(Callbacks({"mine": told}, "search", tmp_path), None, ACCURACY, 4)
    found = search(
        small_net(digits), FirstOrder(), digits, settings, checkpoint=path, should_end=ask
    )
    assert (found.stopped, len(found.history)) == ("mine: that is enough", 2)
    again = search(
        small_net(digits), FirstOrder(), digits, settings, checkpoint=path, should_end=ask
    )
    assert (again.stopped, again.architecture) == (found.stopped, found.architecture)
    assert told.heard[-1] == (1, [0, 1])
    # a reason behind the last epoch ends nothing
    short = SearchConfig(epochs=2, batch_size=16)
    whole = search(small_net(digits), FirstOrder(), digits, short, should_end=ask)
    assert (whole.stopped, len(whole.history)) == (None, 2)


def test_snapshots_are_state_dicts_and_the_newest_are_kept(tmp_path):
    model = make()
    ask = asking(
        Callbacks({"snapshots": Snapshots(every=1, keep=2)}, "train", tmp_path), model, ACCURACY, 4
    )
    fit(model, TinyBundle(), config(), should_end=ask)
    names = sorted(path.name for path in (tmp_path / "snapshots").iterdir())
    assert names == ["epoch-0003.pt", "epoch-0004.pt"]
    other = make()
    load_weights(other, tmp_path / "snapshots" / "epoch-0004.pt")
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_a_snapshot_is_of_the_network_that_was_judged_and_is_kept(tmp_path):
    model = make()
    ask = asking(
        Callbacks({"snapshots": Snapshots(every=2)}, "train", tmp_path), model, ACCURACY, 4
    )
    found = fit(model, TinyBundle(), config(ema=0.9), should_end=ask)
    other = make()
    load_weights(other, tmp_path / "snapshots" / "epoch-0002.pt")
    assert evaluate(other, TinyBundle()).loss == found.history[1]["val_loss"]
    load_weights(other, tmp_path / "snapshots" / "epoch-0004.pt")
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    # asking changes nothing of the training
    alone = make()
    fit(alone, TinyBundle(), config(ema=0.9))
    for name, value in model.state_dict().items():
        assert torch.equal(value, alone.state_dict()[name]), name


def test_what_somebody_puts_beside_the_snapshots_stays(tmp_path):
    place = tmp_path / "snapshots"
    place.mkdir()
    for name in ("epoch-0001-best.pt", "epoch-best.pt", "epoch-0001.pt.txt"):
        (place / name).write_text("mine")
    ask = asking(
        Callbacks({"snapshots": Snapshots(every=1, keep=1)}, "train", tmp_path), make(), ACCURACY, 4
    )
    ask([{"epoch": 0}])
    ask([{"epoch": 0}, {"epoch": 1}])
    assert sorted(path.name for path in place.iterdir()) == [
        "epoch-0001-best.pt",
        "epoch-0001.pt.txt",
        "epoch-0002.pt",
        "epoch-best.pt",
    ]


@pytest.mark.parametrize("method", ["start", "after_epoch", "finish"])
def test_an_error_of_a_callback_is_a_sentence_with_its_name(tmp_path, method):
    class Bad(Callback):
        pass

    def fails(*_):
        raise ValueError("out of order")

    setattr(Bad, method, fails)
    callbacks = Callbacks({"mine": Bad()}, "train", tmp_path)
    arguments = {"start": (), "after_epoch": (None, ACCURACY, 1, [{"epoch": 0}]), "finish": ({},)}
    with pytest.raises(
        ConfigError, match=r"callbacks\.mine fails .*ValueError: out of order"
    ) as told:
        getattr(callbacks, method)(*arguments[method])
    # a stage that has its result is not run again; a trial has none yet
    assert ("the result is kept" in str(told.value)) == (method == "finish")
    callbacks = Callbacks({"mine": Bad()}, "tune", tmp_path)
    with pytest.raises(ConfigError, match="run the same command again, which goes on"):
        getattr(callbacks, method)(*arguments[method])


def test_nobody_is_asked_where_there_is_none(tmp_path):
    assert asking(Callbacks({}, "train", tmp_path), None, ACCURACY, 1) is None


def test_early_stopping_says_once_that_val_is_not_measured(caplog):
    with caplog.at_level(logging.WARNING, "darts_core"):
        assert ended([None, None, None], patience=1) is None
        assert ended([0.5, None], patience=1) is None
        rows = ({"epoch": 0, "loss": 1.0},)
        EarlyStopping().after_epoch(EpochEnd("search", None, None, ACCURACY, 9, rows))
    assert [record.message for record in caplog.records] == [
        "early_stopping: val accuracy is not measured here, so nothing will be ended early",
        "early_stopping: val accuracy is not measured here, so nothing will be ended early; "
        "search.evaluate=true measures it",
    ]


def test_nobody_ends_what_has_come_to_its_end(tmp_path):
    told, path = Told(end=3), tmp_path / "checkpoint.pt"
    ask = asking(Callbacks({"mine": told}, "train", tmp_path), None, ACCURACY, 4)
    for _ in range(2):  # the second time from the checkpoint of the last epoch
        found = fit(make(), TinyBundle(), config(), checkpoint=path, should_end=ask)
        assert (found.ended, found.epochs) == (None, 4)
        assert told.heard[-1] == (3, [0, 1, 2, 3])
