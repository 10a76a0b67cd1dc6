"""The search loop: resume, guards, NaN, and the split discipline."""

import copy
import logging
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from darts_core import Supernet, get_space
from darts_core.checkpoint import load_checkpoint, save_checkpoint
from darts_core.data import DataBundle, load_data
from darts_core.distributed import Group
from darts_core.errors import DataError, MemoryShortageError, NonFiniteLossError, ResumeError
from darts_core.relax import Softmax
from darts_core.runlog import RunFolder, read_jsonl
from darts_core.search import Guard, GuardContext, GuardFinding, SearchConfig, search
from darts_core.search.described import settings_of
from darts_core.search.state import SearchState
from darts_core.strategies import (
    FirstOrder,
    Progressive,
    SearchSettings,
    SmoothRandom,
    Strategy,
    Unrolled,
)


@pytest.fixture(scope="module")
def digits() -> DataBundle:
    return load_data("digits", seed=0).take("params", 48).take("alpha", 40).take("val", 40)


def small_net(bundle: DataBundle, seed: int = 0) -> Supernet:
    torch.manual_seed(seed)
    return Supernet(
        get_space("nasbench201"),
        channels=4,
        layers=1,
        num_classes=bundle.num_classes,
        in_channels=bundle.image_shape[0],
    )


CONFIG = SearchConfig(epochs=3, batch_size=16, checkpoint_every=2)


@pytest.mark.parametrize("strategy", [FirstOrder, Unrolled])
def test_a_resumed_search_equals_an_uninterrupted_one(
    digits: DataBundle, tmp_path: Path, strategy: type[Strategy]
) -> None:
    """Stopped within the first epoch, and once more within another one."""
    whole = small_net(digits)
    expected = search(whole, strategy(), digits, CONFIG, seed=5)
    path, run = tmp_path / "checkpoint.pt", RunFolder(tmp_path, tensorboard=False)
    for looks in (2, 3):
        left = iter([False] * looks)
        broken = search(
            small_net(digits), strategy(), digits, CONFIG,
            seed=5, checkpoint=path, run=run, should_stop=partial(next, left, True),
        )  # fmt: skip
        assert broken.stopped == "asked to stop"
    again = small_net(digits, seed=99)  # other initial values: all must come from the checkpoint
    resumed = search(again, strategy(), digits, CONFIG, seed=5, checkpoint=path, run=run)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert resumed.architecture == expected.architecture
    assert [row["train_loss"] for row in resumed.history] == [
        row["train_loss"] for row in expected.history
    ]
    assert [row["epoch"] for row in read_jsonl(run.metrics_path)] == [0, 1, 2]


def test_an_epoch_whose_row_was_lost_by_a_kill_is_logged_on_resume(
    digits: DataBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, run = tmp_path / "checkpoint.pt", RunFolder(tmp_path, tensorboard=False)
    config = SearchConfig(epochs=2, batch_size=16, evaluate=False)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, "log_metrics", killed)
        with pytest.raises(KeyboardInterrupt):
            search(small_net(digits), FirstOrder(), digits, config, checkpoint=path, run=run)
    assert not read_jsonl(run.metrics_path)
    found = search(small_net(digits), FirstOrder(), digits, config, checkpoint=path, run=run)
    rows = read_jsonl(run.metrics_path)
    assert [row["epoch"] for row in rows] == [0, 1]
    assert [row["train_loss"] for row in rows] == [row["train_loss"] for row in found.history]


def test_a_checkpoint_of_another_configuration_is_refused(
    digits: DataBundle, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.pt"
    short = SearchConfig(epochs=1, batch_size=16)
    search(small_net(digits), FirstOrder(), digits, short, checkpoint=path)
    other = SearchConfig(epochs=1, batch_size=16, learning_rate=0.1)
    with pytest.raises(ResumeError, match=r"another search configuration.*move the file away"):
        search(small_net(digits), FirstOrder(), digits, other, checkpoint=path)


def test_a_checkpoint_of_other_settings_of_the_strategy_or_the_relaxation_is_refused(
    digits: DataBundle, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.pt"
    config = SearchConfig(epochs=1, batch_size=16, evaluate=False)
    search(small_net(digits), SmoothRandom(), digits, config, checkpoint=path)
    other = SmoothRandom(epsilon_end=0.2)
    with pytest.raises(ResumeError, match=r"strategy\.epsilon_end=0\.3 there, 0\.2 here.*move"):
        search(small_net(digits), other, digits, config, checkpoint=path)
    colder = small_net(digits)
    colder.relaxation = Softmax(2.0)
    with pytest.raises(ResumeError, match=r"settings: relax\.temperature=1\.0 there, 2\.0 here"):
        search(colder, SmoothRandom(), digits, config, checkpoint=path)
    search(small_net(digits), SmoothRandom(), digits, config, checkpoint=path)
    # checkpoints from before this was looked at say nothing of it
    content = load_checkpoint(path)
    del content["settings"]
    save_checkpoint(path, content)
    search(small_net(digits), other, digits, config, checkpoint=path)


def test_a_search_does_not_go_on_with_data_that_have_changed(
    digits: DataBundle, tmp_path: Path
) -> None:
    path, config = tmp_path / "checkpoint.pt", SearchConfig(epochs=1, batch_size=16, evaluate=False)
    stop = partial(next, iter([False]), True)
    search(small_net(digits), FirstOrder(), digits, config, checkpoint=path, should_stop=stop)
    with pytest.raises(ResumeError, match="was written on other data: samples or targets"):
        search(small_net(digits), FirstOrder(), digits.take("val", 20), config, checkpoint=path)


def test_settings_are_what_a_constructor_keeps_under_its_own_names_as_plain_values() -> None:
    class Own(FirstOrder):
        def __init__(self, every: int, weights: torch.Tensor, renamed: int, *more: int) -> None:
            self.every, self.weights, self.other = every, weights, renamed
            self.more = more

    assert settings_of(FirstOrder()) == {}
    assert settings_of(Own(2, torch.ones(2), 3, 4)) == {"every": 2, "more": [4]}
    (stage,) = settings_of(Progressive([{"operations": 3}]))["stages"]
    assert stage["operations"] == 3


def test_a_checkpoint_of_another_kind_of_device_goes_on(
    digits: DataBundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="darts_core")
    path = tmp_path / "checkpoint.pt"
    config = SearchConfig(epochs=2, batch_size=16, evaluate=False)
    stop = partial(next, iter([False]), True)
    search(small_net(digits), FirstOrder(), digits, config, checkpoint=path, should_stop=stop)
    content = load_checkpoint(path)
    # a generator of a GPU has a seed and an offset
    content["generator"] = content["random_gpu"] = torch.zeros(16, dtype=torch.uint8)
    save_checkpoint(path, content)
    found = search(small_net(digits), FirstOrder(), digits, config, checkpoint=path)
    assert len(found.history) == 2
    assert "another kind of device" in caplog.text


def test_a_metric_that_is_a_number_of_numpy_goes_into_a_checkpoint(
    digits: DataBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def result(self: object) -> dict[str, object]:
        return {digits.task.metric.name: np.float64(0.5)}

    monkeypatch.setattr(type(digits.task.meter(digits.device)), "result", result)
    path, config = tmp_path / "checkpoint.pt", SearchConfig(epochs=1, batch_size=16)
    search(small_net(digits), FirstOrder(), digits, config, checkpoint=path)
    (row,) = load_checkpoint(path)["history"]
    assert row[f"val_{digits.task.metric.name}"] == 0.5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("older", [False, True])
def test_what_is_drawn_on_a_gpu_goes_on_too(
    digits: DataBundle, tmp_path: Path, older: bool
) -> None:
    """Dropout and noise draw from the device's own generator, of which no checkpoint told."""
    net, found, path = small_net(digits).cuda(), FirstOrder(), tmp_path / "checkpoint.pt"
    found.task = digits.task
    found.setup(net, SearchSettings(), [])
    state = SearchState(net, found, [], CONFIG, 0)
    state.save(path)
    if older:
        save_checkpoint(path, {k: v for k, v in load_checkpoint(path).items() if k != "random_gpu"})
    drawn = torch.rand(4, device="cuda")
    state.load(path)
    assert torch.equal(torch.rand(4, device="cuda"), drawn) != older


def test_a_nan_loss_stops_names_the_step_and_keeps_the_checkpoint(
    digits: DataBundle, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.pt"
    config = SearchConfig(epochs=2, batch_size=16, checkpoint_every=1)

    class Poisoned(FirstOrder):
        steps = 0

        def alpha_step(self, params_batch, alpha_batch):  # type: ignore[no-untyped-def]
            self.steps += 1
            if self.steps == 5:  # the second step of the second epoch
                next(iter(self.params)).data.fill_(float("nan"))
            return super().alpha_step(params_batch, alpha_batch)

    with pytest.raises(NonFiniteLossError, match="epoch 2 of 2, step 2 of 3"):
        search(small_net(digits), Poisoned(), digits, config, checkpoint=path)
    kept = torch.load(path, weights_only=True)
    assert (kept["epoch"], kept["step"]) == (1, 1)
    assert all(torch.isfinite(value).all() for value in kept["supernet"].values())


def test_an_update_to_infinity_is_not_saved_as_good(digits: DataBundle, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"

    class LastUpdate(FirstOrder):
        """Finite losses, but the last update of the second epoch leaves an infinite param."""

        steps = 0

        def step(self, params_batch, alpha_batch):  # type: ignore[no-untyped-def]
            stats = super().step(params_batch, alpha_batch)
            self.steps += 1
            if self.steps == 6:
                next(iter(self.params)).data[0] = float("inf")
            return stats

    with pytest.raises(NonFiniteLossError, match=r"params or alphas .* epoch 2 of 3, step 3 of 3"):
        search(small_net(digits), LastUpdate(), digits, CONFIG, checkpoint=path)
    kept = torch.load(path, weights_only=True)
    assert all(torch.isfinite(value).all() for value in kept["supernet"].values())
    assert (kept["epoch"], kept["step"]) == (1, 2)


def test_after_a_memory_shortage_a_smaller_batch_is_looked_for_without_the_failed_step(
    digits: DataBundle,
) -> None:
    """Its tensors would leave too little for any batch; several processes cannot look for one at all."""
    kept: list[bool] = []

    class TooLarge(FirstOrder):
        def step(self, params_batch, alpha_batch):  # type: ignore[no-untyped-def]
            activations = torch.zeros(1)
            self.seen = weakref.ref(activations)
            raise torch.OutOfMemoryError("CUDA out of memory")

        def loss(self, batch, weights):  # type: ignore[no-untyped-def]
            kept.append(self.seen() is not None)
            return super().loss(batch, weights)

    with pytest.raises(MemoryShortageError, match=r"batch_size=16 does.*fits is batch_size=15"):
        search(small_net(digits), TooLarge(), digits, CONFIG)
    assert set(kept) == {False}
    kept.clear()
    group = Group(0, 2, torch.device("cpu"))
    with pytest.raises(MemoryShortageError, match="batch_size=16 in 2 processes does not fit"):
        search(small_net(digits), TooLarge(), digits, CONFIG, group=group)
    assert not kept


def test_a_first_batch_that_does_not_fit_is_a_lack_of_memory(
    digits: DataBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def batches(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("darts_core.search.stepping.Stepper.batches", batches)
    with pytest.raises(torch.OutOfMemoryError):
        search(small_net(digits), FirstOrder(), digits, CONFIG)


def test_a_loss_that_is_never_finite_claims_no_checkpoint(
    digits: DataBundle, tmp_path: Path
) -> None:
    net = small_net(digits)
    next(net.parameters()).data.fill_(float("nan"))
    with pytest.raises(NonFiniteLossError, match="epoch 1 of 3, step 1 of 3") as caught:
        search(net, FirstOrder(), digits, CONFIG, checkpoint=tmp_path / "checkpoint.pt")
    assert "checkpoint" not in str(caught.value)


def test_a_guard_that_stops_keeps_the_last_good_architecture(digits: DataBundle) -> None:
    seen = []

    class Second(Guard):
        name = "second"

        def after_epoch(self, context: GuardContext) -> GuardFinding | None:
            seen.append(context.architecture)
            # make the next architecture differ from the first
            with torch.no_grad():
                for alpha in context.supernet.alphas():
                    alpha.copy_(torch.randn_like(alpha))
            if context.epoch == 1:
                return GuardFinding("second", 1, "collapsed", stop=True)
            return None

    result = search(small_net(digits), FirstOrder(), digits, CONFIG, guards=[Second()])
    assert len(seen) == 2
    assert seen[0] != seen[1]
    assert result.architecture == seen[0]
    assert result.stopped == "guard second: collapsed"
    assert [finding.guard for finding in result.findings] == ["second"]


def test_the_search_reads_params_alpha_and_val_only(digits: DataBundle) -> None:
    bundle = copy.copy(digits)
    bundle.test_reads = 0
    search(small_net(bundle), FirstOrder(), bundle, SearchConfig(epochs=1, batch_size=16))
    assert bundle.test_reads == 0


def test_a_batch_larger_than_a_split_is_refused(digits: DataBundle) -> None:
    with pytest.raises(DataError, match="batch_size=1000"):
        search(small_net(digits), FirstOrder(), digits, SearchConfig(epochs=1, batch_size=1000))


def test_what_a_strategy_does_before_an_epoch_counts_as_time_of_the_search(
    digits: DataBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the decisions of DARTS-PT, which measure every operation of an edge."""
    clock = [0.0]

    class Deciding(FirstOrder):
        def start_epoch(self, epoch: int, epochs: int) -> None:
            clock[0] += 100.0

    fake = SimpleNamespace(perf_counter=lambda: clock[0])
    monkeypatch.setattr("darts_core.search.loop.time", fake)
    found = search(small_net(digits), Deciding(), digits, replace(CONFIG, epochs=2), seed=5)
    assert [row["seconds"] for row in found.history] == [100.0, 200.0]
    assert found.seconds == 200.0


def test_alpha_rests_during_its_warm_up(digits: DataBundle) -> None:
    net = small_net(digits)
    before = {name: alpha.detach().clone() for name, alpha in net.named_alphas().items()}
    config = SearchConfig(epochs=1, batch_size=16, alpha_warmup_epochs=1)
    result = search(net, FirstOrder(), digits, config)
    assert all(torch.equal(net.named_alphas()[name], value) for name, value in before.items())
    assert result.history[0]["alpha_loss"] is None


def test_a_search_whose_time_was_up_ends_there_when_it_is_called_again(
    digits: DataBundle, tmp_path: Path
) -> None:
    """As after a kill while its finalists were trained."""
    path = tmp_path / "checkpoint.pt"
    config = SearchConfig(epochs=3, batch_size=16, max_minutes=1e-9)
    first = search(small_net(digits), FirstOrder(), digits, config, checkpoint=path)
    assert first.stopped == "search.max_minutes=1e-09 used up"
    again = search(small_net(digits), FirstOrder(), digits, config, checkpoint=path)
    assert len(first.history) == len(again.history) == 1
    assert (again.stopped, again.architecture) == (first.stopped, first.architecture)
    more = replace(config, max_minutes=None)
    longer = search(small_net(digits), FirstOrder(), digits, more, checkpoint=path)
    assert (len(longer.history), longer.stopped) == (3, None)
