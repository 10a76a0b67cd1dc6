"""fit: learning, schedules, resume bit for bit, NaN, lack of memory. A tiny planted data set."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from darts_core.checkpoint import load_checkpoint, save_checkpoint
from darts_core.errors import (
    ConfigError,
    DataError,
    MemoryShortageError,
    NonFiniteLossError,
    ResumeError,
)
from darts_core.metric import ACCURACY, Metric, worth
from darts_core.runlog import RunFolder, config_hash
from darts_core.settings.train import as_before
from darts_core.tasks import Classification
from darts_core.testing import tiny_bundle
from darts_core.train import TrainConfig, evaluate, fit, trainer
from darts_core.train.schedule import ExponentialAverage, drop_path_at, learning_rate_at

PLAIN = {"cutout": 0, "crop_padding": 0, "flip": False, "drop_path": 0.0}


@dataclass
class TinyBundle:
    """Two classes told apart by the mean brightness; batches depend on (seed, epoch) only."""

    input_shape = (1, 4, 4)
    task = Classification(outputs=2, names=("dark", "bright"))
    device = torch.device("cpu")
    sizes: dict[str, int] = field(default_factory=lambda: {"params": 24, "alpha": 24, "val": 20})

    def _split(self, names):
        names = (names,) if isinstance(names, str) else names
        xs, ys = [], []
        for name in names:
            generator = torch.Generator().manual_seed(sum(map(ord, name)))
            y = torch.arange(self.sizes[name]) % 2
            x = torch.randn(self.sizes[name], 1, 4, 4, generator=generator)
            xs.append(x + y.view(-1, 1, 1, 1) * 2.0)
            ys.append(y)
        return torch.cat(xs), torch.cat(ys)

    def split(self, names):
        return self._split(names)[1]

    def steps(self, names, batch_size, drop_last=True):
        return len(self.split(names)) // batch_size

    def batches(
        self, names, batch_size, *, seed, epoch, augment=None, start=0, drop_last=True, shuffle=True
    ):
        x, y = self._split(names)
        if shuffle:
            generator = torch.Generator().manual_seed(seed * 1000 + epoch)
            order = torch.randperm(len(y), generator=generator)
            x, y = x[order], y[order]
        for index in range(start * batch_size, len(y), batch_size):
            if drop_last and index + batch_size > len(y):
                return
            yield x[index : index + batch_size], y[index : index + batch_size]


class TinyNet(nn.Module):
    """A convolution, batch norm, dropout (a user of the global generator), a linear layer."""

    def __init__(self, auxiliary=False):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 2)
        self.auxiliary = nn.Linear(4, 2) if auxiliary else None
        self.drop_path_prob = 0.0
        self.seen: list[float] = []

    def forward(self, x):
        self.seen.append(self.drop_path_prob)
        x = nn.functional.dropout(self.features(x).mean((2, 3)), 0.2, self.training)
        if self.training and self.auxiliary is not None:
            return self.head(x), self.auxiliary(x)
        return self.head(x)


def make(**kwargs):
    torch.manual_seed(3)
    return TinyNet(**kwargs)


def config(**changes):
    return TrainConfig(**{"epochs": 4, "batch_size": 8, "learning_rate": 0.1, **PLAIN, **changes})


def test_fit_learns_and_reports_every_epoch(tmp_path, monkeypatch):
    known = []
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=lambda: len(known)))
    monkeypatch.setattr(trainer, "evaluate", lambda *given: known.append(1) or evaluate(*given))
    run = RunFolder(tmp_path, tensorboard=False)
    calls = []
    model = make()
    result = fit(
        model,
        TinyBundle(),
        config(epochs=6),
        run=run,
        on_epoch=lambda epoch, row: calls.append((epoch, row["val_accuracy"])),
        progress=lambda done, total: calls.append((done, total)),
    )
    assert result.val > 0.9
    assert result.val == evaluate(model, TinyBundle()).accuracy
    assert result.steps == 6 * 6
    assert result.train_seconds == 6, "val after an epoch costs the device time, too"
    assert [row["epoch"] for row in run.metrics()] == list(range(6))
    assert (36, 36) in calls
    assert calls[-1] == (5, result.val)
    assert {"loss", "train_accuracy", "val_accuracy", "learning_rate"} <= set(result.history[0])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_resume_is_bit_equal(tmp_path, optimizer):
    settings = config(optimizer=optimizer, ema=0.9, drop_path=0.2, learning_rate=0.01)
    whole = make()
    expected = fit(whole, TinyBundle(), settings, seed=5)

    class Stop(Exception):
        pass

    def stop(epoch, row):
        if epoch == 1:
            raise Stop

    run = RunFolder(tmp_path, tensorboard=False)
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Stop):
        fit(make(), TinyBundle(), settings, seed=5, checkpoint=path, on_epoch=stop, run=run)
    run.log_metrics(2, loss=0.0)  # a row written after the checkpoint: the resume drops it
    seen = []
    torch.manual_seed(99)  # the state of the generators at the resume must not matter
    again = TinyNet()
    result = fit(
        again,
        TinyBundle(),
        settings,
        seed=5,
        checkpoint=path,
        run=run,
        on_epoch=lambda epoch, row: seen.append(epoch),
    )
    assert seen == [1, 2, 3]
    assert [row["epoch"] for row in run.metrics()] == [0, 1, 2, 3]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    strip = [{k: v for k, v in row.items() if k != "seconds"} for row in expected.history]
    assert strip == [{k: v for k, v in row.items() if k != "seconds"} for row in result.history]
    assert result.steps == expected.steps


def test_a_training_does_not_go_on_with_data_that_have_changed(tmp_path):
    bundle, path = tiny_bundle(), tmp_path / "checkpoint.pt"
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    config = TrainConfig(epochs=1, batch_size=8)
    fit(network, bundle, config, checkpoint=path)
    swapped = replace(bundle, pool=replace(bundle.pool, targets_N=2 - bundle.pool.targets_N))
    for other in (swapped, tiny_bundle(count=63)):
        with pytest.raises(ResumeError, match="was written on other data: samples or targets"):
            fit(network, other, config, checkpoint=path)
    fit(network, tiny_bundle(), config, checkpoint=path)
    # an older file says nothing of its data
    content = load_checkpoint(path)
    del content["data"]
    save_checkpoint(path, content)
    fit(network, swapped, config, checkpoint=path)


def test_resume_of_another_configuration_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    fit(make(), TinyBundle(), config(epochs=1), checkpoint=path)
    with pytest.raises(ResumeError, match=r"another training configuration; use another version="):
        fit(make(), TinyBundle(), config(epochs=2), checkpoint=path)
    with pytest.raises(ResumeError, match=r"another network .*move the file away"):
        fit(make(auxiliary=True), TinyBundle(), config(epochs=1), checkpoint=path)


def test_a_training_goes_on_when_the_file_of_its_policy_lies_elsewhere(tmp_path, monkeypatch):
    for name, value in (("unit", 255), ("kind", "image")):
        monkeypatch.setattr(TinyBundle, name, value, raising=False)
    path, here, there = (tmp_path / name for name in ("checkpoint.pt", "here.yaml", "there.yaml"))
    here.write_text("sub_policies: [[[invert, 0.5, 5]]]")

    def move(epoch, row):  # as the version's folder, or the user's file, while it trains
        if here.exists():
            here.rename(there)

    once = config(epochs=2, policy=str(here))
    fit(make(), TinyBundle(), once, checkpoint=path, on_epoch=move)
    assert load_checkpoint(path)["epoch"] == 2
    fit(make(), TinyBundle(), replace(once, policy=str(there)), checkpoint=path)
    here.write_text("sub_policies: [[[invert, 0.6, 5]]]")
    with pytest.raises(ResumeError, match="another training configuration"):
        fit(make(), TinyBundle(), once, checkpoint=path)
    # what an older program wrote names the file itself
    content, moved = torch.load(path), replace(once, policy=str(there))
    settings = {**as_before(asdict(moved)), "on": ("params", "alpha"), "seed": 0}
    torch.save({**content, "stamp": config_hash(settings)}, path)
    fit(make(), TinyBundle(), moved, checkpoint=path)


def test_nan_names_epoch_and_step_and_keeps_the_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.pt"

    class Poisoned(TinyBundle):
        def batches(self, names, batch_size, *, epoch, **kwargs):
            for step, (x, y) in enumerate(
                super().batches(names, batch_size, epoch=epoch, **kwargs)
            ):
                yield (x * float("nan") if (epoch, step) == (2, 3) else x), y

    with pytest.raises(NonFiniteLossError, match=r"NaN at epoch 3, step 4 of 6.*learning_rate"):
        fit(make(), Poisoned(), config(), checkpoint=path)
    kept = torch.load(path, weights_only=True)
    assert kept["epoch"] == 2
    with pytest.raises(NonFiniteLossError, match=r"epoch 3.*the checkpoint of epoch 2 is kept"):
        fit(make(), Poisoned(), config(), checkpoint=path)

    class Hopeless(TinyBundle):
        def batches(self, names, batch_size, **kwargs):
            for x, y in super().batches(names, batch_size, **kwargs):
                yield x * float("nan"), y

    with pytest.raises(NonFiniteLossError, match=r"epoch 1, step 1 .*before any checkpoint"):
        fit(make(), Hopeless(), config(), checkpoint=tmp_path / "none.pt")
    kept = torch.load(path, weights_only=True)
    assert all(torch.isfinite(value).all() for value in kept["model"].values())


def test_an_update_to_infinity_is_not_saved_as_good(tmp_path):
    class LastStep(TinyNet):
        """Finite loss, infinite gradient, in the last step of the second epoch."""

        def forward(self, x):
            out = super().forward(x)
            self.calls = getattr(self, "calls", 0) + self.training
            if self.training and self.calls == 12:
                out.register_hook(lambda gradient: gradient * float("inf"))
            return out

    path = tmp_path / "checkpoint.pt"
    with pytest.raises(NonFiniteLossError, match=r"parameters became .* epoch 2, step 6 of 6"):
        fit(LastStep(), TinyBundle(), config(), checkpoint=path)
    assert torch.load(path, weights_only=True)["epoch"] == 1


def test_a_mask_of_infinities_is_no_divergence():
    model = make()
    model.register_buffer("mask", torch.triu(torch.full((3, 3), -torch.inf), 1))
    fit(model, TinyBundle(), config(epochs=1))
    model.register_buffer("running_mean", torch.tensor([torch.inf]))
    with pytest.raises(NonFiniteLossError, match="NaN or infinite by"):
        fit(model, TinyBundle(), config(epochs=1))


def test_lack_of_memory_states_the_largest_batch_that_fits():
    class Hungry(TinyNet):
        def forward(self, x):
            if len(x) > 5:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
            return super().forward(x)

    with pytest.raises(MemoryShortageError, match=r"batch_size=16 does.*fits is batch_size=5"):
        fit(Hungry(), TinyBundle(), config(batch_size=16))

    class Starving(TinyNet):
        def forward(self, x):
            raise MemoryError  # as Python raises it: without a text

    with pytest.raises(MemoryShortageError, match=r"neither does a single image.*\(MemoryError\)"):
        fit(Starving(), TinyBundle(), config())

    class Broken(TinyNet):
        def forward(self, x):
            raise RuntimeError("some other fault")

    with pytest.raises(RuntimeError, match="some other fault"):
        fit(Broken(), TinyBundle(), config())


def test_no_checkpoint_is_promised_where_none_was_written():
    class Poisoned(TinyBundle):
        def batches(self, names, batch_size, *, epoch, **kwargs):
            for x, y in super().batches(names, batch_size, epoch=epoch, **kwargs):
                yield (x * float("nan") if epoch == 2 else x), y

    with pytest.raises(NonFiniteLossError, match=r"epoch 3, step 1 of 6; .*before any checkpoint"):
        fit(make(), Poisoned(), config(), select_on=None)


def test_losses_are_looked_at_once(monkeypatch):
    made = trainer.Trainer(make(), TinyBundle(), config(), ("params",), 0, torch.device("cpu"))
    sizes, plain = [], torch.isfinite
    monkeypatch.setattr(torch, "isfinite", lambda x: (sizes.append(x.numel()), plain(x))[1])
    losses = [torch.tensor(0.5)] * 149 + [torch.tensor(torch.nan)]
    made._check_finite(losses[:100], 0)
    made._check_finite(losses[:130], 0)
    with pytest.raises(NonFiniteLossError, match="step 150 of"):
        made._check_finite(losses, 0)
    assert sizes == [50, 50, 50]


def test_what_a_network_gives_in_training_is_one_or_two_tensors():
    class Many(TinyNet):
        def forward(self, x):
            out = super().forward(x)
            return (out, out, out) if self.training else out

    with pytest.raises(ConfigError, match="gives a tuple of 3; it must give its outputs"):
        fit(Many(), TinyBundle(), config())

    class Named(TinyNet):
        def forward(self, x):
            out = super().forward(x)
            return {"logits": out} if self.training else out

    with pytest.raises(ConfigError, match="gives a dict; it must give its outputs"):
        fit(Named(), TinyBundle(), config())


def test_a_resumed_optimizer_counts_its_steps_on_the_host(tmp_path):
    """On a GPU each read of a count that lies there would make the step wait."""
    path, settings = tmp_path / "checkpoint.pt", config(epochs=1, optimizer="adamw")
    fit(make(), TinyBundle(), settings, checkpoint=path)
    made = trainer.Trainer(
        make(), TinyBundle(), settings, ("params", "alpha"), 0, torch.device("cpu")
    )
    made.device = torch.device("meta")  # stands for the GPU: what was loaded there would stay there
    assert made.resume(path) == 1
    steps = [state["step"] for state in made.optimizer.state.values()]
    assert {(str(step.device), float(step)) for step in steps} == {("cpu", 6.0)}


def test_too_little_memory_at_a_resume_is_no_other_network(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    fit(make(), TinyBundle(), config(epochs=1), checkpoint=path)

    def short(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.optim.SGD, "load_state_dict", short)
    with pytest.raises(torch.OutOfMemoryError):
        fit(make(), TinyBundle(), config(epochs=1), checkpoint=path)


def test_the_best_epoch_is_one_whose_metric_is_a_number():
    assert ACCURACY.best({0: float("nan"), 1: 0.5, 2: 0.7, 3: 0.6}) == 2
    assert Metric("mse", "minimize").best({0: float("nan"), 1: 0.5, 2: 0.7}) == 1
    assert ACCURACY.best({0: float("nan"), 1: float("nan")}) == 0
    assert [worth(rating) for rating in (float("nan"), -0.5)] == [float("-inf"), -0.5]


def test_batch_larger_than_the_split():
    with pytest.raises(DataError, match=r"batch_size=64.*48 images"):
        fit(make(), TinyBundle(), config(batch_size=64))


def test_auxiliary_loss_and_drop_path_reach_the_network():
    model = make(auxiliary=True)
    before = model.auxiliary.weight.detach().clone()
    fit(model, TinyBundle(), config(drop_path=0.4), select_on=None)
    assert not torch.equal(before, model.auxiliary.weight)
    assert sorted(set(model.seen)) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    off = make(auxiliary=True)
    fit(off, TinyBundle(), config(auxiliary_weight=0.0, weight_decay=0.0), select_on=None)
    assert torch.equal(before, off.auxiliary.weight)


def test_without_selection_there_is_no_val_accuracy():
    result = fit(make(), TinyBundle(), config(epochs=1), select_on=None)
    assert result.val is None
    assert "val_accuracy" not in result.history[0]


def test_gradient_clipping_bounds_the_first_update():
    settings = config(epochs=1, grad_clip=1e-3, momentum=0.0, weight_decay=0.0, learning_rate=1.0)
    model = make()
    start = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    fit(model, TinyBundle(), settings, train_on=("params",), select_on=None)
    moved = torch.cat([p.detach().flatten() for p in model.parameters()]) - start
    assert 0 < moved.norm() <= 3 * 1e-3 * 1.001  # three steps of at most lr * clip each


def test_learning_rate_warms_up_then_follows_the_cosine():
    settings = config(epochs=10, warmup_epochs=2, learning_rate=1.0, min_learning_rate=0.2)
    assert learning_rate_at(settings, 1.0) == pytest.approx(0.5)
    assert learning_rate_at(settings, 2.0) == pytest.approx(1.0)
    assert learning_rate_at(settings, 6.0) == pytest.approx(0.6)
    assert learning_rate_at(settings, 10.0) == pytest.approx(0.2)
    assert drop_path_at(config(epochs=10, drop_path=0.2), 5) == pytest.approx(0.1)


def test_exponential_average_matches_the_formula():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = ExponentialAverage(model, 0.5)
    expected = 0.0
    for update, value in enumerate([1.0, 2.0, 4.0]):
        model.weight.data.fill_(value)
        average.update(model)
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * value
    average.swap(model)
    assert model.weight.item() == pytest.approx(expected)
    average.swap(model)
    assert model.weight.item() == 4.0


def test_the_average_keeps_a_mask_of_infinities():
    class Masked(TinyNet):
        def __init__(self):
            super().__init__()
            self.register_buffer("mask", torch.triu(torch.full((4, 4), -torch.inf), 1))

        def forward(self, x):
            return super().forward(x @ self.mask.softmax(-1))

    model = Masked()
    mask = model.mask.clone()
    result = fit(model, TinyBundle(), config(epochs=2, ema=0.9))
    assert torch.equal(model.mask, mask)
    assert all(torch.isfinite(torch.tensor(row["val_loss"])) for row in result.history)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"drop_path": 1.0}, "drop_path=1.0"),
        ({"min_learning_rate": 0.5}, "must not exceed"),
        ({"optimizer": "sdg"}, "Did you mean 'sgd'"),
        ({"precision": "fp16"}, "Known: bf16, fp32"),
    ],
)
def test_bad_settings_are_sentences(changes, words):
    with pytest.raises(ConfigError, match=words):
        config(**changes)
