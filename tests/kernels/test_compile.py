"""Every launch of a cell is assembled for an H100, without one."""

import dataclasses
import os

import pytest
import torch

from darts_core.spaces import get_space
from darts_core.supernet.fused import FusedSearchCell
from darts_core.supernet.paths import fused_class
from darts_core.supernet.plan import plan_cell
from darts_core.supernet.search_skeleton import _ImagenetStem
from darts_core.supernet.skeleton import cifar_stem
from darts_core.supernet.stem import fuse_stems
from darts_kernels import cell as kernel_cell
from darts_kernels import weighted_sum
from darts_kernels.tiles import default_tiles

from .cells import make_cell

TYPES = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.int8: "i8",
}


def type_of(value):
    """Triton's name of an argument's type."""
    if isinstance(value, tuple):
        return tuple(type_of(item) for item in value)
    if isinstance(value, torch.Tensor):
        return "*" + TYPES[value.dtype]
    return "fp32" if isinstance(value, float) else "i32"


def compile_launch(self, *args, grid, warmup=False, **kwargs):
    """In place of a launch: compile what would run."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    bound = dict(zip(self.arg_names, args, strict=False))
    options = {}
    for key, value in kwargs.items():
        (bound if key in self.arg_names else options)[key] = value
    signature, constants = {}, {}
    for parameter in self.params:
        value = bound[parameter.name]
        if parameter.is_constexpr:
            constants[parameter.name] = value
            signature[parameter.name] = "constexpr"
        else:
            signature[parameter.name] = type_of(value)
    key = (self.__name__, str(signature), str(constants), str(options))
    if key not in compile_launch.done:
        source = ASTSource(fn=self, signature=signature, constexprs=constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
        compile_launch.done[key] = compiled.metadata.shared


compile_launch.done = {}


@pytest.mark.full
@pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter replaces the compiler"
)
@pytest.mark.parametrize(
    ("precision", "channels", "reduces", "groups", "sparse", "fuse"),
    [
        ("tf32", 16, True, 1, False, 0),
        ("bf16", 20, False, 1, False, 1),
        ("fp32", 64, False, 1, False, 1),
        ("tf32", 16, True, 4, False, 0),
        ("tf32", 16, True, 1, True, 1),
        ("bf16", 32, False, 2, True, 0),
    ],
)
def test_the_darts_cell_compiles_for_an_h100(
    monkeypatch, precision, channels, reduces, groups, sparse, fuse
):
    from triton.runtime.jit import JITFunction

    monkeypatch.setattr(JITFunction, "run", compile_launch)
    small = dataclasses.replace(
        default_tiles(channels, 8, 8, 8), rows=2, inner_rows=2, back_rows=2, inner_back_rows=2,
        fuse_first=fuse, fuse_second=fuse,
    )  # fmt: skip
    monkeypatch.setattr(kernel_cell, "tiles_for", lambda *_: small)
    cell = make_cell(get_space("darts").ops, channels=channels, inputs=2, nodes=2, reduces=reduces,
                     preprocess=True, last_reduced=True, groups=groups)  # fmt: skip
    cell.sparse = sparse
    plan = plan_cell(cell, channels)
    fused = FusedSearchCell.adopt(cell, plan, precision).to("meta")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    inputs = [
        torch.empty(8, wide, 8 * (1 + halved), 8 * (1 + halved), device="meta", dtype=dtype)
        for wide, halved in zip(plan.layout.input_channels, plan.layout.input_reduces, strict=True)
    ]
    weights = torch.empty(len(plan.order), plan.layout.operations, device="meta")
    compile_launch.done.clear()
    out = fused([x.requires_grad_() for x in inputs], weights.requires_grad_())
    out.backward(torch.empty_like(out))
    fused.packed.requires_grad_(False)
    fused(inputs, weights).backward(torch.empty_like(out))
    names = {key[0] for key in compile_launch.done}
    assert {"_depthwise_backward_kernel", "_pointwise_backward_kernel", "_node_sum_kernel"} <= names
    assert ("_stage_kernel" in names) == bool(fuse)
    assert ("_split_kernel" in names, "_flag_kernel" in names) == (groups > 1, sparse)
    # shared memory of one block of an H100
    assert max(compile_launch.done.values()) <= 227 * 1024


@pytest.mark.full
@pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter replaces the compiler"
)
@pytest.mark.parametrize(
    ("precision", "channels", "norm", "sparse"),
    [
        ("tf32", 16, False, False), ("bf16", 20, True, False), ("fp32", 64, True, False),
        ("tf32", 16, False, True), ("bf16", 64, True, True), ("fp32", 64, True, True),
    ],
)  # fmt: skip
def test_the_nasbench201_cell_compiles_for_an_h100(monkeypatch, precision, channels, norm, sparse):
    from triton.runtime.jit import JITFunction

    monkeypatch.setattr(JITFunction, "run", compile_launch)
    ops = [*get_space("nasbench201").ops, *(["max_pool_3x3"] if norm else [])]
    cell = make_cell(ops, channels=channels, nodes=3, norm_after_pool=norm)
    cell.sparse = sparse
    plan = plan_cell(cell, channels)
    fused = fused_class(plan, on_gpu=True).adopt(cell, plan, precision).to("meta")
    x = torch.empty(8, channels, 8, 8, device="meta", requires_grad=True)
    weights = torch.empty(len(plan.order), plan.layout.operations, device="meta")
    compile_launch.done.clear()
    out = fused([x], weights.requires_grad_())
    out.backward(torch.empty_like(out))
    names = {key[0] for key in compile_launch.done}
    right = {"_moments_kernel", "_finalize_kernel", "_source_sum_kernel", "_source_reduce_kernel",
             "_source_coefficient_kernel", "_source_gradient_kernel",
             "_state_gradient_kernel"}  # fmt: skip
    if sparse:
        right -= set() if norm else {"_moments_kernel"}
        right |= {"_conv_kernel", "_conv_input_kernel", "_conv_weight_kernel", "_conv_share_kernel",
                  "_source_flag_kernel", "_source_pool_kernel"}  # fmt: skip
    assert names == right
    assert max(compile_launch.done.values()) <= 227 * 1024


@pytest.mark.full
@pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter replaces the compiler"
)
@pytest.mark.parametrize(
    ("precision", "make", "channels"),
    [("tf32", cifar_stem, 48), ("bf16", _ImagenetStem, 20), ("fp32", _ImagenetStem, 48)],
)
def test_the_stem_compiles_for_an_h100(monkeypatch, precision, make, channels):
    from triton.runtime.jit import JITFunction

    monkeypatch.setattr(JITFunction, "run", compile_launch)
    stem = make(3, channels).to("meta")
    fuse_stems(stem, precision)
    compile_launch.done.clear()
    outs = stem(torch.empty(8, 3, 32, 32, device="meta"))
    outs = outs if isinstance(outs, list) else [outs]
    torch.autograd.backward(outs, [torch.empty_like(out) for out in outs])
    names = {key[0] for key in compile_launch.done}
    assert {"_conv_kernel", "_conv_weight_kernel", "_conv_share_kernel"} <= names
    assert ("_conv_input_kernel" in names) == (len(outs) > 1)
    assert max(compile_launch.done.values()) <= 227 * 1024


@pytest.mark.full
@pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter replaces the compiler"
)
@pytest.mark.parametrize("wanted", [[True, True], [False, True]])
def test_the_weighted_sum_compiles_for_an_h100(monkeypatch, wanted):
    from triton.runtime.jit import JITFunction

    monkeypatch.setattr(JITFunction, "run", compile_launch)
    xs = [torch.empty(8, 4, device="meta") for _ in range(2)]
    weights = torch.empty(2, device="meta")
    compile_launch.done.clear()
    weighted_sum._forward(xs, weights)
    weighted_sum._backward(xs[0], xs if wanted[0] else [], weights, wanted, wanted[0])
    assert len(compile_launch.done) == 2
