"""Finalists: who gets into the pool, how it is halved, and that an interrupted halving ends the same."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from darts_core.data.load import load_data
from darts_core.errors import NonFiniteLossError
from darts_core.metric import Metric
from darts_core.report.finalists import finalists_html
from darts_core.report.read import StageRun
from darts_core.runlog import RunFolder, write_json
from darts_core.search import Doubt, SearchResult
from darts_core.search.finalists import (
    PICK,
    Finalist,
    Limits,
    _by_all,
    choose_pool,
    prior_of,
    shared_weights_of,
)
from darts_core.search.halving import Halving, Standing, best_first
from darts_core.settings import TrainConfig
from darts_core.spaces import ChoiceSpace, get_space
from darts_core.study.remote import changed_files, store_files
from darts_core.supernet import build, create_supernet, under_batch_statistics
from darts_core.tasks import NextToken

SPACE = ChoiceSpace.of("letters", {"a": [1, 2, 3], "b": [1, 2, 3]})


def letters(a, b):
    weights = {"a": np.eye(3)[[a - 1]], "b": np.eye(3)[[b - 1]]}
    return SPACE.discretize(weights)


def total(architectures):
    return [float(a.choice("a") + a.choice("b")) for a in architectures]


def sound(_):
    return True


def names(pool):
    return [(f.source, f.architecture.choice("a"), f.architecture.choice("b")) for f in pool]


def test_the_sources_take_turns_and_no_architecture_comes_twice():
    found = SearchResult(letters(1, 1), earlier=[letters(3, 3), letters(2, 2)])
    pool = choose_pool(found, SPACE, Limits(sound), {"the sum": total}, count=9, seed=0)
    shown = names(pool)
    assert shown[0] == (PICK, 1, 1)
    assert shown[1] == ("an earlier epoch", 3, 3)
    # 3, 3 has the largest sum and is there already
    assert shown[2] in {("the sum", 2, 3), ("the sum", 3, 2)}
    assert shown[3][0] == "a neighbour"
    assert shown[4] == ("an earlier epoch", 2, 2)
    assert len({pair[1:] for pair in shown}) == len(shown) == 9
    assert choose_pool(found, SPACE, Limits(sound), {"the sum": total}, count=3, seed=0) == pool[:3]


def test_what_a_guard_doubts_is_no_finalist():
    found = SearchResult(letters(1, 1), doubts=[Doubt("skips", "too many")])
    limits = Limits(lambda a: a.choice("a") != 1)
    pool = choose_pool(found, SPACE, limits, {"the sum": total}, count=9, seed=0)
    assert {a for _, a, _ in names(pool)} == {2, 3}
    assert len(pool) == 6


def test_what_is_above_the_budget_is_no_finalist_even_where_it_was_not_expected():
    measured = []

    def measure(architecture):
        cost = total([architecture])[0]
        measured.append(architecture)
        return cost if cost <= 4 else None

    found = SearchResult(letters(1, 1))
    limits = Limits(sound, lambda a: total([a])[0] <= 5, measured=measure)
    pool = choose_pool(found, SPACE, limits, {"the sum": total}, count=9, seed=0)
    assert {f.cost for f in pool} <= {2.0, 3.0, 4.0}
    assert len(pool) == 6
    assert len(measured) == len(set(measured)) == 8, "3, 3 is expected to be above it"


def test_random_finalists_fill_the_budget_where_there_are_such():
    found = SearchResult(letters(1, 1))
    for least, first in ((6, {(3, 3)}), (5, {(3, 3), (2, 3), (3, 2)}), (7, set())):
        limits = Limits(sound, fills=lambda a, least=least: total([a])[0] >= least)
        seen = []

        def ranked(drawn, seen=seen):
            # the random ones come first, then the neighbours
            seen[:] = seen or [(a.choice("a"), a.choice("b")) for a in drawn]
            return total(drawn)

        pool = choose_pool(found, SPACE, limits, {"the sum": ranked}, count=9, seed=0)
        assert set(seen[: len(first)]) == first
        assert len(seen) == len(set(seen)) == 9, "where few fill it, others follow"
        assert len(pool) == 9


def test_a_ranking_sees_the_better_half_of_the_one_before_and_both_order_the_neighbours():
    shown = []

    def product(drawn):
        shown.append({(a.choice("a"), a.choice("b")) for a in drawn})
        return [float(a.choice("a") * a.choice("b")) for a in drawn]

    rankings = {"the sum": total, "the product": product}
    pool = choose_pool(SearchResult(letters(1, 1)), SPACE, Limits(sound), rankings, count=9, seed=0)
    assert len(shown[0]) == 5
    assert {(3, 3), (2, 3), (3, 2)} < shown[0]
    assert shown[0].isdisjoint({(1, 1), (1, 2), (2, 1)})
    assert [f.source for f in pool[:4]] == [PICK, "the sum", "the product", "a neighbour"]
    assert names(pool)[1][1:] == (3, 3)
    assert names(pool)[2][1:] in {(2, 3), (3, 2)}
    assert sum(names(pool)[3][1:]) == 4, "the best that the product did not see"


def test_a_score_that_is_no_number_is_the_worst():
    def sums(architectures):
        return [float("nan") if a.choice("a") == 3 else total([a])[0] for a in architectures]

    near = [letters(a, b) for a in (3, 1, 2) for b in (1, 2)]
    ordered = [(a.choice("a"), a.choice("b")) for a in _by_all(near, {"the sum": sums})]
    assert ordered[0] == (2, 2)
    assert {a for a, _ in ordered[-2:]} == {3}
    found = SearchResult(letters(1, 1))
    pool = choose_pool(found, SPACE, Limits(sound), {"the sum": sums}, count=9, seed=0)
    by_sum = [a for source, a, _ in names(pool) if source == "the sum"]
    assert 3 not in by_sum[:3]


def test_equal_scores_share_their_place():
    # all alike but for the last one: the order in which they come decides nothing against the other ranking
    near = [letters(1, b) for b in (1, 2, 3)]
    rankings = {"one": lambda _: [0.0, 0.0, 1.0], "two": lambda _: [1.0, 0.0, 0.0]}
    assert [a.choice("b") for a in _by_all(near, rankings)] == [1, 3, 2]
    assert [a.choice("b") for a in _by_all(near[::-1], {"none": lambda _: [0.0] * 3})] == [3, 2, 1]


def test_architectures_with_the_same_network_count_once():
    limits = Limits(sound, identity=lambda a: a.choice("a"))
    pool = choose_pool(SearchResult(letters(1, 1)), SPACE, limits, {}, count=9, seed=0)
    assert len(pool) == 3


SIZES = {"channels": 2, "num_classes": 10, "in_channels": 1}


@pytest.fixture(scope="module")
def bundle():
    return load_data("digits", limit=160).without_test()


def stacks(count):
    rng = np.random.default_rng(0)
    return [Finalist(get_space("convnet").random(rng), "a test") for _ in range(count)]


def halving(bundle, folder, **changes):
    recipe = TrainConfig(epochs=4, batch_size=32, learning_rate=0.05, drop_path=0.0)
    made = {"seeds": 2, "seed": 3, "folder": folder, **changes}
    return Halving(lambda a: build(a, **SIZES), bundle, recipe, **made)


def standing(place, accuracy, loss, **more):
    return Standing(stacks(1)[0], place, {4: accuracy}, {4: loss}, **more)


def test_the_loss_tells_apart_what_the_metric_cannot():
    # of 400 examples the standard error of 0.99 is 0.005
    known = [standing(0, 0.985, 0.2), standing(1, 0.99, 0.3), standing(2, 0.984, 0.1)]
    assert [s.place for s in best_first(known, 4, 400)] == [0, 1, 2]
    assert [s.place for s in best_first(known, 4, 300)] == [2, 0, 1]
    assert [s.place for s in best_first(known, 4, 100_000)] == [1, 0, 2]
    perfect = [standing(0, 1.0, 0.3), standing(1, 0.999, 0.2)]
    assert [s.place for s in best_first(perfect, 4, 400)] == [1, 0], (
        "a share of 1 has an error, too"
    )


def test_a_finalist_without_a_metric_is_behind_those_that_have_one():
    r2 = Metric("r2")
    nan = float("nan")
    known = [standing(0, nan, 0.1, metric=r2), standing(1, 0.2, 0.3, metric=r2),
             standing(2, 0.9, 0.4, metric=r2), standing(3, nan, 0.05, metric=r2)]  # fmt: skip
    assert [s.place for s in best_first(known, 4, 400)] == [2, 1, 3, 0]


def test_another_metric_than_a_share_decides_and_the_loss_among_equals():
    error = Metric("rmse", direction="minimize")
    known = [standing(0, 2.0, 0.3, metric=error), standing(1, 2.0, 0.2, metric=error),
             standing(2, 1.9, 0.9, metric=error)]  # fmt: skip
    assert [s.place for s in best_first(known, 4, 10)] == [2, 1, 0]


def test_trainings_that_were_done_elsewhere_are_not_done_here(bundle, tmp_path):
    """Elsewhere: by another halving, which is sent what the folders hold."""
    finalists, asked = stacks(4), []
    near = halving(bundle, tmp_path / "near", seeds=1)(finalists)
    far = halving(bundle, tmp_path / "far", seeds=1)

    def ahead(trainings):
        asked.append([t.folder.parent.name for t in trainings])
        there = halving(bundle, tmp_path / "there", seeds=1)
        for training in trainings:
            place = tmp_path / "there" / training.folder.parent.name
            store_files(place, changed_files(training.folder, {}))
            there.up_to(replace(training, folder=place))
            store_files(training.folder, changed_files(place, {}))

    def never(architecture):
        raise AssertionError("trained here")

    far.ahead, far.make = ahead, never
    bracket = far(finalists)
    assert table(bracket) == table(near)
    assert [len(names) for names in asked] == [4, 2, 2]
    # what is known is not asked for again
    asked.clear()
    assert table(far(finalists)) == table(near)
    assert asked == [[], [], []]


def table(bracket):
    return [(s.accuracies, s.losses) for s in bracket.standings]


def test_the_worse_halves_end_early_and_the_best_of_the_last_rung_wins(
    bundle, tmp_path, monkeypatch
):
    steps, counted = [], []

    def noted(standings, epochs, examples):
        counted.append(examples)
        return best_first(standings, epochs, examples)

    monkeypatch.setattr("darts_core.search.halving.best_first", noted)
    bracket = halving(bundle, tmp_path, progress=lambda done, all: steps.append((done, all)))(
        stacks(4)
    )
    assert bracket.rungs == [1, 2, 4]
    trained = [len(s.accuracies) for s in bracket.standings]
    assert sorted(trained) == [1, 1, 3, 3]
    assert bracket.epochs == 2 * (2 * 1 + 2 * 4)
    assert steps[-1][0] == steps[-1][1] == bracket.epochs
    examples = bundle.size("val")  # each seed's network is judged on the same ones
    assert counted == [examples] * 3
    first = [s.place for s in best_first(bracket.standings, 1, examples)]
    assert {i for i, n in enumerate(trained) if n == 3} == set(first[:2])
    last = [bracket.standings[i] for i in first[:2]]
    assert bracket.winner == best_first(last, 4, examples)[0].place
    rows = list(RunFolder(tmp_path / "00" / "seed3", tensorboard=False).metrics())
    others = list(RunFolder(tmp_path / "00" / "seed4", tensorboard=False).metrics())
    mean = (rows[0]["val_accuracy"] + others[0]["val_accuracy"]) / 2
    assert bracket.standings[0].accuracies[1] == pytest.approx(mean)


@pytest.mark.parametrize(
    ("epochs", "rungs"), [(9, [2, 4, 9]), (8, [2, 4, 8]), (6, [1, 3, 6]), (3, [1, 3]), (1, [1])]
)
def test_finalists_are_compared_after_a_quarter_a_half_and_all_epochs(tmp_path, epochs, rungs):
    made = halving(None, tmp_path)
    assert replace(made, recipe=replace(made.recipe, epochs=epochs)).rungs() == rungs


def test_a_halving_that_was_interrupted_ends_as_one_that_was_not(bundle, tmp_path):
    whole = halving(bundle, tmp_path / "whole")(stacks(3))
    left = [5]

    def stop():
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    for _ in range(2):
        left[0] = 5
        with pytest.raises(KeyboardInterrupt):
            halving(bundle, tmp_path / "cut", on_epoch=stop)(stacks(3))
    again = halving(bundle, tmp_path / "cut")(stacks(3))
    assert table(again) == table(whole)
    assert (again.winner, again.epochs) == (whole.winner, whole.epochs)


def poisoned(bracket, bad):
    """The halving, in which the networks of one architecture begin with NaN."""

    def make(architecture):
        network = build(architecture, **SIZES)
        if architecture == bad:
            with torch.no_grad():
                next(network.parameters()).fill_(float("nan"))
        return network

    bracket.make = make
    return bracket


def test_a_finalist_that_diverges_is_left_out_and_the_others_go_on(bundle, tmp_path, caplog):
    caplog.set_level(logging.WARNING, logger="darts_core")
    finalists = stacks(4)
    first = poisoned(halving(bundle, tmp_path, seeds=1), finalists[1].architecture)(finalists)
    lost = first.standings[1]
    assert lost.diverged.startswith("The training loss became NaN at epoch 1, step 1 of ")
    assert lost.diverged.endswith("(seed 3)")
    assert "train.learning_rate" not in lost.diverged, "the setting is the search's"
    assert (lost.accuracies, lost.losses) == ({}, {})
    assert first.winner != 1
    # of the three that are left the better half goes on
    assert sorted(len(s.accuracies) for s in first.standings) == [0, 1, 3, 3]
    assert "finalist 2, from a test, is left out of the comparison" in caplog.text
    # called again it knows of it
    later = halving(bundle, tmp_path, seeds=1)
    later.make = lambda _: pytest.fail("trained again")
    later.ahead = lambda trainings: trainings and pytest.fail("asked for again")
    again = later(finalists)
    assert table(again) == table(first)
    assert [s.diverged for s in again.standings] == [s.diverged for s in first.standings]
    assert (again.winner, again.epochs) == (first.winner, first.epochs)


def scripted(bundle, folder, losses):
    """A halving whose trainings come out as a table says: by place and rung, None where one diverges."""
    bracket = halving(bundle, folder, seeds=1)

    def up_to(training):
        loss = losses[int(training.folder.parent.name)][training.rung]
        if loss is None:
            write_json(training.folder / "diverged.json", {"reason": "The loss became NaN"})
            return None
        return {"epoch": training.rung - 1, "val_accuracy": 1 - loss, "val_loss": loss}

    bracket.up_to = up_to
    return bracket


def test_where_all_that_were_left_diverge_the_best_that_went_out_goes_on(bundle, tmp_path):
    losses = [{1: 0.1, 2: None}, {1: 0.2, 2: None}, {1: 0.3, 2: 0.3, 4: 0.2}, {1: 0.4}]
    found = scripted(bundle, tmp_path, losses)(stacks(4))
    assert found.winner == 2
    assert [sorted(s.losses) for s in found.standings] == [[1], [1], [1, 2, 4], [1]]
    assert [s.diverged for s in found.standings[:3]] == ["The loss became NaN (seed 3)"] * 2 + [
        None
    ]


def test_a_halving_ends_only_where_no_finalist_is_left(bundle, tmp_path):
    nan = float("nan")
    one = scripted(bundle, tmp_path / "one", [{1: nan}, {1: 0.9, 2: 0.8, 4: 0.7}])(stacks(2))
    assert one.winner == 1
    assert one.standings[0].diverged == "Its loss on val is not finite after epoch 1 (seed 3)"
    with pytest.raises(NonFiniteLossError, match=r"No finalist is left.*search\.learning_rate"):
        scripted(bundle, tmp_path / "none", [{1: None}, {1: nan}])(stacks(2))


def test_rankings_score_every_architecture_and_leave_the_search_as_it_was(bundle):
    torch.manual_seed(0)
    supernet = create_supernet(get_space("convnet"), image_size=8, **SIZES)
    batches = list(bundle.batches("alpha", 32, seed=0, epoch=0))[:2]
    drawn = [finalist.architecture for finalist in stacks(6)]
    before = [alpha.clone() for alpha in supernet.alphas()]
    state = torch.get_rng_state()
    prior = prior_of(lambda a: build(a, **SIZES), batches[0])(drawn)
    shared = shared_weights_of(supernet.eval(), batches)(drawn)
    assert torch.equal(state, torch.get_rng_state())
    assert len(set(prior)) > 1
    assert sum(prior) == pytest.approx(2 * sum(range(6)))
    for finalist, found in zip(drawn, shared, strict=True):
        forward = under_batch_statistics(supernet, supernet.one_hot(finalist))
        right = [(forward(x).argmax(1) == y).float().mean().item() for x, y in batches]
        assert found == pytest.approx(np.mean(right))
    assert len(set(shared)) > 1
    assert not supernet.training
    assert all(torch.equal(a, b) for a, b in zip(before, supernet.alphas(), strict=True))


def test_language_models_are_ranked_by_their_own_loss_and_metric():
    torch.manual_seed(0)
    sizes = {"channels": 4, "num_classes": 5, "in_channels": 5}
    supernet = create_supernet(get_space("gpt_tiny"), input_shape=(9,), **sizes)
    rng = np.random.default_rng(0)
    drawn = [supernet.space.random(rng) for _ in range(3)]
    batches = [(torch.randint(5, (4, 9)), torch.randint(5, (4, 9)))]
    prior = prior_of(lambda a: build(a, **sizes), batches[0], NextToken())(drawn)
    assert sorted(prior) == [0, 1, 2]  # one proxy: there is no ReLU
    shared = shared_weights_of(supernet, batches, NextToken())(drawn)
    # perplexities, the lower the better
    assert [-100 < value < -1 for value in shared] == [True] * 3


def test_the_report_shows_the_bracket_the_winner_first(tmp_path):
    bracket = [
        {"source": "alphas", "architecture": "cell <a>", "cost": 0.1, "val_accuracy": {"1": 0.5}},
        {"source": "a neighbour", "architecture": "cell b", "cost": None,
         "val_accuracy": {"1": 0.25, "2": 0.75}, "val_loss": {"1": 0.9, "2": 0.625}},
    ]  # fmt: skip
    told = {"rungs": [1, 2], "winner": 1, "bracket": bracket, "seeds": 2, "device_seconds": 3.0}
    result = {"finalists": told, "cost": {"unit": "ms"}}
    shown = str(finalists_html(StageRun("search", tmp_path, result=result)))
    assert "expected cost, ms" in shown
    assert shown.index("a neighbour") < shown.index("alphas")
    assert "75.00" in shown
    assert "loss after 2" in shown
    assert "0.625" in shown
    assert "the loss decides" in shown
    assert "cell &lt;a&gt;" in shown
    assert "2 finalists" in shown
    assert "mean of 2 trainings" in shown
    assert str(finalists_html(StageRun("search", tmp_path, result={}))) == ""
