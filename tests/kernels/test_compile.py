"""What is launched is compiled for an H100, without one, and the binaries are as the golden file says.

`make test-compile` looks at every case; `make test` at the DARTS step at TF32 and a sample of its binaries.
The interpreter replaces the compiler, so nothing of this runs under TRITON_INTERPRET.
"""

import ast
import os
import re

import pytest
import torch
import triton
import triton.language as tl

from darts_core.bench import offline
from darts_core.bench.offline import (
    EXPORTS,
    STEPS,
    OfflineCase,
    export_launches,
    step_launches,
)
from darts_kernels import standin, weighted_sum
from darts_kernels.binary import LARGEST_SHARED, occupancy, read_binary
from darts_kernels.standin import code_digest, compile_variant, recorded
from darts_kernels.variants import (
    changed,
    compiled,
    compiled_row,
    golden_path,
    read_golden,
    write_golden,
)

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter replaces the compiler"
)
RENEW = "If that is as it should be, `make variants` renews the golden file."
PLANES = {
    "_pointwise_kernel", "_pointwise_backward_kernel", "_node_sum_kernel", "_reduce_kernel",
    "_normalize_kernel", "_normalize_reduce_kernel", "_pool_backward_kernel", "_join_kernel",
    "_split_kernel", "_moments_kernel", "_source_sum_kernel", "_source_reduce_kernel",
    "_source_gradient_kernel", "_point_kernel", "_point_backward_kernel",
}  # fmt: skip
"""Kernels that read and write whole planes or rows in order, so that nothing forbids wide accesses."""
STRIDED = ("REDUCE=1", "POOLED=1", "STRIDE=2")
"""Every other pixel is read: wide accesses do not fit."""
ROWS_OF_A_WARP = (
    "a warp slides along rows with a lane a column: a line of memory a load, an element a lane"
)
TAPS = "windows are read tap by tap, and a window begins at any pixel"
NARROW = {
    "_depthwise_kernel": ROWS_OF_A_WARP,
    "_inner_kernel": ROWS_OF_A_WARP,
    "_depthwise_backward_kernel": ROWS_OF_A_WARP,
    "_inner_backward_kernel": ROWS_OF_A_WARP,
    "_pool_kernel": ROWS_OF_A_WARP,
    "_source_pool_kernel": TAPS,
    "_state_gradient_kernel": TAPS,
    "_conv_kernel": TAPS,
    "_conv_input_kernel": TAPS,
    "_conv_weight_kernel": TAPS,
    "_infer_stage_kernel": TAPS,
    "_halve_kernel": "every other pixel is read",
    "_reduction_backward_kernel": "every other pixel is read and written",
}
"""Kernels whose accesses the plan makes narrow, and why; docs/kernels.md has the same list."""
SMALL = {
    "_finalize_kernel", "_normalize_coefficient_kernel", "_source_coefficient_kernel", "_conv_share_kernel",
    "_flag_kernel", "_source_flag_kernel",
}  # fmt: skip
"""Kernels that move next to nothing: sums of partials, coefficients, flags."""
PRODUCTS = {"_pointwise_kernel", "_pointwise_backward_kernel", "_point_kernel", "_conv_kernel",
            "_point_backward_kernel", "_reduction_backward_kernel", "_conv_input_kernel",
            "_infer_stage_kernel"}  # fmt: skip


@pytest.fixture(scope="module")
def rows():
    found = read_golden()
    if not found:
        pytest.skip(f"there is no golden file for Triton {triton.__version__}: {golden_path()}")
    return found


@pytest.fixture(
    scope="module",
    params=sorted(golden_path().parent.glob("variants-triton-*.json")),
    ids=lambda path: path.stem,
)
def each(request):
    """The rows of every golden file, also of a Triton that is not installed."""
    return read_golden(request.param)


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@pytest.fixture(scope="module")
def variants():
    """Those of the DARTS step at TF32, by name."""
    launches = step_launches(OfflineCase())
    return {x.variant.name: x.variant for part in launches.values() for x in part}


def test_the_darts_step_is_in_the_golden_file(rows, variants):
    assert not changed(variants.values(), rows), f"kernels changed. {RENEW}"


def alike(row, other):
    """Whether two rows agree; the lines that a kernel stands on may move an instruction or two."""
    counts = ("instructions", "looped")
    near = all(row.get(k) == pytest.approx(other.get(k), rel=0.01) for k in counts)
    exact = ({k: v for k, v in r.items() if k not in counts} for r in (row, other))
    return near and next(exact) == next(exact)


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        ("_node_sum_kernel", "C=16"), ("_reduce_kernel", "C=64"), ("_pointwise_kernel", "C=16"),
        ("_pointwise_backward_kernel", "C=32"), ("_normalize_kernel", "C=16"),
        ("_point_backward_kernel", "CI=64"), ("_finalize_kernel", ""),
    ],
)  # fmt: skip
def test_a_sample_of_binaries_is_as_the_golden_file_says(
    rows, variants, fresh_cache, kernel, words
):  # fmt: skip
    variant = next(
        v for v in variants.values() if v.kernel == kernel and words in rows[v.name]["of"]
    )
    assert alike(compiled_row(variant), rows[variant.name]), RENEW


@pytest.mark.full
def test_every_variant_is_as_the_golden_file_says(rows):
    variants = offline.golden_variants()
    unlike = {}
    for name, row in compiled(changed(variants.values(), rows), min(2, os.cpu_count() or 1)):
        before = {k: v for k, v in rows.get(name, {}).items() if k != "source"}
        if not alike(before, {k: v for k, v in row.items() if k != "source"}):
            unlike[name] = (before, row)
    assert not unlike, f"{unlike} {RENEW}"
    assert set(variants) == set(rows), RENEW


def test_the_steps_are_those_that_a_gpu_is_to_run():
    assert {case.precision for case in STEPS} == {"tf32", "bf16", "fp32"}
    assert {(case.space, case.relaxation) for case in STEPS} == {
        ("darts", "softmax"), ("darts", "partial_channels"), ("darts", "gumbel"),
        ("nasbench201", "softmax"), ("nasbench201", "gumbel"),
    }  # fmt: skip
    assert {case.batch for case in STEPS if case.relaxation == "softmax"} == {64, 256}
    assert {batch for _, batch in EXPORTS} == {1, 256}


def found(rows, wrong):
    """The rows of which `wrong` is true, to read."""
    return [f"{row['kernel']}: {row['of']}: {row}" for row in rows.values() if wrong(row)]


def test_variants_that_are_compiled_alike_share_a_line(tmp_path):
    def row(kernel, registers):
        return {
            "kernel": kernel,
            "source": kernel[1:3],
            "registers": registers,
            "spills": 0,
            "of": "C=16",
        }

    rows = {
        "a_kernel-01": row("_a_kernel", 32), "a_kernel-02": row("_a_kernel", 40),
        "a_kernel-03": row("_a_kernel", 32), "b_kernel-01": row("_b_kernel", 32),
    }  # fmt: skip
    path = write_golden(rows, tmp_path / "golden.json")
    assert read_golden(path) == rows
    assert path.read_text().count('"C=16"') == 3
    rows["a_kernel-02"]["source"] = "old"
    with pytest.raises(ValueError, match="_a_kernel are of different sources"):
        write_golden(rows, path)


def test_no_thread_goes_to_local_memory(each):
    assert not found(each, lambda row: row["spills"])


def test_shared_memory_fits_an_h100(each):
    assert not found(each, lambda row: row["shared"] > LARGEST_SHARED)


def test_no_binary_loses_a_nan(each):
    """relu and pools keep NaN as torch does: a search that diverged must not look sound on the GPU alone."""
    assert not found(each, lambda row: row["loses_nan"])


def test_every_kernel_is_wide_or_says_why_not(each):
    kernels = {row["kernel"] for row in each.values()}
    assert kernels == PLANES | set(NARROW) | SMALL
    assert not PLANES & set(NARROW)
    assert kernels >= PRODUCTS


def test_registers_are_as_the_launch_asks(each):
    def above(row):
        cap = re.search(r"maxnreg=(\d+)", row["of"])
        return row["registers"] > (int(cap.group(1)) if cap else 255)

    assert not found(each, above)


def test_accesses_are_128_bits_wide_where_the_shape_allows_it(each):
    def narrow(row):
        allowed = row["kernel"] in PLANES and not any(word in row["of"] for word in STRIDED)
        return allowed and 0 < row["narrowest"] < 128

    assert not found(each, narrow)
    assert len(found(each, lambda row: row["narrowest"] == 128)) > len(each) / 4


def test_products_run_on_tensor_cores(each):
    assert not found(each, lambda row: row["kernel"] in PRODUCTS and not row["tensor"])


@triton.jit
def _plain_maximum(x_ptr, out_ptr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + i, tl.maximum(tl.load(x_ptr + i), 0.0))


@triton.jit
def _more_values_than_registers(x_ptr, out_ptr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i)
    tl.store(out_ptr + i, x * tl.sum(x))


@triton.jit(do_not_specialize=["count"])
def _unknown_count(x_ptr, out_ptr, count, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + i, tl.load(x_ptr + i, mask=i < count), mask=i < count)


def facts(kernel, *arguments, **options):
    x = torch.empty(4096, device="meta")
    (launch,) = recorded(lambda: kernel[(4,)](x, x, *arguments, **options))
    return read_binary(compile_variant(launch.variant))


def test_the_facts_show_what_they_are_to_show():
    plain = facts(_plain_maximum, BLOCK=1024)
    assert (plain.loses_nan > 0, plain.narrowest, plain.spills) == (True, 128, 0)
    narrow = facts(_unknown_count, 4096, BLOCK=1024)
    assert (narrow.loses_nan, narrow.narrowest) == (0, 32)
    assert facts(_more_values_than_registers, BLOCK=4096, num_warps=1, maxnreg=32).spills > 0
    # 64 registers, 4 warps: 8 blocks; 48 KB of shared memory: 4 of them
    assert occupancy(64, 0, 4) == 0.5
    assert occupancy(64, 48 * 1024, 4) == 0.25


def test_hints_are_the_runtime_s_own():
    """What the card derives from arguments - divisible by 16, equal to one - makes other variants."""
    x = torch.empty(4096, device="meta")

    def variant(*arguments):
        (launch,) = recorded(
            lambda: weighted_sum._weighted_sum_kernel[(4,)](*arguments, K=1, BLOCK=64)
        )
        return launch.variant.name

    usual = variant((x,), x, x, 256)
    assert variant((x,), x, x, 512) == usual
    assert variant((x,), x, x, 250) != usual
    assert variant((x[1:],), x, x, 256) != usual


def test_a_digest_is_of_code_and_not_of_lines():
    kernel = weighted_sum._weighted_sum_kernel
    code_digest.cache_clear()
    before = code_digest(kernel)
    source = kernel._src
    try:
        kernel._src = "\n\n" + source.replace("    total =", "    # a remark\n    total =", 1)
        code_digest.cache_clear()
        assert code_digest(kernel) == before
        kernel._src = source.replace("total +=", "total -=")
        code_digest.cache_clear()
        assert code_digest(kernel) != before
    finally:
        kernel._src = source
        code_digest.cache_clear()


def test_a_digest_is_the_same_under_every_python():
    tree = ast.parse("def f(a, *, b=1):\n  return [a]")
    assert standin._dumped(tree) == (
        "Module([FunctionDef('f', arguments([], [arg('a')], kwonlyargs=[arg('b')], "
        "kw_defaults=[Constant(1)], defaults=[]), [Return(List([Name('a', Load())], Load()))], [])], [])"
    )


@pytest.mark.parametrize("wanted", [[True, True], [False, True]])
def test_the_weighted_sum_compiles(wanted):
    xs = [torch.empty(8, 4, device="meta") for _ in range(2)]
    weights = torch.empty(2, device="meta")

    def both():
        weighted_sum._forward(xs, weights)
        weighted_sum._backward(xs[0], xs if wanted[0] else [], weights, wanted, wanted[0])

    rows = [compiled_row(launch.variant) for launch in recorded(both)]
    assert [(row["kernel"], row["spills"], row["loses_nan"]) for row in rows] == [
        ("_weighted_sum_kernel", 0, 0), ("_weighted_sum_backward_kernel", 0, 0),
    ]  # fmt: skip


def test_an_exported_network_launches_its_stages():
    launches = export_launches(torch.bfloat16, 1)
    assert {launch.variant.kernel for launch in launches} == {"_infer_stage_kernel"}
    assert len(launches) > 40
