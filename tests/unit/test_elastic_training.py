"""The training of an elastic network: its gradients, its teacher, its resume, a loop of one's own."""

import copy
from collections import namedtuple
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from elastic_cases import SHAPE, Images, made, settled
from torch import nn

from darts_core.checkpoint import load_checkpoint, save_checkpoint
from darts_core.distributed import Group
from darts_core.elastic import Sandwich, elastic
from darts_core.elastic.fit import _Trainer, fit_elastic
from darts_core.elastic.norms import batch_statistics, recalibrate
from darts_core.errors import ConfigError, DeviceError, NonFiniteLossError, ResumeError
from darts_core.train import TrainConfig
from darts_core.train.teacher import Teacher

LOSS = torch.nn.functional.cross_entropy


def _net(name="resnet14", dtype=torch.float64):
    return copy.deepcopy(made(name, dtype))


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
        if choices == net.largest:  # it is there by now, and teaches the others, too
            taught = (taught + output.detach()) / 2
        (part if choices == net.largest else 0.5 * part).backward()
        total += float(part.detach()) / len(chosen)
    _close(found, _grads(net.model))
    assert float(loss) == pytest.approx(total, rel=1e-6)
    assert sandwich.choices() != chosen


def test_only_the_whole_network_moves_the_running_statistics_and_once_a_step(monkeypatch):
    net, (x, y) = _net(), _batch()
    net.model.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def count(module, inputs):  # as a network of a user's own counts its steps
        module.steps.add_(1)

    net.model.register_forward_pre_hook(count)
    alone = copy.deepcopy(net.model).train()
    alone(x)
    assert alone.steps == 1
    net.model.train()
    sandwich = Sandwich(net)
    monkeypatch.setattr(sandwich, "choices", lambda: [net.largest, net.largest, net.smallest])
    sandwich.backward(x, lambda output: LOSS(output, y))
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


def test_a_plan_that_a_validation_made_serves_the_training():
    net, (x, y) = _net("vit"), _batch(4)
    with torch.inference_mode(), net.running(net.smallest) as network:
        network.eval()(x)
    Sandwich(net, drawn=0).backward(x, lambda output: LOSS(output, y))
    found = _grads(net.model)
    fresh = _net("vit")
    Sandwich(fresh, drawn=0).backward(x, lambda output: LOSS(output, y))
    _close(found, _grads(fresh.model))


def test_what_belongs_to_a_network_follows_it_to_another_device():
    net = _net("vit")
    sandwich = Sandwich(net)
    for device in ("cpu", "meta"):
        net.model.to(device)
        assert sandwich._taught(_batch(2)[0].to(device)).device.type == device
        assert {p.device.type for p in sandwich.teacher.model.parameters()} == {device}
        kept = net.plan(net.smallest).tensors.values()
        indices = [i for names in kept for dims in names.values() for i in dims.values()]
        assert {i.device.type for i in indices if isinstance(i, torch.Tensor)} == {device}


def test_mixed_precision_is_that_of_the_block_around_the_call():
    net, (x, y) = _net("vit", torch.float32), _batch(dtype=torch.float32)
    seen = []
    net.model.head.register_forward_hook(lambda m, i, o: seen.append(o.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        Sandwich(net).backward(x, lambda output: LOSS(output.float(), y))
    assert set(seen) == {torch.bfloat16}
    assert all(g is None or g.dtype == torch.float32 for g in _grads(net.model))
    norm = torch.nn.utils.clip_grad_norm_(net.model.parameters(), 0.1)
    assert 0.0 < float(norm) < float("inf")


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
    model.seen = model(
        x
    )  # as a network keeps an attention's map: torch copies nothing with a history
    assert torch.equal(Teacher(model)(x), first)
    tight = Teacher(model, cache_mib=0)
    tight(x)
    tight(x)
    assert tight.asked == 2


CONFIG = TrainConfig(
    epochs=2, batch_size=16, learning_rate=0.02, drop_path=0.0, crop_padding=0, flip=False
)


def test_the_metrics_of_a_step_in_half_precision_are_given_full_outputs():
    net = _net("vit", torch.float32)
    trainer = _Trainer(net.model, Images(), CONFIG, ("params",), 0, torch.device("cpu"))
    trainer.begin(net, Sandwich(net, drawn=0), [])
    trainer.autocast = torch.bfloat16  # as on a GPU
    _, outputs = trainer._step(*_batch(4, torch.float32))
    assert outputs.dtype == torch.float32


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
                    net, Images(), CONFIG, Sandwich(net, seed=5), folder=folder, on_epoch=_stop
                )
            assert load_checkpoint(folder / "checkpoint.pt")["epoch"] == 1
        net = _net(dtype=torch.float32)
        result = fit_elastic(net, Images(), CONFIG, Sandwich(net, seed=5), folder=folder)
        assert len(result.history) == 2
        states.append(net.model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    kept = load_checkpoint(folder / "teacher.pt")
    save_checkpoint(folder / "teacher.pt", {**kept, "family": "of a network trained again"})
    net = _net(dtype=torch.float32)
    with pytest.raises(ResumeError, match=r"begun with other weights.*use another version="):
        fit_elastic(net, Images(), CONFIG, Sandwich(net, seed=5), folder=folder)


def test_training_lowers_the_loss_of_the_smallest_sub_network():
    net = _net(dtype=torch.float32)
    result = fit_elastic(net, Images(), replace(CONFIG, epochs=6), Sandwich(net))
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
        fit_elastic(net, Images(), replace(CONFIG, compile=True), Sandwich(net))
    for outputs in ([x, x], (x, x, x)):
        with pytest.raises(
            ConfigError, match=r"In training mode the network gives a (list|tuple) of"
        ):
            _Trainer._task_loss(None, outputs, None)
    sandwich = Sandwich(net)
    sandwich.step = 49
    with pytest.raises(NonFiniteLossError, match="became NaN"):
        sandwich.backward(x, lambda output: output.sum() * float("nan"))
    two = Group(0, 2, torch.device("cpu"))
    monkeypatch.setattr("darts_core.elastic.sandwich.current_group", lambda: two)
    with pytest.raises(DeviceError, match="group="):
        Sandwich(net)


def test_a_network_in_which_nothing_learns_is_refused_and_a_frozen_part_has_no_gradient():
    net, (x, y) = _net(), _batch(4)
    depth = next(v for v in net.variables if v.kind == "blocks")
    last = net.model.get_submodule(depth.skipped(depth.options[0])[0])
    net.model.requires_grad_(False)
    with pytest.raises(ConfigError, match="depends on no parameter that learns: all are frozen"):
        Sandwich(net).backward(x, lambda output: LOSS(output, y))
    last.requires_grad_(True)  # the smallest sub-network does without this block
    net.model.train()
    Sandwich(net, drawn=0).backward(x, lambda output: LOSS(output, y))
    having = {name for name, p in net.model.named_parameters() if p.grad is not None}
    assert having == {name for name, p in net.model.named_parameters() if p.requires_grad} != set()


def test_outputs_that_are_no_classes_need_their_task():
    net, (x, _) = _net(), _batch(4)
    model = net.model

    def off(module, args, output):
        return output[:, :1]

    hook = model.register_forward_hook(off)
    try:
        with pytest.raises(
            ConfigError, match=r"of shape \[4, 1\], which are no classes.*regression"
        ):
            Sandwich(net).backward(x, lambda output: output.square().mean())
        loss = Sandwich(net, task="regression").backward(x, lambda output: output.square().mean())
        assert loss.isfinite()
        Sandwich(net, share=0).backward(x, lambda output: output.square().mean())
    finally:
        hook.remove()


def test_a_state_goes_with_the_family_that_it_was_saved_of():
    given, (x, y) = settled("resnet14").double().state_dict(), _batch(4)

    def family(weights):
        model = settled("resnet14").double()
        model.load_state_dict(weights)
        return Sandwich(elastic(model, x))

    first = family(given)
    optimizer = torch.optim.SGD(first.net.model.parameters(), lr=0.1)
    first.backward(x, lambda output: LOSS(output, y))
    optimizer.step()
    state, trained = first.state_dict(), first.net.model.state_dict()
    again = family(given)  # the order that is documented: elastic first, then all states
    again.net.model.load_state_dict(trained)
    again.load_state_dict(state)
    assert again.step == 1
    with pytest.raises(ResumeError, match="only then load the states"):
        family(trained).load_state_dict(state)
    alone = Sandwich(first.net, share=0).state_dict()
    again.load_state_dict({**state, "teacher": alone["teacher"]})  # saved without a teacher
    assert again.step == 1
    del state["family"]  # of an earlier program
    family(trained).load_state_dict(state)


@pytest.mark.parametrize("kind", ["named", "list"])
def test_several_outputs_in_training_reach_the_loss_as_they_are(kind):
    net, (x, y) = _net(), _batch(4)
    model, Outputs = net.model, namedtuple("Outputs", ["logits", "other"])

    def several(module, args, output):
        if not module.training:
            return output
        return Outputs(output, output) if kind == "named" else [output, output]

    hook = model.register_forward_hook(several)
    model.train()
    try:
        Sandwich(net).backward(
            x, lambda o: LOSS(o.logits if kind == "named" else o[0], y) + LOSS(o[1], y)
        )
    finally:
        hook.remove()
    hook = model.register_forward_hook(lambda module, args, output: {"logits": output})
    try:
        with pytest.raises(ConfigError, match="gives a dict; Sandwich takes a tensor"):
            Sandwich(net, share=0).backward(x, lambda o: LOSS(o["logits"], y))
    finally:
        hook.remove()


def test_a_second_output_of_none_is_none_in_several_processes():
    sandwich, part = object.__new__(Sandwich), torch.ones(3, 2)
    sandwich.group = SimpleNamespace(processes=2, joined=lambda own: torch.cat([own, own]))
    output, other = sandwich._joined((part, None))
    assert (output.shape, other) == ((6, 2), None)
    # what stands deeper is joined, too: of this process's part alone it would be another loss in each
    _, (deeper,) = sandwich._joined((part, [part]))
    assert deeper.shape == (6, 2)
    with pytest.raises(ConfigError, match="gives a dict; Sandwich takes a tensor"):
        sandwich._joined((part, {"other": part}))


class _Two(Group):
    """The first of two processes, of which the other one forms a loss that is `gap` larger."""

    gap = 0.0

    def send(self, tensors):
        pass

    def joined(self, own):
        return torch.cat([own, own.detach()])

    def share(self, value):
        return value + self.gap

    def agree(self, value):
        return value


def test_processes_that_are_given_other_batches_are_refused_at_the_first_step(monkeypatch):
    net, (x, y) = _net(), _batch(4)
    two = _Two(0, 2, torch.device("cpu"))
    sandwich = Sandwich(net, drawn=0, group=two)
    sandwich.backward(x, lambda output: LOSS(output, y))
    monkeypatch.setattr(_Two, "gap", 0.1)
    sandwich.backward(x, lambda output: LOSS(output, y))  # looked at once
    with pytest.raises(ConfigError, match=r"other losses of their first batch.*Distributed"):
        Sandwich(net, drawn=0, group=two).backward(x, lambda output: LOSS(output, y))


def test_recalibrating_on_nothing_changes_nothing():
    model = settled("resnet14").float()
    before = copy.deepcopy(model.state_dict())
    recalibrate(model, iter(()))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())

    def broken():
        yield torch.randn(4, *SHAPE), None
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        recalibrate(model, broken())
    assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


def test_a_last_batch_of_one_example_is_left_out_of_the_statistics():
    """Norms behind a pooling refused it: "Expected more than 1 value per channel"."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))
    x = torch.randn(5, 4)
    wanted = copy.deepcopy(recalibrate(model, [(x[:4], None)]).state_dict())
    found = recalibrate(model, [(x[:4], None), (x[4:], None)]).state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in found.items())
    images, _ = _batch(dtype=torch.float32)
    network = recalibrate(_with(nn.BatchNorm2d), [(one[None], None) for one in images])
    assert network[1].num_batches_tracked == len(images)  # where every batch is one, all count


def test_a_small_last_batch_counts_by_its_examples():
    torch.manual_seed(0)
    x = torch.randn(10, 4)
    norm = recalibrate(nn.BatchNorm1d(4), [(x[:8], None), (x[8:], None)])
    first, last = ((part.mean(0), part.var(0)) for part in (x[:8], x[8:]))
    for found, one, other in zip((norm.running_mean, norm.running_var), first, last, strict=True):
        assert torch.allclose(found, 0.8 * one + 0.2 * other, rtol=1e-5, atol=1e-7)
    assert norm.momentum == 0.1
    # what does not fit into the memory goes in halves, and what had counted of it does not
    network, taken = nn.Sequential(nn.BatchNorm1d(4), nn.Identity()), []

    def full(module, given):
        taken.append(len(given[0]))
        if taken[-1] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    network[1].register_forward_pre_hook(full)
    recalibrate(network, [(x[:8], None), (x[8:], None)])
    assert taken == [8, 4, 4, 2]
    wanted = recalibrate(nn.BatchNorm1d(4), [(part, None) for part in (x[:4], x[4:8], x[8:])])
    assert torch.equal(network[0].running_mean, wanted.running_mean)
    assert torch.equal(network[0].running_var, wanted.running_var)


def _with(norm):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), norm(16), nn.ReLU(), nn.Conv2d(16, 16, 3), norm(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip


def test_norms_over_processes_are_cut_and_recalibrated_by_the_process_that_is_there():
    x, _ = _batch(dtype=torch.float32)
    cuts = []
    for norm in (nn.BatchNorm2d, nn.SyncBatchNorm):
        net = elastic(_with(norm), x[:2])
        cuts.append(net.cut(net.smallest, [(x, None)]))
    plain, synchronized = cuts
    assert (type(synchronized[1]), synchronized[1].num_features) == (nn.SyncBatchNorm, 4)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, synchronized.state_dict()[name]), name
    # torch's size of a group that this process is not in: nobody is waited for
    with batch_statistics(synchronized):
        assert torch.distributed.get_world_size(synchronized[1].process_group) == -1
    assert synchronized[1].process_group is None
