"""Pairs of a fused cell and the same cell of plain modules in fp64, and their comparison."""

import copy
import dataclasses
from collections.abc import Mapping, Sequence

import torch

from darts_core.ops import OPS, register_op
from darts_core.ops.conv import DilatedConv
from darts_core.spaces import SearchSpace
from darts_core.supernet.cell import Preprocess, SearchCell
from darts_core.supernet.dense_layout import DenseLayout
from darts_core.supernet.paths import fused_class
from darts_core.supernet.plan import plan_cell
from darts_core.supernet.plan_separable import _preprocessing
from darts_core.supernet.skeleton import CellSpec
from darts_kernels import cell_run as kernel_cell
from darts_kernels.testing import assert_matches, relative_error
from darts_kernels.tiles import default_tiles

if "test_dw_conv_7x7" not in OPS:

    @register_op("test_dw_conv_7x7", description="a user's operation: depthwise 7x7 and pointwise")
    def _dw_conv_7x7(channels: int, stride: int, *, affine: bool) -> torch.nn.Module:
        return DilatedConv(channels, stride, affine=affine, kernel=7, dilation=1)


def make_cell(
    ops: Sequence[str],
    *,
    channels: int = 2,
    nodes: int = 1,
    inputs: int = 1,
    reduces: bool = False,
    norm_after_pool: bool = True,
    preprocess: bool = False,
    last_reduced: bool = False,
    groups: int = 1,
) -> SearchCell:
    space = SearchSpace(
        name="test",
        ops=tuple(ops),
        cell_kinds=("normal",),
        inputs=inputs,
        nodes=nodes,
        skeleton="darts",
        concat=True,
        norm_after_pool=norm_after_pool,
    )
    spec = CellSpec("normal", 6, 4, channels, reduces, last_reduced)
    return SearchCell(
        space,
        channels,
        kind="normal",
        reduces=reduces,
        preprocess=Preprocess(spec, affine=False) if preprocess else None,
        channel_fraction=groups,
    )


def away_from_zero(shape: Sequence[int], rng: torch.Generator) -> torch.Tensor:
    """Values whose relu sign and pool order no rounding changes: spaced apart, none near zero."""
    count = int(torch.Size(shape).numel())
    steps = torch.randperm(count, generator=rng).double() - count / 2
    steps = torch.where(steps >= 0, steps + 1, steps)
    return (steps * (4.0 / count)).view(*shape).float()


def run(cell, inputs, weights, grad, dtype, *, autocast=False):
    """(output, input gradients, mixing-weight gradients) of one pass."""
    # copies: gradients of another pass must not add up in the same tensor
    xs = [x.detach().to(dtype, copy=True).requires_grad_() for x in inputs]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    mix = weights.detach().to(wide, copy=True).requires_grad_()
    for parameter in cell.parameters():
        parameter.grad = None
    with torch.autocast(inputs[0].device.type, dtype=torch.bfloat16, enabled=autocast):
        out = cell(xs, mix)
    out.backward(grad.to(out.dtype))
    return out.detach(), [x.grad for x in xs], mix.grad


def check_cell(
    cell: SearchCell,
    rng: torch.Generator,
    *,
    batch: int = 2,
    height: int = 5,
    width: int = 5,
    device: str = "cpu",
    precision: str = "fp32",
    floor: float | None = None,
    tiles: Mapping[str, int] | None = None,
    ties: bool = False,
    drawn: Sequence[int] | None = None,
    monkeypatch=None,
) -> None:
    """Compare output and every gradient of the fused cell with the modules in fp64.

    With `monkeypatch` the tiles are small, so that shapes are odd for them; `tiles` replaces some fields.
    With `drawn`, the operation of each edge (-1: none), the cell is sparse and the others have weight 0.
    """
    if floor is None:
        # on a GPU "fp32" is three TF32 products: the last bits of fp32 are not all there
        floor = 2e-6 if device == "cpu" else 1e-5
    cell = cell.to(device)
    cell.sparse = drawn is not None
    exact_cell, plain_cell = copy.deepcopy(cell).double(), copy.deepcopy(cell)
    plan = plan_cell(cell, cell.channels)
    assert plan.layout is not None, plan.reasons
    layout = plan.layout
    fused = fused_class(plan, on_gpu=True).adopt(cell, plan, precision)
    if monkeypatch is not None:
        small = small_tiles(layout.channels, layout.output_size(height, width), batch)
        small = small.with_values(dict(tiles or {}))
        monkeypatch.setattr(kernel_cell, "tiles_for", lambda *_: small)
    sizes = input_sizes(cell, height, width)
    inputs = [away_from_zero((batch, *size), rng).to(device) for size in sizes]
    if ties:  # every window holds equal values; all are positive, so no relu is at its kink
        inputs = [torch.randint(1, 3, x.shape, generator=rng).float().to(device) for x in inputs]
    weights = torch.rand(len(layout.edges), layout.operations, generator=rng).to(device)
    if drawn is not None:
        # in the space's order; where the host may look, modules that are not drawn are not run
        mask = torch.tensor([[k == d for k in range(layout.operations)] for d in drawn])
        weights = weights * mask.to(device)
        exact_cell, plain_cell = exact_cell.cpu(), plain_cell.cpu()
    out_height, out_width = layout.output_size(height, width)
    shape = (batch, layout.nodes * cell.channels, out_height, out_width)
    grad = torch.randn(shape, generator=rng).to(device)
    if precision == "bf16":
        inputs, grad = [x.bfloat16().float() for x in inputs], grad.bfloat16().float()
    low = torch.bfloat16 if precision == "bf16" else torch.float32
    *xs, mix, up = (x.to("cpu" if drawn is not None else device) for x in (*inputs, weights, grad))
    exact = run(exact_cell, xs, mix, up, torch.float64)
    plain = run(plain_cell, xs, mix, up, torch.float32, autocast=precision == "bf16")
    found = run(fused, inputs, weights, grad, low)
    for i, gradient in enumerate(plain[1]):
        assert relative_error(gradient, exact[1][i]) < 0.5, "the plain path is no yardstick"
    assert_matches(found[0], exact[0], plain[0], floor=floor, name="output")
    for i, gradient in enumerate(found[1]):
        assert_matches(gradient, exact[1][i], plain[1][i], floor=floor, name=f"input {i}")
    # one sum an edge and operation, of terms as large as the gradient: they may cancel
    terms = float(grad.norm())
    assert_matches(found[2], exact[2], plain[2], floor=floor, scale=terms, name="mixing weights")
    _check_params(fused, exact_cell, plain_cell, floor)
    _check_statistics(fused, exact_cell, plain_cell, floor)
    packed = fused.packed.grad.clone()
    again = run(fused, inputs, weights, grad, low)
    assert torch.equal(again[0], found[0]), "a second pass gives another output"
    assert torch.equal(again[2], found[2]), "a second pass gives other mixing-weight gradients"
    assert torch.equal(fused.packed.grad, packed), "a second pass gives other weight gradients"


def input_sizes(cell: SearchCell, height: int, width: int) -> list[tuple[int, int, int]]:
    """(channels, height, width) of each of the cell's inputs; its states are height x width."""
    pre = _preprocessing(cell)
    if not pre:
        return [(cell.channels, height, width)] * cell.inputs
    return [(wide, height * (1 + halved), width * (1 + halved)) for wide, halved in pre]


def small_tiles(channels: int, size: tuple[int, int], batch: int):
    tiles = default_tiles(channels, size[0], batch, size[1])
    rows = 3 if size[0] % 4 else 4
    return dataclasses.replace(
        tiles,
        rows=rows,
        lanes=16,
        inner_rows=size[0],
        inner_lanes=16,
        back_rows=rows,
        back_lanes=16,
        inner_back_rows=rows,
        inner_back_lanes=16,
        chunk=32,
        point_block=16,
        back_block=16,
        back_steps=2,
        plain_block=32,
    )


def _check_params(fused, exact_cell, plain_cell, floor: float) -> None:
    exact, plain = dict(exact_cell.named_parameters()), dict(plain_cell.named_parameters())
    by_section: dict[str, list[list[torch.Tensor]]] = {}
    for binding in fused.plan.params:
        name = f"{binding.module}.{binding.name}"
        section = _section(fused.plan.layout, binding)
        span = slice(binding.start, binding.start + binding.count)
        found = fused.packed.grad[span]
        right, usual = exact[name].grad, plain[name].grad
        if right is None:
            assert not found.any(), f"{name} was not drawn"
            continue
        values = [found.cpu(), right.cpu(), usual.cpu()]
        by_section.setdefault(section, []).append([v.reshape(-1) for v in values])
    for section, parts in by_section.items():
        found, right, usual = (torch.cat(list(p)) for p in zip(*parts, strict=True))
        assert_matches(found, right, usual, floor=floor, name=section)


def _section(layout, binding) -> str:
    if isinstance(layout, DenseLayout):
        return f"{binding.count} weights"
    return next(
        key
        for key, part in layout.sections.items()
        if part.start <= binding.start < part.start + part.size
    )


def _check_statistics(fused, exact_cell, plain_cell, floor: float) -> None:
    exact, plain = dict(exact_cell.named_buffers()), dict(plain_cell.named_buffers())
    for name, value in fused.named_buffers():
        if name.endswith("num_batches_tracked"):
            # the plan counts the passes of a cell, modules that are not drawn count none
            assert fused.sparse or int(value) == int(exact[name]), name
        else:
            scale = 0.0
            if name.endswith("running_mean"):
                # after one pass: a tenth of a mean, whose terms are as large as their deviation
                spread = (exact[name.replace("mean", "var")] - 0.9) / 0.1
                scale = 0.1 * float(spread.clamp_min(0).sqrt().norm())
            assert_matches(value, exact[name], plain[name], floor=floor, scale=scale, name=name)
