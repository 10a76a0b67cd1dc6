"""The training of an elastic network: its gradients, its teacher, its resume, a loop of one's own."""

import copy
import functools
from dataclasses import replace

import pytest
import torch
from elastic_cases import SHAPE, settled
from prune_cases import Data

from darts_core.checkpoint import load_checkpoint
from darts_core.distributed import Group
from darts_core.elastic import Sandwich, elastic
from darts_core.elastic.fit import fit_elastic
from darts_core.errors import ConfigError, DeviceError, NonFiniteLossError
from darts_core.tasks import Classification
from darts_core.train import TrainConfig
from darts_core.train.teacher import Teacher

LOSS = torch.nn.functional.cross_entropy


@functools.cache
def _made(name, dtype):
    return elastic(settled(name).to(dtype), torch.randn(2, *SHAPE, dtype=dtype))


def _net(name="resnet14", dtype=torch.float64):
    return copy.deepcopy(_made(name, dtype))


def _batch(count=8, dtype=torch.float64, seed=2):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, *SHAPE, generator=generator, dtype=dtype)
    return x, torch.arange(count) % 5


def _grads(model):
    return [None if p.grad is None else p.grad.clone() for p in model.parameters()]


def _close(found, wanted, tolerance=1e-9):
    for a, b in zip(found, wanted, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, rtol=tolerance, atol=tolerance)


def test_a_step_s_gradient_is_the_weighted_sum_over_its_sub_networks():
    net, (x, y) = _net(), _batch()
    given = copy.deepcopy(net.model)
    sandwich = Sandwich(net, share=0.25, others=0.5, seed=3)
    chosen = sandwich.choices()
    assert chosen[0] == net.largest
    assert chosen[-1] == net.smallest
    net.model.train()
    loss = sandwich.backward(x, lambda output: LOSS(output, y))
    found = _grads(net.model)
    net.model.zero_grad()
    taught = given.eval()(x).detach()
    total = 0.0
    for choices in chosen:
        with net.running(choices):
            output = net.model(x)
        part = 0.75 * LOSS(output, y) + 0.25 * sandwich.task.distillation_loss(output, taught)
        (part if choices == net.largest else 0.5 * part).backward()
        total += float(part.detach()) / len(chosen)
    _close(found, _grads(net.model))
    assert float(loss) == pytest.approx(total, rel=1e-6)
    assert sandwich.choices() != chosen


def test_only_the_whole_network_moves_the_running_statistics():
    net, (x, y) = _net(), _batch()
    alone = copy.deepcopy(net.model).train()
    alone(x)
    net.model.train()
    Sandwich(net).backward(x, lambda output: LOSS(output, y))
    for (name, found), (_, wanted) in zip(
        net.model.named_buffers(), alone.named_buffers(), strict=True
    ):
        assert torch.equal(found, wanted), name


def test_accumulated_and_scaled_gradients_are_those_of_one_batch():
    net, (x, y) = _net("vit"), _batch()
    whole = Sandwich(net, seed=1)
    whole.backward(x, lambda output: LOSS(output, y))
    wanted = _grads(net.model)
    net.model.zero_grad()
    halves = Sandwich(net, seed=1)
    for part in (slice(0, 4), slice(4, 8)):
        halves.step = 0  # the same sub-networks
        halves.backward(x[part], lambda output, p=part: LOSS(output, y[p]), scale=lambda z: z / 2)
    _close(_grads(net.model), wanted)


def test_mixed_precision_is_that_of_the_block_around_the_call():
    net, (x, y) = _net("vit", torch.float32), _batch(dtype=torch.float32)
    seen = []
    net.model.head.register_forward_hook(lambda m, i, o: seen.append(o.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        Sandwich(net).backward(x, lambda output: LOSS(output.float(), y))
    assert set(seen) == {torch.bfloat16}
    assert all(g is None or g.dtype == torch.float32 for g in _grads(net.model))
    norm = torch.nn.utils.clip_grad_norm_(net.model.parameters(), 0.1)
    assert bool(torch.isfinite(norm))


def test_the_teacher_is_asked_once_for_each_input_and_says_the_same():
    model = settled("resnet14").float()
    teacher = Teacher(model)
    x, _ = _batch(dtype=torch.float32)
    first = teacher(x)
    assert torch.equal(first, model(x))
    mirrored = teacher(x.flip(-1))
    assert torch.equal(mirrored, model(x.flip(-1)))
    assert teacher.asked == 2
    order = torch.tensor([3, 1, 0, 7, 2])
    assert torch.equal(teacher(x[order]), first[order])
    assert torch.equal(
        teacher(torch.cat([x[:2], x.flip(-1)[:2]])), torch.cat([first[:2], mirrored[:2]])
    )
    assert teacher.asked == 2
    again = Teacher(model)
    again.load_state_dict(teacher.state_dict())
    assert torch.equal(again(x), first)
    assert again.asked == 0
    tight = Teacher(model, cache_mib=0)
    tight(x)
    tight(x)
    assert tight.asked == 2


class _Images(Data):
    """The pruning tests' data with five classes."""

    num_classes, input_shape = 5, SHAPE
    task = Classification(outputs=5)

    def batches(self, names, batch_size, **_):
        yield from super().batches(names, min(batch_size, len(self.y)))


CONFIG = TrainConfig(
    epochs=2, batch_size=16, learning_rate=0.02, drop_path=0.0, crop_padding=0, flip=False
)


class _Stop(Exception):
    pass


def _stop():
    raise _Stop


def test_a_resumed_training_is_equal_bit_for_bit(tmp_path):
    states = []
    for stops in (False, True):
        folder = tmp_path / str(stops)
        folder.mkdir()
        if stops:
            net = _net(dtype=torch.float32)
            with pytest.raises(_Stop):
                fit_elastic(
                    net, _Images(), CONFIG, Sandwich(net, seed=5), folder=folder, on_epoch=_stop
                )
            assert load_checkpoint(folder / "checkpoint.pt")["epoch"] == 1
        net = _net(dtype=torch.float32)
        result = fit_elastic(net, _Images(), CONFIG, Sandwich(net, seed=5), folder=folder)
        assert len(result.history) == 2
        states.append(net.model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_training_lowers_the_loss_of_the_smallest_sub_network():
    net = _net(dtype=torch.float32)
    result = fit_elastic(net, _Images(), replace(CONFIG, epochs=6), Sandwich(net))
    first, last = result.history[0], result.history[-1]
    assert last["smallest_val_loss"] < first["smallest_val_loss"]
    assert last["smallest_val_accuracy"] > 0.5


def test_what_cannot_be_trained_is_refused_in_a_sentence(monkeypatch):
    net, (x, _) = _net(dtype=torch.float32), _batch(dtype=torch.float32)
    with pytest.raises(ConfigError, match="share=2"):
        Sandwich(net, share=2)
    with pytest.raises(ConfigError, match="others=0 above 0"):
        Sandwich(net, others=0)
    with pytest.raises(ConfigError, match="compile"):
        fit_elastic(net, _Images(), replace(CONFIG, compile=True), Sandwich(net))
    sandwich = Sandwich(net)
    sandwich.step = 49
    with pytest.raises(NonFiniteLossError, match="became NaN"):
        sandwich.backward(x, lambda output: output.sum() * float("nan"))
    two = Group(0, 2, torch.device("cpu"))
    monkeypatch.setattr("darts_core.elastic.sandwich.current_group", lambda: two)
    with pytest.raises(DeviceError, match="group="):
        Sandwich(net)
