"""What a plan does in numbers and words: kernels, bytes and operations of every wave.

Bytes are the floor that the barriers of batch normalisation set, in fp32; `output_bytes` are those of them
that TF32 stores in 16 bits (`darts_kernels`, `Precision.outputs`). Every convolution output is written
once and read once forward. Backward the outputs that end at a node are read twice (for the norm's reductions,
then for the gradient); those inside a separable convolution twice as well, and their gradient is written and
read. A state is read once for what leaves it and, where it has pools or a skip, once for the sum (a pool
need not be stored: it can be made again from the state); likewise backward, where its gradient is written.
A node is written once, its gradient read twice. What passes by partial channels is read once an edge and
written once a node, both ways. The kernels move more than this: `bench.model` counts what they do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from darts_core.supernet.dense_layout import DenseLayout
    from darts_kernels.layout import CellLayout

__all__ = ["describe_plan", "describe_stem"]


def describe_plan(
    layout: CellLayout | DenseLayout, batch: int, height: int, width: int, *, sparse: bool = False
) -> list[dict[str, Any]]:
    """One row a wave: its edges, kernels, bytes moved and operations of a forward and backward pass.

    The kernels of a params step are listed, in order; an alpha step leaves out what only weight gradients
    need (reduction weights). Filling the first states (preprocessing, or a copy), and modules of loose
    columns, belong to no wave. Where a row of statistics has more than 128 partials (large batches), those
    between the two stages are merged by one launch more (`darts_kernels.launch_forward`). With `sparse`
    weights the kernels are those that skip what is not drawn, and bytes and operations are those of a draw
    of everything: upper bounds.
    """
    from darts_core.supernet.dense_layout import DenseLayout

    out_height, out_width = layout.output_size(height, width)
    elements = batch * layout.channels * out_height * out_width
    rows = (
        _dense_rows(layout, elements, sparse=sparse)
        if isinstance(layout, DenseLayout)
        else _rows(layout, elements)
    )
    for row in rows:
        row["launches_forward"] = len(row["kernels_forward"])
        row["launches_backward"] = len(row["kernels_backward"])
    return rows


def describe_stem(
    stem: nn.Module, batch: int, height: int, width: int
) -> list[dict[str, Any]] | None:
    """One row a convolution of a stem, as those of `describe_plan`; None for a stem of another form.

    Its kernels are those of the fused path; the first convolution reads the images, which want no gradient.
    """
    from darts_core.supernet.stem import chains, stem_parts

    rows: list[dict[str, Any]] = []
    for chain in chains(stem):
        for _, conv, _ in stem_parts(chain):
            backward = ["weight gradient", "weight sums"]
            if rows:
                backward = ["input gradient", *backward]
            read = batch * conv.in_channels * height * width
            height, width = (-(-length // conv.stride[0]) for length in (height, width))
            written = batch * conv.out_channels * height * width
            macs = written * conv.in_channels * conv.kernel_size[0] ** 2
            rows.append(
                {
                    "kernels_forward": ["convolution and moments", "norm"],
                    "kernels_backward": ["sums", "coefficients", *backward],
                    # forward x, y twice, the output; backward its gradient and y twice, x, its gradient
                    "bytes": 4 * (3 * written + read + 4 * written + (2 if rows else 1) * read),
                    "flops": 2 * (3 if rows else 2) * macs,
                }
            )
            row = rows[-1]
            row["launches_forward"] = len(row["kernels_forward"])
            row["launches_backward"] = len(row["kernels_backward"])
    return rows or None


def _rows(layout: CellLayout, elements: int) -> list[dict[str, Any]]:
    first, second = len(layout.first), len(layout.second)
    taps = sum(k * k for k, _ in layout.first) + sum(k * k for k, _ in layout.second)
    passing = layout.groups - 1
    rows = []
    for index, (source0, source1, edge0, edge1) in enumerate(layout.waves):
        edges, sources = edge1 - edge0, source1 - source0
        forward, backward = _state_moves(
            sources,
            layout.stride if source0 < layout.inputs else 1,
            shared=bool(layout.pools or layout.skip),
        )
        reduced = layout.reduced_edges if index == 0 else 0
        forward += edges * (2 * first + 2 * second) + 2 * reduced
        backward += edges * (2 * first + 4 * second) + 2 * reduced
        outputs = 4 * (edges * (first + second) + reduced)
        macs = edges * (taps + (first + second) * layout.channels) * elements
        rows.append(
            {
                "wave": index,
                "sources": list(range(source0, source1)),
                "edges": edges,
                "kernels_forward": _forward(layout, index, edges),
                "kernels_backward": _backward(layout, index, edges),
                "bytes": 4 * elements * (forward + backward + (2 * edges + 3 * sources) * passing),
                "output_bytes": 4 * elements * outputs,
                "flops": 2 * 3 * (macs + edges * passing * elements),
            }
        )
    return rows


def _state_moves(sources: int, stride: int, *, shared: bool, nodes: int = 1) -> tuple[int, int]:
    """Node-sized tensors moved (forward, backward) for a wave's sources and the nodes it completes."""
    size = sources * stride**2
    return size * (1 + shared) + nodes, size * (2 + shared) + 2 * nodes


def _forward(layout: CellLayout, index: int, edges: int) -> list[str]:
    names = []
    if edges and layout.first:
        names += ["depthwise", "pointwise"]
    if layout.pools:
        names.append("pools")
    if index == 0 and layout.reduced_edges:
        names.append("reduction")
    if edges and layout.second:
        names += ["second depthwise", "pointwise"]
    if names:
        names.append("moments")
    names.append("node sum")
    return [*names, "join"] if layout.groups > 1 else names


def _backward(layout: CellLayout, index: int, edges: int) -> list[str]:
    names = ["sums"] if edges else []
    if edges and layout.second:
        names += ["pointwise gradient", "second depthwise gradient"]
    if edges and layout.first:
        names.append("pointwise gradient")
    if index == 0 and layout.reduced_edges:
        names += ["reduction gradient", "reduction weights"]
    if layout.pools:
        names.append("pool gradient")
    names.append("state gradient")
    return [*names, "split"] if layout.groups > 1 else names


def _dense_rows(layout: DenseLayout, elements: int, *, sparse: bool) -> list[dict[str, Any]]:
    """One row for the edges of each source."""
    count, pools, passing = len(layout.filters), layout.pools, layout.groups - 1
    taps = sum(kernel * kernel for kernel, _ in layout.filters)
    rows: list[dict[str, Any]] = []
    for source in range(layout.states - 1):
        edge0, edge1 = layout.leaving(source)
        edges = edge1 - edge0
        if not edges:
            continue
        forward, backward = _state_moves(
            1,
            layout.stride_of(source),
            shared=bool(pools or layout.skip),
            nodes=int(source >= layout.inputs - 1),
        )
        forward += edges * 2 * count
        backward += edges * 2 * count
        macs = edges * taps * layout.channels * elements
        rows.append(
            {
                "wave": len(rows),
                "sources": [source],
                "edges": edges,
                "kernels_forward": _dense_forward(layout, sparse=sparse),
                "kernels_backward": _dense_backward(layout, sparse=sparse),
                "bytes": 4 * elements * (forward + backward + (2 * edges + 3) * passing),
                "flops": 2 * 3 * (macs + edges * passing * elements),
            }
        )
    return rows


def _dense_forward(layout: DenseLayout, *, sparse: bool) -> list[str]:
    count, pools = len(layout.filters), layout.pools
    normed = ["partial moments"] if layout.pool_norm and pools else []
    if sparse:
        names = ["flags", *["convolution and moments"] * count, *["drawn pool"] * pools, *normed]
    else:
        names = ["relu", *["convolution"] * count, *["pool"] * pools, "partial moments", *normed]
    return [*names, "moments", "node sum"]


def _dense_backward(layout: DenseLayout, *, sparse: bool) -> list[str]:
    count = len(layout.filters)
    names = ["sums", "coefficients", "branch gradients"]
    if sparse:
        names += ["input gradient", *["weight gradient", "weight sums"] * count]
    else:
        names += ["relu", *["convolution gradient"] * (2 * count)]
    return [*names, "state gradient"]
