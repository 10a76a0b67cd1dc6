"""The model of a step on an H100: its sums, its limits, and that it says what it is."""

import os

import pytest
import torch
import triton

from darts_core.bench import model, step
from darts_core.bench.model import estimate_case, estimate_launch
from darts_core.bench.offline import OfflineCase, step_launches, step_layout
from darts_core.cli import main
from darts_core.settings import BenchOptions

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter replaces the launch path"
)
FACTS = {"instructions": 100, "looped": 40}


def test_a_launch_is_bound_by_bytes_or_by_instructions_and_never_free():
    gigabyte = 1e9 / (0.75 * 3020e6)
    assert estimate_launch(1e9, 10_000, 4, None, 1)[0] == pytest.approx(gigabyte + model.LAUNCH_MS)
    assert estimate_launch(0, 1, 4, None, 1)[0] == model.LAUNCH_MS
    # 60 instructions once and 40 eight times, by 4 warps of a million programs
    ms, issued = estimate_launch(1e6, 10**6, 4, FACTS, 8)
    assert issued == (60 + 320) * 4e6
    assert ms == pytest.approx(issued / (132 * 4 * 1.755e6 * 0.6) + model.LAUNCH_MS)


def test_few_programs_leave_multiprocessors_idle():
    full = estimate_launch(1e9, 132, 4, None, 1)[0] - model.LAUNCH_MS
    half = estimate_launch(1e9, 66, 4, None, 1)[0] - model.LAUNCH_MS
    assert half == pytest.approx(2 * full)
    assert estimate_launch(1e9, 264, 4, None, 1)[0] - model.LAUNCH_MS == pytest.approx(full)


def test_the_fit_gives_back_what_it_was_fitted_on():
    """GB and ms of the prototype's kernels at TF32, a step of two passes in waves of 8 cells."""
    for gigabytes, measured_ms, launches in (
        (6.0, 2.5, 128),
        (12.0, 5.7, 124),
        (3.64, 1.8, 64),
        (3.49, 1.5, 64),
    ):
        found = launches * estimate_launch(gigabytes * 1e9 / launches, 10_000, 4, None, 1)[0]
        assert found == pytest.approx(measured_ms, rel=0.2)


UNFITTED = (
    # channels, bf16, images, measured ms, how much too fast the model is
    (16, False, 64, 3.12, 0.14), (32, False, 64, 1.67, 0.17), (64, False, 64, 1.07, 0.32),
    (16, True, 64, 2.71, 0.24), (32, True, 64, 1.36, 0.21), (64, True, 64, 0.88, 0.35),
    (16, True, 256, 9.73, 0.18), (32, True, 256, 4.43, 0.09), (64, True, 256, 2.59, 0.20),
)  # fmt: skip


@pytest.mark.parametrize(("channels", "low", "batch", "measured_ms", "off"), UNFITTED)
def test_how_far_off_it_is_where_it_was_not_fitted(channels, low, batch, measured_ms, off):
    """Single cells of the prototype, forward and backward, 69 launches; docs/kernels.md has the same table.

    The bytes and the depthwise times of a C=16 cell are its share of the whole step's (26.9 GB, 12.7 ms),
    which is the cell's share of the measured cells; a doubling of channels halves them, as in the network.
    """
    cells_ms = 2 * (2 * 3.12 + 1.77 + 2 * 1.67 + 1.18 + 2 * 1.07)
    share = 3.12 / cells_ms * 16 / channels * batch / 64
    moved = share * 26.9e9 * (0.5 if low else 1)
    found = 69 * estimate_launch(moved / 69, 10_000, 4, None, 1)[0] + share * 12.7
    assert 1 - found / measured_ms == pytest.approx(off, abs=0.01)


def test_a_step_s_launches_and_bytes_are_those_that_are_launched():
    case = OfflineCase(channels=4, layers=3, batch=4, size=8)
    found = estimate_case(case)
    assert found.total("launches") == sum(len(part) for part in step_launches(case).values())
    # no cell of the golden file has these sizes: its launches go by their bytes, and are counted so
    assert found.total("unknown") > 0.9 * found.total("launches")
    assert "by their bytes alone" in found.lines()[-1]
    larger = estimate_case(OfflineCase(channels=4, layers=3, batch=8, size=8))
    assert larger.total("gigabytes") == pytest.approx(2 * found.total("gigabytes"), rel=0.02)
    low = estimate_case(OfflineCase(channels=4, layers=3, batch=4, size=8, precision="bf16"))
    high = estimate_case(OfflineCase(channels=4, layers=3, batch=4, size=8, precision="fp32"))
    assert 0.5 <= low.total("gigabytes") / high.total("gigabytes") < 0.6
    # TF32 stores some in 16 bits
    assert low.total("gigabytes") < found.total("gigabytes") < high.total("gigabytes")


def test_the_step_of_the_paper_moves_more_than_its_floor():
    """Launches and bytes of the whole supernet: pinned, so that a change in them shows."""
    found = estimate_case(OfflineCase())
    assert found.total("launches") == 937
    assert found.total("gigabytes") == pytest.approx(26.8, abs=0.1)


@pytest.mark.skipif(
    not triton.__version__.startswith("3.7."), reason="the golden file of another compiler"
)
@pytest.mark.parametrize(("precision", "most_ms"), [("tf32", 15.0), ("bf16", 11.5)])
def test_the_step_of_the_paper_is_as_fast_as_is_asked_for(precision, most_ms):
    """By the model, every binary of the step known: a launch that goes by its bytes alone looks too fast."""
    found = estimate_case(OfflineCase(precision=precision))
    assert not found.total("unknown")
    assert found.total("estimated_ms") <= most_ms


def test_a_program_runs_one_of_the_bodies_of_a_second_stage():
    """Its text has one for each filter."""
    case = OfflineCase(channels=4, layers=3, batch=4, size=8)
    launches = step_launches(case)
    second = [x for part in launches.values() for x in part if x.variant.kernel == "_inner_kernel"]
    rows = {x.variant.name: {"instructions": 1000, "looped": 0} for x in second}
    found = model.estimate_step(launches.values(), case, step_layout(case), rows).kernels["inner"]
    warps = sum(x.programs * x.variant.options["num_warps"] for x in second)
    assert found.instructions == pytest.approx(1000 / 2 * warps)


def test_explain_says_that_it_estimates(capsys):
    words = ["space=darts", "channels=4", "layers=3", "batch_size=4", "size=8", "bandwidth=100"]
    assert main(["explain", *words]) == 0
    out = capsys.readouterr().out
    assert "on an H100 at TF32, estimated and not measured" in out
    assert "kernel (estimated for an H100)" in out
    assert main(["explain", *words, "relax=dirichlet"]) == 0
    assert "no estimate of a GPU's step" in capsys.readouterr().out


def test_a_benchmark_has_an_estimate_for_fused_first_order_steps_alone():
    options = BenchOptions(channels=4, layers=1, batch_size=4, size=8)
    case = step.StepCase(options, torch.device("cpu"))
    assert step._estimated_ms(case, "plain graph") is None
    assert step._estimated_ms(case, "fused tf32 second order") is None
    assert step._estimated_ms(case, "fused tf32") > 0
