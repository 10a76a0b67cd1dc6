"""evaluate: as many samples at once as fit, and what a task of somebody's own says of them."""

import math

import numpy as np
import pytest
import torch
from test_train_fit import TinyBundle, TinyNet, config, make
from torch import nn

from darts_core.errors import ConfigError, DataError
from darts_core.tasks import Classification, MultiLabel, NextToken, Regression
from darts_core.train import evaluate, fit
from darts_core.train.loop import _say_only_warm_up
from darts_core.train.told import _say, tell_activation


@pytest.fixture(autouse=True)
def nothing_told():
    """What is told once a process is told in each test."""
    _say.cache_clear()
    _say_only_warm_up.cache_clear()


def test_evaluate_counts_every_image_and_restores_the_mode():
    model = make().train()
    found = evaluate(model, TinyBundle(), ("val", "alpha"), batch_size=16)
    assert found.n == 44
    assert model.training
    assert evaluate(model, TinyBundle(), ("val", "alpha"), batch_size=7).accuracy == found.accuracy
    with pytest.raises(DataError, match="empty"):
        evaluate(model, TinyBundle(sizes={"val": 0}))


def test_an_evaluation_takes_as_many_samples_at_once_as_the_memory_holds():
    class Hungry(TinyNet):
        def forward(self, x):
            if len(x) > 12:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
            return super().forward(x)

    model = Hungry().train()
    found = evaluate(model, TinyBundle())
    assert (found.n, model.training) == (20, True)
    assert found.accuracy == evaluate(model, TinyBundle(), batch_size=8).accuracy
    # a training whose batches fit is not lost at its first evaluation
    assert fit(model, TinyBundle(), config(epochs=1)).val is not None

    class Starving(TinyNet):
        def forward(self, x):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        evaluate(Starving(), TinyBundle())


def test_a_network_that_gives_more_than_its_outputs_in_evaluation_is_a_sentence():
    class Telling(TinyNet):
        def forward(self, x):
            return super().forward(x), x

    with pytest.raises(ConfigError, match="In evaluation mode the network gives a tuple; it must"):
        evaluate(Telling(), TinyBundle())


def test_features_beside_the_outputs_are_no_auxiliary_head():
    class Embedding(TinyNet):
        def forward(self, x):
            return (super().forward(x), x.flatten(1)) if self.training else super().forward(x)

    # 16 values of an image would be taken for logits of 16 classes, of which two are right
    with pytest.raises(ConfigError, match=r"of shape \[8, 2\] and \[8, 16\]; .*auxiliary_weight=0"):
        fit(Embedding(), TinyBundle(), config(epochs=1))
    found = fit(Embedding(), TinyBundle(), config(epochs=1, auxiliary_weight=0.0))
    assert found.steps == 6


@pytest.mark.parametrize("ends", [None, "softmax"])
def test_a_network_that_ends_in_a_softmax_is_told(caplog, ends):
    class Shares(TinyNet):
        def forward(self, x):
            return super().forward(x).softmax(1) if ends else super().forward(x)

    fit(Shares(), TinyBundle(), config(epochs=2))
    told = "task=classification: the network's outputs sum to 1, as behind a softmax"
    assert caplog.text.count(told) == (ends is not None)


def test_labels_and_numbers_behind_an_activation_are_told(caplog):
    class Counts(Regression):
        """Of numbers that are never negative."""

        def loss(self, output, target, *, label_smoothing=0.0):
            return nn.functional.poisson_nll_loss(output, target, log_input=False)

    task, logits = MultiLabel(outputs=4, names=tuple("abcd")), torch.randn(32, 4)
    y, common = torch.zeros(32, 4), torch.ones(32, 4)
    y[0], common[:, 0] = math.nan, 0.0
    tell_activation(task, logits, y)
    tell_activation(task, logits[:8].sigmoid(), y[:8])  # too few to say
    tell_activation(task, logits.abs(), common)  # most samples have three of the four labels
    tell_activation(Regression(), logits, y)
    tell_activation(Regression(), logits.sigmoid(), y)  # as of a network that has learned little
    tell_activation(Regression(standardise=False), logits.relu(), y)
    tell_activation(Counts(), logits.relu(), y)
    tell_activation(Classification(), logits.sigmoid(), y[:, 0])
    assert "as behind" not in caplog.text
    for _ in range(2):  # as two trials of a study
        tell_activation(task, logits.sigmoid(), y)
        tell_activation(
            NextToken(), logits.reshape(8, 4, 4).softmax(-1), y.reshape(8, 4, 4)[..., 0]
        )
        tell_activation(Regression(), logits.relu(), y)
    for told in (
        "task=multi_label: the network's outputs are never below 0, as behind a",
        "task=next_token: the network's outputs sum to 1, as behind a softmax",
        "task=regression: the network's outputs are never below 0, as behind a",
    ):
        assert caplog.text.count(told) == 1


@pytest.mark.parametrize(("warmup", "told"), [(1.0, False), (2.0, True), (5.0, True)])
def test_a_training_that_is_all_warm_up_is_told(caplog, warmup, told):
    for _ in range(2):  # as two trials of a study
        fit(make(), TinyBundle(), config(epochs=2, warmup_epochs=warmup))
    assert caplog.text.count(f"train.warmup_epochs={warmup:g} of train.epochs=2") == told


class OfNumpy(Classification):
    """A task whose further metric is a number of numpy's, as scikit-learn gives it."""

    class Both:
        def __init__(self, meter):
            self.update, self.plain = meter.update, meter.result

        def result(self):
            found = self.plain()
            return {name: np.float64(value) for name, value in found.items()} | {
                "f1": np.float32(0.5)
            }

    def meter(self, device):
        return self.Both(super().meter(device))


def test_a_training_with_metrics_of_numpy_is_resumed(tmp_path):
    bundle, path = TinyBundle(), tmp_path / "checkpoint.pt"
    bundle.task = OfNumpy(outputs=2, names=("dark", "bright"))
    first = fit(make(), bundle, config(epochs=1), checkpoint=path)
    assert {type(value) for value in first.history[0].values()} == {int, float}
    again = fit(make(), bundle, config(epochs=1), checkpoint=path)
    assert again.history == first.history
    assert again.history[0]["val_f1"] == 0.5


class InPerCent(OfNumpy):
    """A task that forgot to say that its accuracy is no share."""

    name = "in_per_cent"

    class Both(OfNumpy.Both):
        def result(self):
            return {"accuracy": 100 * self.plain()["accuracy"]}


def test_an_accuracy_in_per_cent_is_told_once(caplog):
    bundle = TinyBundle()
    for task in (OfNumpy, InPerCent, InPerCent):
        bundle.task = task(outputs=2, names=("dark", "bright"))
        found = evaluate(make(), bundle)
        assert (found.value > 1) == (task is InPerCent)
    assert caplog.text.count("task=in_per_cent gives values of accuracy outside 0..1") == 1


class AlsoTheLoss(InPerCent):
    """A task whose further metric would stand in `val_loss` and `test_loss`, where its loss does."""

    name = "also_the_loss"

    class Both(OfNumpy.Both):
        def result(self):
            return {**self.plain(), "loss": 0.5}


def test_a_further_metric_called_loss_is_refused_before_a_training_ends_by_it():
    bundle = TinyBundle()
    bundle.task = AlsoTheLoss(outputs=2, names=("dark", "bright"))
    with pytest.raises(ConfigError, match="task=also_the_loss calls a metric 'loss'"):
        fit(make(), bundle, config(epochs=2))


def test_a_part_that_is_held_in_evaluation_mode_stays_in_it():
    model = nn.Sequential(make(), nn.BatchNorm1d(2)).train()
    model[1].eval()  # as whoever fine-tunes holds norms fast
    evaluate(model, TinyBundle())
    assert [module.training for module in (model, model[0], model[1])] == [True, True, False]


def test_a_training_gives_the_random_numbers_back_and_takes_one_split_by_its_name():
    model = make()
    before = torch.get_rng_state()
    found = fit(model, TinyBundle(), config(epochs=1), train_on="params")
    # the network that a caller makes next is another one than after any other training
    assert torch.equal(torch.get_rng_state(), before)
    assert found.steps == 3
