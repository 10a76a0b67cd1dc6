"""The fused inference stage: reference, kernel in the interpreter, kernel on a GPU; compiles for sm_90."""

import os

import pytest
import torch

from darts_kernels import infer_stage as stage
from darts_kernels.infer_stage import choose_blocks, infer_stage, infer_stage_reference

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
CASES = [
    # channels, outputs, kernel, stride, dilation, height, width, relu, bias, addend
    (5, 7, 3, 1, 1, 6, 5, True, True, True),
    (17, 16, 3, 2, 1, 7, 6, True, True, False),
    (8, 20, 5, 1, 2, 9, 4, False, False, True),
    (16, 33, 0, 1, 1, 4, 4, True, True, True),
    (9, 4, 0, 2, 1, 5, 7, True, False, False),
]


def inputs(case, dtype, device, seed):
    channels, outputs, kernel, stride, dilation, height, width, _, bias, addend = case
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        value = torch.randn(*shape, generator=generator)
        # away from the kink of the relu
        return (value + 1e-2 * value.sign()).to(device=device, dtype=dtype)

    padding = dilation * (kernel - 1) // 2 if kernel else 0
    # x is a channel slice of something wider, as behind a concatenation
    x = draw(2, channels + 3, height, width)[:, 2 : 2 + channels]
    deep = draw(channels, kernel, kernel) if kernel else None
    point = draw(outputs, channels) / channels**0.5
    high, broad = -(-height // stride), -(-width // stride)
    extra = draw(2, outputs, high, broad) if addend else None
    options = {"relu": case[7], "stride": stride, "dilation": dilation, "padding": padding}
    return (x, deep, point, draw(outputs) if bias else None, extra), options


def compare(case, dtype, device, blocks=None):
    seed = int(torch.empty((), dtype=torch.int64).random_())
    arguments, options = inputs(case, dtype, device, seed)
    exact = [None if a is None else a.double() for a in arguments]
    truth = infer_stage_reference(*exact, **options)
    plain = infer_stage_reference(*arguments, **options)
    high, broad = truth.shape[2:]
    whole = torch.full((2, truth.shape[1] + 2, high, broad), float("nan"), device=device)
    whole = whole.to(dtype)
    out = whole[:, 1:-1]
    found = infer_stage(*arguments, **options, out=out, blocks=blocks)
    assert found.data_ptr() == out.data_ptr()
    assert whole[:, :1].isnan().all()
    assert whole[:, -1:].isnan().all()
    # on a GPU an fp32 product is three of TF32: the last bits of fp32 are not all there
    full = 2e-6 if device == "cpu" else 1e-5
    floor = {torch.float32: full, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    scale = float(truth.abs().max())
    allowed = 2 * float((plain.double() - truth).abs().max()) + floor * scale
    error = float((found.double() - truth).abs().max())
    assert error <= allowed, f"seed {seed}: {error:.2e} > {allowed:.2e}"


def test_the_kernel_gets_weights_that_lie_one_after_the_other(monkeypatch):
    given = []

    class Kernel:
        def __getitem__(self, grid):
            return lambda *arguments, **_: given.extend(arguments)

    monkeypatch.setattr(stage, "_infer_stage_kernel", Kernel())
    x, deep = (
        torch.empty(1, 4, 5, 5, device="meta"),
        torch.empty(3, 3, 4, device="meta").permute(2, 1, 0),
    )
    point, bias = torch.empty(4, 6, device="meta").t(), torch.empty(12, device="meta")[::2]
    infer_stage(x, deep, point, bias, padding=1)
    tensors = given[1:4]
    assert [tuple(t.shape) for t in tensors] == [(4, 3, 3), (6, 4), (6,)]
    assert all(t.is_contiguous() for t in tensors)


@pytest.mark.parametrize("case", CASES)
def test_reference_path_on_a_cpu(case):
    if INTERPRETED:
        pytest.skip("the interpreter runs the kernel")
    compare(case, torch.float32, "cpu")


@pytest.mark.interpret
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("case", CASES)
def test_kernel_body_in_the_interpreter(case, dtype):
    if not INTERPRETED:
        pytest.skip("needs TRITON_INTERPRET=1")
    compare(case, dtype, "cpu", blocks=(32, 16, 16, 4))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_kernel_on_a_gpu(case, dtype):
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    compare(case, dtype, "cuda")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"point": torch.zeros(4, 6)}, "weights take 6"),
        ({"padding": 1}, "no padding"),
        ({"out": torch.zeros(1, 4, 3, 4)}, "shape"),
        ({"out": torch.zeros(1, 4, 4, 8)[..., ::2]}, "contiguous"),
        ({"x": torch.zeros(1, 5, 4, 8)[..., ::2]}, "rows"),
    ],
)
def test_misfits_are_refused(change, text):
    plain = {"x": torch.zeros(1, 5, 4, 4), "point": torch.zeros(4, 5)}
    known = plain | change
    x, point = known.pop("x"), known.pop("point")
    with pytest.raises(ValueError, match=text):
        infer_stage(x, None, point, None, **known)


def test_blocks_cover_any_width():
    for channels in (3, 36, 144, 576):
        for outputs in (10, 36, 144, 300):
            for pixels in (64, 1024, 10**6):
                block_p, block_o, block_c, warps = choose_blocks(
                    channels, outputs, pixels, deep=True
                )
                assert min(block_p, block_o, block_c) >= 16
                assert warps in (4, 8)
                assert block_o <= 256


@pytest.mark.full
@pytest.mark.skipif(INTERPRETED, reason="needs the compiler")
@pytest.mark.parametrize("kind", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("deep", [True, False])
def test_kernel_compiles_for_an_h100(kind, deep):
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from darts_kernels.infer_stage import _infer_stage_kernel as kernel

    names = kernel.arg_names
    constants = {
        "C": 36, "O": 36, "HI": 32, "WI": 32, "HO": 32, "WO": 32,
        "K": 3 if deep else 1, "STRIDE": 1, "DILATION": 1,
        "PADDING": 1 if deep else 0, "RELU": True, "DEEP": deep, "BIAS": True, "ADD": True,
        "DOT": "tf32x3" if kind == "fp32" else "tf32", "BLOCK_P": 64, "BLOCK_O": 64, "BLOCK_C": 16,
    }  # fmt: skip
    signature = {n: "constexpr" if n in constants else "i32" for n in names}
    signature |= {n: f"*{kind}" for n in names if n.endswith("_ptr")}
    source = ASTSource(kernel, signature, {(names.index(n),): v for n, v in constants.items()})
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
    assert len(compiled.asm["cubin"]) > 1000


def test_an_addend_whose_images_lie_too_far_apart_is_refused():
    x, point = torch.empty(2, 5, 4, 4, device="meta"), torch.empty(4, 5, device="meta")
    addend = torch.empty_strided((2, 4, 4, 4), (2**30, 16, 4, 1), device="meta")
    with pytest.raises(ValueError, match="32-bit offsets"):
        infer_stage(x, None, point, None, addend)
