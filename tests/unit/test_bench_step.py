"""`bench what=step` and `what=kernels` on a CPU, at toy size."""

import contextlib

import pytest
import torch

from darts_core.bench import kernels, step
from darts_core.bench.floor import floor_ms
from darts_core.bench.moved import edges_read, launch_bytes
from darts_core.bench.results import read_results
from darts_core.errors import ConfigError, DeviceError
from darts_core.export.verify import tf32
from darts_core.settings import BenchOptions
from darts_core.supernet.plan import plan_cell

TOY = {"channels": 2, "layers": 1, "batch_size": 4, "size": 6, "seconds": 0.01}


def config(tmp_path, **options):
    return BenchOptions(**{**TOY, "results": str(tmp_path), **options})


def test_step_rows_are_checked_and_written(tmp_path, capsys):
    options = {"variants": ["plain", "batched"], "cases": ["darts"]}
    found = step.run(config(tmp_path, **options), tmp_path)
    names = [row["name"] for row in found["rows"]]
    assert names == ["plain", "batched"]
    fast = read_results(found["results"]).rows[1]
    assert fast["check"] == "passed"
    assert fast["error"] < 1e-3
    assert fast["median_ms"] > 0
    assert fast["n"] >= 1
    assert fast["floor_ms"] > 0
    assert "batched" in capsys.readouterr().out


def test_every_case_in_second_order(tmp_path, capsys):
    options = {
        "channels": 4,
        "seconds": 0.001,
        "variants": ["plain second order", "batched second order"],
    }
    rows = step.run(config(tmp_path, **options), tmp_path)["rows"]
    assert [row["case"] for row in rows] == [name for name in step.CASES for _ in range(2)]
    assert {row["check"] for row in rows} == {"passed"}
    # the first row of an order is the rival of the others
    assert all(row["times_faster"] == 1 for row in rows[::2])
    assert not any(row["captured"] for row in rows)
    assert "gdas: 4 channels" in capsys.readouterr().out


@pytest.mark.parametrize("relaxation", ["partial_channels", "gumbel"])
def test_other_relaxations_pass_their_check(tmp_path, relaxation):
    options = {"relaxation": relaxation, "channels": 4, "variants": ["plain", "batched"]}
    rows = step.run(config(tmp_path, **options), tmp_path)["rows"]
    assert [row["check"] for row in rows] == ["passed", "passed"]
    assert all(row["median_ms"] > 0 and row["floor_ms"] > 0 for row in rows)


def test_a_red_check_prints_no_time(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(step.StepCase, "check", lambda *_: (False, 1.0, 0.0))
    found = step.run(config(tmp_path, variants=["batched"], cases=["darts"]), tmp_path)
    assert "median_ms" not in found["rows"][0]
    assert " ms" not in capsys.readouterr().out
    rows = kernels.run(config(tmp_path), tmp_path)["rows"]
    assert [row["check"] for row in rows] == ["FAILED"]


def test_kernel_rows(tmp_path):
    rows = kernels.run(config(tmp_path), tmp_path)["rows"]
    assert [row["name"] for row in rows] == ["cell plain", "cell batched"]
    assert all(row["median_ms"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"channels": 0}, r"options\.channels=0 is not allowed"),
        ({"variants": ["quick"]}, r"Unknown variants \['quick'\]"),
        ({"relaxation": "hard"}, r"Unknown bench\.options\.relaxation 'hard'"),
        ({"cases": ["mine"]}, r"Unknown cases \['mine'\]"),
    ],
)
def test_wrong_options(tmp_path, wrong, said):
    with pytest.raises(ConfigError, match=said):
        step.run(config(tmp_path, **wrong), tmp_path)


def test_a_row_that_cannot_run_leaves_the_others(tmp_path, monkeypatch):
    """Whatever kind of error a compiler has: Triton's are no RuntimeErrors, and some have no text."""

    class OutOfResources(Exception):
        pass

    errors = {
        "plain second order": OutOfResources("out of resource: shared memory"),
        "batched second order": RuntimeError(),
    }

    def made(case, name):
        if name in errors:
            raise errors[name]
        return lambda: None

    monkeypatch.setattr(step, "copy_bandwidth_gbs", lambda _: 1.0)
    monkeypatch.setattr(step.StepCase, "check", lambda *_: (True, 0.0, 0.0))
    monkeypatch.setattr(step.StepCase, "step", made)
    variants = ["batched", *errors]
    rows = step.run(config(tmp_path, variants=variants, cases=["darts"]), tmp_path)["rows"]
    assert [row["check"] for row in rows] == [
        "passed",
        "could not run: out of resource: shared memory",
        "could not run: RuntimeError",
    ]


def test_a_named_case_is_not_another_space(tmp_path):
    for own in ({"space": "nasbench201"}, {"relaxation": "gumbel"}):
        with pytest.raises(ConfigError, match=r"bench\.options\.cases names whole supernets"):
            step.run(config(tmp_path, cases=["darts"], **own), tmp_path)


@pytest.mark.parametrize("module", [step, kernels])
def test_a_device_that_is_not_there_is_a_sentence(tmp_path, module):
    with pytest.raises(DeviceError, match="device=gpu is no device"):
        module.run(config(tmp_path), tmp_path, device="gpu")


@pytest.mark.parametrize("module", [step, kernels])
def test_the_gpu_that_is_timed_is_the_current_one(tmp_path, module, monkeypatch):
    """A step of another GPU would be recorded as an empty graph."""
    current = []

    class Stop(Exception):
        pass

    def stop(*_, **__):
        raise Stop

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(module, "StepCase", stop)
    with pytest.raises(Stop):
        module.run(config(tmp_path, cases=["darts"]), tmp_path, device="cuda:1")
    assert current == [torch.device("cuda:1")]


def test_a_precision_that_the_kernels_lack_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"bench\.options\.precisions=fp16: .* fp32, tf32, bf16"):
        kernels.run(config(tmp_path, precisions=["fp16"]), tmp_path)


@pytest.mark.parametrize("module", [step, kernels])
def test_what_comes_after_has_its_own_tf32(tmp_path, module, monkeypatch):
    def check(*_):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        return False, 1.0, 0.0

    monkeypatch.setattr(step, "copy_bandwidth_gbs", lambda _: 1.0)
    monkeypatch.setattr(step.StepCase, "check", check)
    options = {"variants": ["batched"], "cases": ["darts"]}
    with tf32(True):
        module.run(config(tmp_path, **options), tmp_path)
        assert torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.allow_tf32


def test_a_process_that_chose_tf32_by_torchs_newer_name_has_it_again():
    """torch reads the older name only where both agree, and raised."""
    parts = [torch.backends.cuda.matmul, torch.backends.cudnn.conv]
    own = [part.fp32_precision for part in parts]
    with contextlib.ExitStack() as after:
        for part, precision in zip(parts, own, strict=True):
            after.callback(setattr, part, "fp32_precision", precision)
        parts[0].fp32_precision, parts[1].fp32_precision = "tf32", "ieee"
        for allowed, precision in ((False, "ieee"), (True, "tf32")):
            with tf32(allowed):
                assert torch.backends.cuda.matmul.allow_tf32 is allowed
                assert torch.backends.cudnn.allow_tf32 is allowed
                assert [part.fp32_precision for part in parts] == [precision] * 2
            assert [part.fp32_precision for part in parts] == ["tf32", "ieee"]
    assert not torch.backends.cuda.matmul.allow_tf32  # which can be read again


def test_bytes_of_a_launch():
    constants = {"C": 16, "HW": 1024, "F1": 4, "NPOOL": 2, "SKIP": True, "FR": False}
    one = 64 * 16 * 1024 * 4
    # three edges of one source: four branches and the gradient each, pools and the state once
    reduce = {**constants, "EDGES": 3}
    assert launch_bytes("_reduce_kernel", (16, 64, 1), reduce, 64, 4) == (3 * 5 + 3) * one
    # outputs in 16 bits
    assert launch_bytes("_reduce_kernel", (16, 64, 1), reduce, 64, 4, 2) == (3 * 3 + 3) * one
    forward = {"C": 16, "HW": 1024}
    assert launch_bytes("_pointwise_kernel", (8, 4, 2), forward, 64, 4, 2) == 8 * one
    # a node of two edges: four branches, two pools and the skip of each
    node = {**constants, "SKIP": True, "FR": False, "EDGES": 2, "DEGREE": 5}
    assert launch_bytes("_node_sum_kernel", (16, 64), node, 64, 4) == 15 * one
    partial = {"C": 16, "HW": 1024, "GROUPS": 4, "EDGES": 3}
    # three groups pass three edges and are written, the mixed channels are read and written
    assert launch_bytes("_join_kernel", (64, 64), partial, 64, 4) == 14 * one
    layout = plan_cell(
        step.StepCase(BenchOptions(**TOY), torch.device("cpu")).net.cells[0], 2
    ).layout
    assert edges_read({"node": 1}, (2, 3), layout) == 3
    assert edges_read({"source0": 0}, (2, 3, 2), layout) == 8
    assert edges_read({"edge0": 0}, (2, 3, 8), layout) is None
    # a stem reads 3 and writes 48 channels; its weight gradient reads both of them and the norm's input
    stem = {"E": 1, "CI": 3, "CO": 48, "HI": 32, "WI": 32, "H": 32, "W": 32}
    one = 64 * 1024 * 4
    assert launch_bytes("_conv_kernel", (1024, 1, 1), stem, 64, 4) == 51 * one
    backward = {**stem, "NORM": True}
    assert launch_bytes("_conv_weight_kernel", (64, 1, 1), backward, 64, 4) == 99 * one
    inputs = {**backward, "J": 1, "RELU": True}
    assert launch_bytes("_conv_input_kernel", (1024, 1), inputs, 64, 4) == 102 * one
    pool = {"C": 16, "HI": 32, "WI": 32, "H": 16, "W": 16}
    assert launch_bytes("_source_pool_kernel", (512,), pool, 64, 4) == 16 * 1.25 * one
    # 3 edges, 2 convolutions, a pool and a skip; one sum so far
    dense = {"BLOCK": 64, "E": 3, "J": 2, "P": 1, "SKIP": True, "C": 16, "BEFORE": 0b100}
    one = 1024 * 64 * 16 * 4
    found = launch_bytes("_source_sum_kernel", (1024,), dense, 64, 4)
    assert found == (6 + 2 + 3 + 1) * one


def test_the_floor_of_nasbench201_shrinks_with_the_cells():
    options = BenchOptions(**{**TOY, "space": "nasbench201", "size": 8})
    case = step.StepCase(options, torch.device("cpu"))
    # a wave of E edges moves 8 E + 8 tensors (4 E + 3 forward); width x resolution halves from stage to stage
    one = 4 * 4 * 2 * 64
    moves = (8 * 6 + 3 * 8) * one * (1 + 1 / 2 + 1 / 4)
    assert floor_ms(case.net, 4, 8, 10.0) == pytest.approx(2 * moves / 10e6)


def test_the_floor_counts_both_passes():
    case = step.StepCase(BenchOptions(**TOY), torch.device("cpu"))
    small = floor_ms(case.net, 4, 6, 10.0)
    assert floor_ms(case.net, 8, 6, 10.0) == pytest.approx(2 * small)
    assert floor_ms(case.net, 4, 6, 10.0, precision="bf16") == pytest.approx(small / 2)
    # TF32 stores outputs before their norm in 16 bits: between the two
    assert small / 2 < floor_ms(case.net, 4, 6, 10.0, precision="tf32") < small
