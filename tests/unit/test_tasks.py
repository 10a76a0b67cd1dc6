"""Each task's loss, metric and outputs against numbers worked out independently."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, mean_absolute_error, r2_score
from torch.nn import functional

from darts_core.errors import ConfigError, DataError
from darts_core.metric import Metric
from darts_core.tasks import (
    IGNORED,
    TASKS,
    Classification,
    MultiLabel,
    NextToken,
    Regression,
    make_task,
    register_task,
    saved_task,
    task_for,
)
from darts_core.tasks.multi_label import average_precision


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def metered(task, output, target, parts=3):
    meter = task.meter(torch.device("cpu"))
    for some, wanted in zip(output.chunk(parts), target.chunk(parts), strict=True):
        meter.update(some, wanted)
    return meter.result()


def test_classification_is_plain_cross_entropy_and_accuracy_bit_for_bit():
    torch.manual_seed(0)
    output, target = torch.randn(37, 5), torch.randint(5, (37,))
    task = Classification().fitted(target.numpy(), tuple("abcde"))
    for smoothing in (0.0, 0.1):
        found = task.loss(output, target, label_smoothing=smoothing)
        assert torch.equal(
            found, functional.cross_entropy(output, target, label_smoothing=smoothing)
        )
    right = int((output.argmax(1) == target).sum())
    assert metered(task, output, target) == {"accuracy": right / 37}
    assert torch.equal(task.read(output), output.softmax(1))
    assert task.outputs == 5


def test_balanced_classes_weigh_by_the_inverse_of_their_share():
    target = torch.tensor([0] * 6 + [1] * 2)
    task = Classification(class_weights="balanced").fitted(target.numpy(), ("many", "few"))
    assert task.weights == (8 / 12, 2.0)
    output = torch.randn(8, 2)
    each = functional.cross_entropy(output, target, reduction="none")
    weight = torch.tensor(task.weights)[target]
    expected = (each * weight).sum() / weight.sum()
    assert torch.allclose(task.loss(output, target), expected)
    assert torch.allclose(task.summed_loss(output, target)[0], each.sum())


def test_a_class_that_params_lacks_weighs_as_the_rarest_there():
    task = Classification(class_weights="balanced")
    found = task.fitted(
        np.repeat([0, 1], [30, 10]), ("a", "b", "c")
    )  # c is in the alpha split alone
    assert found.weights == pytest.approx((40 / 90, 40 / 30, 40 / 30))


def test_mean_average_precision_is_scikit_learn_s(rng):
    output = torch.from_numpy(rng.normal(size=(50, 4)))
    target = torch.from_numpy((rng.random((50, 4)) < 0.3).astype(np.float32))
    for label in range(4):
        expected = average_precision_score(target[:, label], output[:, label])
        assert float(average_precision(output, target)[label]) == pytest.approx(expected, abs=1e-6)
    target[:, 2] = 0  # no sample has it: it says nothing
    target[::7, 0] = math.nan
    kept = ~target[:, 0].isnan()
    expected = [
        average_precision_score(target[kept, 0], output[kept, 0]),
        average_precision_score(target[:, 1], output[:, 1]),
        average_precision_score(target[:, 3], output[:, 3]),
    ]
    found = metered(MultiLabel().fitted(target.numpy(), tuple("abcd")), output, target)
    assert found["mean_average_precision"] == pytest.approx(np.mean(expected), abs=1e-6)
    right = ((output > 0) == (target > 0.5))[~target.isnan()].float().mean()
    assert found["label_accuracy"] == pytest.approx(float(right))


def test_a_label_that_does_not_count_leaves_loss_and_gradient_alone(rng):
    task = MultiLabel()
    output = torch.from_numpy(rng.normal(size=(6, 3))).requires_grad_()
    target = torch.from_numpy((rng.random((6, 3)) < 0.5).astype(np.float32))
    target[1, 2] = math.nan
    counted = ~target.isnan()
    expected = functional.binary_cross_entropy_with_logits(
        output[counted], target[counted].double()
    )
    loss = task.loss(output, target)
    assert torch.allclose(loss, expected)
    loss.backward()
    assert float(output.grad[1, 2]) == 0
    assert torch.isfinite(output.grad).all()


def test_regression_learns_standardised_targets_and_answers_in_their_unit(rng):
    values = (1000 + 50 * rng.normal(size=(40, 2))).astype(np.float32)
    task = Regression().fitted(values, ("height", "width"))
    assert task.mean == pytest.approx(values.astype(float).mean(0))
    assert task.std == pytest.approx(values.astype(float).std(0))
    target = torch.from_numpy(values)
    perfect = (target.double() - torch.tensor(task.mean)) / torch.tensor(task.std)
    assert float(task.loss(perfect, target)) == pytest.approx(0, abs=1e-9)
    output = perfect.float() + torch.from_numpy(rng.normal(size=(40, 2))).float()
    answer = task.read(output).numpy()
    found = metered(task, output, target)
    assert found["r2"] == pytest.approx(r2_score(values, answer), abs=1e-5)
    assert found["mae"] == pytest.approx(mean_absolute_error(values, answer), rel=1e-5)
    assert float(task.score(torch.zeros(40, 2), target)) == pytest.approx(0, abs=1e-6)


def test_a_number_that_does_not_count_leaves_loss_and_gradient_alone():
    task = Regression().fitted(np.array([[1.0], [3.0], [math.nan]], np.float32), ("y",))
    assert (task.mean, task.std) == ((2.0,), (1.0,))
    output = torch.tensor([[1.0], [5.0]], requires_grad=True)
    loss = task.loss(output, torch.tensor([[4.0], [math.nan]]))
    loss.backward()
    assert loss.item() == 1.0
    assert output.grad.tolist() == [[-2.0], [0.0]]


def test_a_column_of_which_a_split_knows_nothing_does_not_lower_r2(rng):
    target = torch.from_numpy(rng.normal(size=(40, 3))).float()
    output = target + torch.from_numpy(rng.normal(0, 0.3, (40, 3))).float()
    task = Regression(outputs=3, names=("a", "b", "c"), mean=(0.0,) * 3, std=(1.0,) * 3)
    target[:, 1] = math.nan
    known = r2_score(target[:, ::2].numpy(), output[:, ::2].numpy())
    assert metered(task, output, target)["r2"] == pytest.approx(known, abs=1e-5)
    # a column that is known and never varies counts as 0, as before
    target[:, 1] = 5.0
    assert float(task.score(output, target)) == pytest.approx(2 * known / 3, abs=1e-5)
    assert float(task.score(output, torch.full_like(target, math.nan))) == 0.0


def test_perplexity_is_the_exponential_of_the_mean_over_positions():
    torch.manual_seed(1)
    task = NextToken().fitted(np.zeros((2, 2), np.int64), tuple("abc"))
    output, target = torch.randn(6, 7, 3), torch.randint(3, (6, 7))
    target[2, 3:] = IGNORED
    counted = target != IGNORED
    each = -output.log_softmax(-1).gather(-1, target.clamp(min=0)[..., None])[..., 0]
    assert torch.allclose(task.loss(output, target), each[counted].mean())
    found = metered(task, output, target)
    assert found["perplexity"] == pytest.approx(math.exp(each[counted].double().mean()), rel=1e-6)
    guess = metered(task, torch.zeros(6, 7, 3), target)
    assert guess["perplexity"] == pytest.approx(3)


@pytest.mark.parametrize("name", ["classification", "multi_label", "next_token", "regression"])
def test_a_saved_description_makes_the_same_task_again(name):
    targets = {
        "class": np.arange(12) % 3,
        "labels": np.eye(12, 3),
        "number": np.arange(36.0).reshape(12, 3),
        "token": np.arange(12).reshape(4, 3) % 3,
    }
    task = make_task(name)
    values = task.converted(targets[task.takes[0]])
    fitted = task.fitted(values, ("a", "b", "c"))
    assert saved_task(fitted.describe(), "x.pt") == fitted
    assert type(task_for(task.takes[0])) is type(task)
    with pytest.raises(ConfigError, match=r"x.pt: Unknown value of task"):
        saved_task({**fitted.describe(), "more": 1}, "x.pt")


def test_what_is_unknown_is_a_sentence():
    with pytest.raises(ConfigError, match="Did you mean 'regression'"):
        make_task("regresion")
    with pytest.raises(ConfigError, match="Unknown option of task regression 'outputs'"):
        make_task("regression", {"outputs": 3})
    with pytest.raises(ConfigError, match=r"task.class_weights='equal'|class_weights"):
        make_task("classification", {"class_weights": "equal"})
    with pytest.raises(ConfigError, match="not registered here; name its module in plugins="):
        saved_task({"name": "mine"}, "model.pt")
    with pytest.raises(DataError, match="of 0 and 1"):
        MultiLabel().converted(np.array([[2.0, 1.0]]))


def test_equal_outputs_share_their_precision_whatever_order_they_stand_in(rng):
    target = torch.tensor([[1.0]] * 2 + [[0.0]] * 8)
    # a network that answers everything alike knows nothing: the share of those present
    for wanted in (target, target.flip(0)):
        assert float(average_precision(torch.zeros(10, 1), wanted)) == pytest.approx(0.2)
    output = torch.from_numpy(rng.integers(0, 4, (60, 3)).astype(np.float32))
    target = torch.from_numpy((rng.random((60, 3)) < 0.4).astype(np.float32))
    expected = [average_precision_score(target[:, i], output[:, i]) for i in range(3)]
    assert average_precision(output, target).tolist() == pytest.approx(expected, abs=1e-6)


def test_outputs_that_are_no_numbers_are_no_right_answers():
    # in the order of a folder: all of the first class, then the others
    target = torch.arange(40) // 20
    output = torch.full((40, 2), math.nan)
    task = Classification(outputs=2, names=("a", "b"))
    assert metered(task, output, target) == {"accuracy": 0.0}
    assert float(task.score(output, target)) == 0.0
    labels = MultiLabel(outputs=1, names=("a",))
    found = metered(labels, output[:, :1], 1.0 - target[:, None])
    assert math.isnan(found["mean_average_precision"])
    assert found["label_accuracy"] == 0.0
    # where no target counts nothing is asked
    some, unknown = (
        torch.tensor([[1.0], [-1.0], [math.nan]]),
        torch.tensor([[1.0], [0.0], [math.nan]]),
    )
    assert float(labels.score(some, unknown)) == 1.0


def test_a_batch_in_which_no_position_counts_has_no_loss_and_no_gradient():
    task = NextToken().fitted(np.zeros((2, 2), np.int64), tuple("abc"))
    output, target = torch.randn(2, 4, 3, requires_grad=True), torch.full((2, 4), IGNORED)
    for smoothing in (0.0, 0.1):
        loss = task.loss(output, target, label_smoothing=smoothing)
        (gradient,) = torch.autograd.grad(loss, output)
        assert (loss.item(), gradient.abs().max().item()) == (0.0, 0.0)
    assert task.score(output, target).item() == 1.0


def test_a_task_that_was_first_asked_in_inference_mode_still_trains():
    # shares that no other test has: what is made from them is kept for the process
    task = Classification(class_weights="balanced").fitted(np.array([0] * 17 + [1]), ("a", "b"))
    with torch.inference_mode():
        task.loss(torch.zeros(2, 2), torch.tensor([0, 1]))
    output = torch.zeros(2, 2, requires_grad=True)
    task.loss(output, torch.tensor([0, 1])).backward()
    assert torch.isfinite(output.grad).all()


def test_a_label_that_is_infinite_is_refused():
    with pytest.raises(DataError, match=r"needs targets \[N, L\] of 0 and 1"):
        MultiLabel().converted(np.array([[0.0, 1.0], [np.inf, 1.0]]))
    found = MultiLabel().converted(np.array([[0.0, 1.0], [np.nan, 1.0]]))
    assert np.isnan(found).tolist() == [[False, False], [True, False]]


def test_numbers_without_their_column_are_refused():
    target = torch.tensor([[1.0], [2.0], [4.0]])
    task = Regression().fitted(target.numpy(), ("price",))
    for asked in (task.loss, task.score, task.summed_loss, task.scores):
        with pytest.raises(
            ConfigError, match=r"outputs of shape \(3,\) for targets of shape \(3, 1\)"
        ):
            asked(torch.zeros(3), target)
    assert float(task.loss(torch.zeros(3, 1), target)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ("classification", "belongs to the task 'None'"),
        ({"name": ["classification"]}, "belongs to the task"),
        ({"name": "classification", "outputs": "ten"}, "'ten' outputs"),
        ({"name": "next_token", "outputs": 2, "names": "ab"}, "called 'ab'"),
    ],
)
def test_a_damaged_description_is_a_sentence(described, words):
    with pytest.raises(ConfigError, match=rf"m\.pt.*{words}"):
        saved_task(described, "m.pt")


def test_a_metric_is_not_called_like_the_loss_that_stands_beside_it():
    class ByItsLoss(Classification):
        metric = Metric("loss", "minimize")

    with pytest.raises(ConfigError, match="task=by_its_loss calls a metric 'loss'"):
        register_task("by_its_loss", description="judged by its loss")(ByItsLoss)
    assert "by_its_loss" not in TASKS
