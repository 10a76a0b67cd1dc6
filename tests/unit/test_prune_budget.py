"""Pruning to a budget: kept, resumed, refused and told; saved networks rebuilt."""

import time

import pytest
import torch
from prune_cases import META, Data, by_macs, count_costs, darts, settled
from torch import nn

from darts_core.architecture import Architecture
from darts_core.errors import ConfigError, LatencyError, PruneError, ResumeError
from darts_core.latency import Timing
from darts_core.models.baselines import baseline
from darts_core.prune import prune_to_budget
from darts_core.prune.budget import budget_ms, check_budget
from darts_core.prune.finetune import share_of_epochs
from darts_core.prune.store import Store, named
from darts_core.train import TrainConfig, load_model

SMALLER = {**META, "build": {**META["build"], "layers": 2}}


def smaller(seed=0):
    """What `SMALLER` tells of; a fifth of the time of the usual one."""
    return darts(seed, layers=2)


@pytest.fixture(autouse=True)
def counted_costs(monkeypatch):
    count_costs(monkeypatch)


def killed(network, part, parts):
    """A fine-tuning that a kill ends in the second round; the first takes a second."""
    if part == 1:
        raise KeyboardInterrupt
    return 1.0


@pytest.mark.parametrize("structure", [False, True])
def test_budget_is_met_and_the_network_rebuilt(tmp_path, structure):
    model, data = darts(), Data()
    spec = {"channels": 4, "layers": 3, "num_classes": 3, "auxiliary": True}
    meta = {"architecture": Architecture.named("DARTS_V2").to_dict(), "build": spec}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = TrainConfig(
        epochs=2, batch_size=32, learning_rate=0.01, cutout=0, crop_padding=0, flip=False
    )
    result = prune_to_budget(
        model, data, budget="50%", batch=2, fit_config=config, timer=by_macs, folder=tmp_path,
        meta=meta, structure=structure, distillation=0.5,
    )  # fmt: skip
    assert result.after.median_ms == by_macs(result.model).median_ms
    assert result.after.median_ms <= 1.05 * result.budget_ms
    assert result.budget_ms == pytest.approx(0.5 * by_macs(model).median_ms)
    assert result.speedup > 1.9
    assert result.device_seconds > 0
    assert result.rounds
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    again, kept = load_model(tmp_path / "model.pt")
    torch.testing.assert_close(again(data.x), result.model(data.x))
    assert kept["build"]["auxiliary"] is False
    assert (tmp_path / "pruning.json").exists()
    assert not (tmp_path / "round.pt").exists()
    if not structure:
        assert result.replaced == {}


def test_interrupted_pruning_goes_on_behind_its_last_round(tmp_path):
    model, data = smaller(), Data()
    options = {
        "budget": "40%",
        "batch": 2,
        "timer": by_macs,
        "folder": tmp_path,
        "meta": SMALLER,
        "structure": False,
    }

    with pytest.raises(KeyboardInterrupt):
        prune_to_budget(model, data, tune=killed, **options)
    seen = []
    result = prune_to_budget(model, data, tune=lambda n, part, p: seen.append(part), **options)
    assert seen[0] == 1
    assert result.rounds[0]["round"] == 0
    assert result.before.median_ms == by_macs(model).median_ms
    assert result.after.median_ms <= 1.05 * result.budget_ms


def test_an_unfinished_pruning_of_another_network_or_budget_is_not_gone_on_with(tmp_path):
    def prune(model, budget, tune):
        return prune_to_budget(
            model, Data(), budget=budget, batch=2, timer=by_macs, folder=tmp_path, meta=SMALLER,
            structure=False, tune=tune,
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        prune(smaller(0), "40%", killed)
    for model, budget in ((smaller(1), "40%"), (smaller(0), "30%")):
        with pytest.raises(ResumeError, match=r"round\.pt is of an unfinished pruning of another"):
            prune(model, budget, lambda *_: None)


def test_whatever_a_network_keeps_has_a_part_in_its_name():
    torch.manual_seed(0)
    model, names = nn.Linear(3, 3).bfloat16(), set()
    for value in (None, torch.arange(10.0)[::2], torch.eye(3).to_sparse(), torch.tensor(True)):
        model.register_buffer("more", value)
        names |= {named(model, budget) for budget in ("50%", "40%", "50%")}
    assert len(names) == 8


def test_a_pruning_that_goes_on_at_another_pace_prunes_as_far_as_it_would_have(tmp_path):
    """The second sitting's device takes three times as long for everything."""
    model, pace = smaller(), [1.0]

    def timer(network):
        return by_macs(network).scaled(pace[0])

    options = {"budget": "40%", "batch": 2, "timer": timer, "folder": tmp_path, "meta": SMALLER,
               "structure": False}  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        prune_to_budget(model, Data(), tune=killed, **options)
    pace[0] = 3.0
    result = prune_to_budget(model, Data(), tune=lambda *_: None, **options)
    share = by_macs(result.model).median_ms / by_macs(model).median_ms
    assert 0.2 <= share <= 1.05 * 0.4
    assert result.budget_ms == pytest.approx(3 * 0.4 * by_macs(model).median_ms)
    assert result.after.median_ms == pytest.approx(3 * by_macs(result.model).median_ms)
    assert "met it" not in result.note


def test_a_small_reduction_is_not_taken_for_one_that_cannot_be_reached():
    """The first of two rounds asks for less than a clock can tell; the second must still come."""
    calls = []
    found = prune_to_budget(
        settled(smaller()), Data(), budget="93%", batch=2, timer=by_macs, rounds=2, structure=False,
        tune=lambda _, part, parts: calls.append((part, parts)),
    )  # fmt: skip
    assert found.after.median_ms <= 0.93 * 1.05 * found.before.median_ms
    assert found.after.median_ms < found.before.median_ms
    assert calls == [(1, 2)]


def test_unreachable_and_idle_budgets():
    model, data = smaller(), Data()
    options = {"batch": 2, "timer": by_macs, "tune": lambda *_: None}
    with pytest.raises(PruneError, match="below the fastest that pruning can reach"):
        prune_to_budget(model, data, budget="1%", **options)
    idle = prune_to_budget(model, data, budget="120%", **options)
    assert idle.rounds == []
    assert idle.note.startswith("Nothing was pruned")
    with pytest.raises(PruneError, match="fit_config"):
        prune_to_budget(model, data, budget="50%", batch=2, timer=by_macs)
    with pytest.raises(PruneError, match="rounds=0"):
        prune_to_budget(model, data, budget="50%", rounds=0, **options)


def test_budgets_as_people_write_them():
    before = Timing(10.0, 9.0, 11.0, 5, "card")

    def timer(model):
        return Timing(float(sum(p.numel() for p in model.parameters())), 0, 0, 5, "card")

    assert budget_ms(3.5, before, timer) == 3.5
    assert budget_ms("3.5ms", before, timer) == 3.5
    assert budget_ms(" 40 %", before, timer) == 4.0
    rival = baseline("resnet8", 3, 3, 4)
    size = sum(p.numel() for p in rival.parameters())
    assert budget_ms("as fast as resnet8:4", before, timer, Data()) == size
    assert budget_ms(rival, before, timer) == size
    assert budget_ms(Timing(4.0, 4.0, 4.0, 5, "card"), before, timer) == 4.0
    with pytest.raises(LatencyError, match="cannot be compared"):
        budget_ms(Timing(4.0, 4.0, 4.0, 5, "other"), before, timer)
    for wrong in ("fast", "-3", "0", "1e400", "50 seconds"):
        with pytest.raises(PruneError, match="budget"):
            budget_ms(wrong, before, timer)


def test_a_budget_is_read_before_there_is_a_network():
    for right in ("50%", "3.5", "2.5 ms", "as fast as resnet18", "as fast as dscnn:8"):
        check_budget(right)
    for wrong in ("fast", "-3", "0%", "50 seconds"):
        with pytest.raises(PruneError, match="budget"):
            check_budget(wrong)
    with pytest.raises(ConfigError, match="resnet8"):
        check_budget("as fast as resnet7")


def test_a_rival_that_reads_something_else_is_no_budget():
    class Series(Data):
        kind = "series"

    before = Timing(10.0, 9.0, 11.0, 5, "card")
    with pytest.raises(PruneError, match="resnet8 reads image, the data hold series"):
        budget_ms("as fast as resnet8", before, lambda _: pytest.fail("timed"), Series())


def test_what_was_spent_before_an_interruption_counts(tmp_path):
    model = smaller()
    options = {"budget": "40%", "batch": 2, "timer": by_macs, "folder": tmp_path, "meta": SMALLER,
               "structure": False}  # fmt: skip
    first = []

    def killed(network, part, parts):
        if part == 1:
            raise KeyboardInterrupt
        time.sleep(0.2)
        first.append(time.perf_counter())

    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        prune_to_budget(model, Data(), tune=killed, **options)
    began_again = time.perf_counter()
    result = prune_to_budget(model, Data(), tune=lambda *_: None, **options)
    second = time.perf_counter() - began_again
    assert first[0] - began >= 0.2
    assert result.spent_seconds >= first[0] - began
    assert result.spent_seconds <= began_again - began + second
    kept = Store(tmp_path, SMALLER).finished(torch.device("cpu"))
    assert kept.report() == result.report()
    x = Data().x[:4]
    torch.testing.assert_close(kept.model(x), result.model(x))
    assert Store(tmp_path / "elsewhere", SMALLER).finished(torch.device("cpu")) is None


def test_disturbed_times_are_scaled_by_the_unpruned_network():
    """A clock that slows down threefold after its first call still gives comparable times."""
    calls = []

    def slowing(model: nn.Module) -> Timing:
        factor = 3.0 if calls else 1.0
        calls.append(model)
        ms = factor * by_macs(model).median_ms
        return Timing(ms, ms, ms, 5, "card", flagged=len(calls) > 1)

    model = smaller()
    result = prune_to_budget(
        model, Data(), budget="50%", batch=2, timer=slowing, tune=lambda *_: None
    )
    assert by_macs(result.model).median_ms <= 1.05 * 0.5 * by_macs(model).median_ms
    assert by_macs(result.model).median_ms >= 0.2 * by_macs(model).median_ms
    assert "+200%" in result.note
    assert result.speedup == pytest.approx(
        by_macs(model).median_ms / by_macs(result.model).median_ms
    )


def test_a_budget_met_by_the_last_round_but_not_side_by_side_is_told_so():
    """The last measurement of all, after the round's own two and the unpruned network's, is slower."""
    calls_since_tuning = []

    def unsteady(model: nn.Module) -> Timing:
        calls_since_tuning.append(model)
        ms = by_macs(model).median_ms * (1.2 if len(calls_since_tuning) == 4 else 1.0)
        return Timing(ms, ms, ms, 5, "card")

    result = prune_to_budget(
        smaller(), Data(), budget="50%", batch=2, timer=unsteady, rounds=1,
        tune=lambda *_: calls_since_tuning.clear(),
    )  # fmt: skip
    assert result.after.median_ms > 1.05 * result.budget_ms
    assert "its last round took" in result.note
    assert "no further cut" not in result.note


def test_a_warm_up_keeps_its_share_of_a_round_s_epochs():
    recipe = TrainConfig(epochs=8, warmup_epochs=4.0, drop_path=0.1)
    found = [share_of_epochs(recipe, part, 3) for part in range(3)]
    assert [(one.epochs, one.warmup_epochs) for one in found] == [(2, 1.0), (2, 1.0), (4, 2.0)]
    assert share_of_epochs(TrainConfig(epochs=1, warmup_epochs=0.5), 0, 2).warmup_epochs == 0.5


@pytest.mark.parametrize(("wanted", "taken"), [(None, 64), (16, 16), (1, 2), (256, 64)])
def test_importance_takes_no_larger_batches_than_the_fine_tuning(wanted, taken):
    """Whose batch is small for the memory's sake could not be pruned."""
    data, sizes = Data(), []
    before = data.batches
    data.batches = lambda names, size, **more: sizes.append(size) or before(names, size, **more)
    recipe = None if wanted is None else TrainConfig(batch_size=wanted)
    prune_to_budget(
        smaller(), data, budget="80%", batch=2, rounds=1, structure=False, fit_config=recipe,
        timer=by_macs, tune=lambda *_: None,
    )  # fmt: skip
    assert {*sizes} == {taken}
