"""Data-parallel search: two and four gloo processes against one process."""

import ast
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import distributed_worker as worker
import pytest
import torch

from darts_core import distributed
from darts_core.commands.ranks import Ranks
from darts_core.distributed import Group, join_group
from darts_core.errors import ConfigError, DeviceError
from darts_core.search import SearchConfig
from darts_core.search.distributed import ShardedBundle, search_distributed
from darts_core.strategies import FirstOrder, Unrolled
from darts_core.testing import tiny_bundle
from darts_core.train import TrainConfig

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.full)])
def ranks(request, tmp_path_factory):
    """What the processes computed."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    for rank in range(request.param):
        environment = {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(request.param),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}",
        }
        command = [sys.executable, worker.__file__, str(folder)]
        processes.append(
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        )
    for process in processes:
        _, errors = process.communicate(timeout=900)
        assert process.returncode == 0, errors
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(request.param)]


class FirstOrderOverParts(FirstOrder):
    def __init__(self, world):
        super().__init__()
        self.world = world

    def alpha_gradients(self, batch):
        step = super().alpha_gradients
        sides = [step(worker.part(batch, rank, self.world)) for rank in range(self.world)]
        mean = [sum(own) / self.world for own in zip(*(side[0] for side in sides), strict=True)]
        return mean, sides[0][1], sides[0][2]

    def params_step(self, batch):
        sides = []
        for rank in range(self.world):
            part = worker.part(batch, rank, self.world)
            loss, _ = self.loss(part, self.params_weights(part))
            sides.append(torch.autograd.grad(loss, self.params, allow_unused=True))
        mean = [
            None if own[0] is None else sum(own) / self.world for own in zip(*sides, strict=True)
        ]
        self.apply_params(mean)
        return loss.detach(), torch.zeros(())


def steps_in_one_process(strategy):
    net = worker.supernet().double()
    strategy.setup(net, worker.SETTINGS)
    for params_batch, alpha_batch in worker.whole_batches():
        strategy.step(params_batch, alpha_batch)
    return [p.detach() for p in [*net.parameters(), *net.alphas()]]


def test_by_default_the_step_is_the_mean_over_the_parts(ranks):
    expected = steps_in_one_process(FirstOrderOverParts(len(ranks)))
    for found in ranks:
        for a, b in zip(found["FirstOrder/False"], expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["FirstOrder", "Unrolled"])
def test_batched_cells_take_the_same_step(ranks, kind):
    for found in ranks:
        for a, b in zip(found[f"{kind}/batched"], found[f"{kind}/False"], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", [FirstOrder, Unrolled])
def test_with_synchronized_norms_the_step_is_that_of_one_process(ranks, kind):
    expected = steps_in_one_process(kind())
    for found in ranks:
        for a, b in zip(found[f"{kind.__name__}/True"], expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "case",
    ["FirstOrder/False", "Unrolled/False", "Unrolled/True", "Unrolled/batched", "candidate"],
)
def test_processes_never_part(ranks, case):
    for other in ranks[1:]:
        for a, b in zip(ranks[0][case], other[case], strict=True):
            assert torch.equal(a, b)


def test_synchronized_norm_equals_a_norm_over_all_images(ranks):
    torch.manual_seed(3)
    x = torch.randn(8, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    up = torch.randn(8, 4, 5, 5, dtype=torch.float64)
    norm = torch.nn.BatchNorm2d(4).double()
    out = norm(x)
    (gradient,) = torch.autograd.grad((out * up).sum(), x)
    torch.testing.assert_close(torch.cat([r["norm"][0] for r in ranks]), out.detach())
    torch.testing.assert_close(torch.cat([r["norm"][1] for r in ranks]), gradient)
    for found in ranks:
        torch.testing.assert_close(found["norm"][2], norm.running_mean)
        torch.testing.assert_close(found["norm"][3], norm.running_var)


def test_a_whole_search_ends_with_one_architecture_and_one_measured_accuracy(ranks):
    assert len({found["search"] for found in ranks}) == 1
    assert len({found["val_accuracy"] for found in ranks}) == 1


def test_guards_find_the_same_in_every_process_and_end_all_of_them(ranks):
    (guarded,) = {found["guarded"] for found in ranks}
    findings, stopped, _ = ast.literal_eval(guarded)
    assert [epoch for epoch, _ in findings] == [1]
    assert "gradient_similarity" in stopped


@pytest.mark.parametrize("case", ["batch norm", "no norm", "elastic"])
def test_a_training_is_that_of_one_process(ranks, case):
    """Weighted classes, label smoothing, clipping, augmentation and the moving average included."""
    alone = worker.shrunk(None) if case == "elastic" else worker.trained(case, None)
    state, rows, shown = alone
    for found, seen, network in (other[case] for other in ranks):
        assert seen == ranks[0][case][1]
        assert network == shown  # its norms are its own again
        for name, wanted in state.items():
            torch.testing.assert_close(found[name], wanted, rtol=1e-9, atol=1e-12)
        for one, other in zip(rows, seen, strict=True):
            assert one == pytest.approx(other, rel=1e-6)
            assert one["train_accuracy"] == other["train_accuracy"]


def test_a_training_goes_on_bit_for_bit(ranks):
    for found in ranks:
        assert found["cut short"][1] == found["batch norm"][1]
        for name, wanted in found["batch norm"][0].items():
            assert torch.equal(found["cut short"][0][name], wanted)


def test_gradients_add_up_and_a_param_that_nobody_used_has_none(ranks):
    for found in ranks:
        total = float(sum(range(1, len(ranks) + 1)))
        assert found["summed"] == [[total, total], [7.0, 8.0], None]


def test_parts_of_a_batch_join_to_the_whole_and_evaluation_sees_everything():
    bundle = tiny_bundle()
    parts = [ShardedBundle(bundle, Group(rank, 2, bundle.device)) for rank in range(2)]
    for whole, a, b in zip(
        bundle.batches("params", 8, seed=1), *(p.batches("params", 8, seed=1) for p in parts),
        strict=True,
    ):  # fmt: skip
        assert torch.equal(torch.cat([a[0], b[0]]), whole[0])
        assert torch.equal(torch.cat([a[1], b[1]]), whole[1])
    for shuffle in (False, True):
        of_val = parts[0].batches("val", 4, shuffle=shuffle, drop_last=False)
        assert sum(len(y) for _, y in of_val) == bundle.size("val") == parts[0].size("val")


def test_more_processes_than_gpus_are_refused(monkeypatch):
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceError, match="2 processes here"):
        join_group()


def test_gpus_that_are_asked_for_and_not_there_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(distributed, "join_group", lambda _: pytest.fail("it ran on the CPU"))
    with pytest.raises(DeviceError, match=r"device=cuda is not there.*use device=cpu"):
        Ranks(0, 2).join(SimpleNamespace(STAGE="train", device="cuda"))


def test_what_cannot_be_shared_is_refused():
    with pytest.raises(ConfigError, match=r"sync_batchnorm=true does not go with train.compile"):
        TrainConfig(sync_batchnorm=True, compile=True)
    with pytest.raises(ConfigError, match=r"train.batch_size=9 .* 2 processes; use a multiple"):
        Group(0, 2, torch.device("cpu")).check_batch("train.batch_size", 9)


def test_it_is_refused_outside_a_group(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(DeviceError, match="torchrun"):
        join_group()
    with pytest.raises(DeviceError, match="join_group"):
        search_distributed(worker.supernet(), FirstOrder(), tiny_bundle(), SearchConfig())
