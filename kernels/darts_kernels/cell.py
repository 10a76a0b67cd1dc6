"""A whole mixed cell, forward and backward, as waves of edge-batched kernels.

A wave is all edges that leave the sources which are complete. `cell_forward` and `cell_backward` are the two
launch sequences, to be read from top to bottom; `launch_forward` and `launch_backward` have what a launch
takes, the kernels' files the maths. darts_core wraps them into autograd and knows where parameters and
running statistics live. The reference is the module path.

Stored for the backward: states, convolution outputs before their norm, pools, argmax, moments, and the
depthwise outputs where gradients of the parameters will be wanted. Nothing is summed atomically: every
reduction goes through partial buffers, so a replay is bit-equal. Partials are merged by those who read them
where that takes less than a launch of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from darts_kernels import launch_backward as backward
from darts_kernels import launch_forward as forward
from darts_kernels import partial
from darts_kernels.cell_run import CellCall, CellRun, CellShape, Saved
from darts_kernels.drawn import drawn_flags

__all__ = ["cell_backward", "cell_forward"]


def cell_forward(
    run: CellRun, inputs: list[Tensor], mix_EK: Tensor, flat: Tensor
) -> tuple[Tensor, Saved]:
    """The cell's nodes [B, nodes * C, H, W] and what its backward needs.

    Args:
        run: layout, precision, running statistics.
        inputs: with preprocessing the outputs of the cells before, else the input states.
        mix_EK: mixing weights of the edges in the layout's order, fp32.
        flat: the packed parameters, fp32.
    """
    layout = run.layout
    batch, _, height, width = inputs[-1].shape
    s = CellShape(run, batch, height, width, inputs[-1].device)
    call = CellCall(run, s, mix_EK, flat, _allocate(run, s, mix_EK))
    sums = torch.empty(layout.rows["input"], s.parts, 2, device=mix_EK.device)
    forward.load_inputs(call, inputs)
    if layout.groups > 1:
        partial.cut_inputs(layout, s, call.saved)
        edge_weights = mix_EK.sum(1)
    if not run.train:
        forward.finish_moments(call, None, sums)
    for node, wave in enumerate(layout.waves):
        has_edges = wave[3] > wave[2]
        if has_edges and layout.first:
            forward.convolve_first(call, wave, sums)
        if layout.pools:
            forward.pool_states(call, wave, sums)
        if node == 0 and layout.reduced_edges:
            forward.reduce_inputs(call, sums)
        if has_edges and layout.second:
            forward.convolve_second(call, wave, sums)
        if run.train:
            forward.finish_moments(call, wave, sums)
        forward.combine(call, node)
        if layout.groups > 1:
            partial.join_node(layout, s, call.saved, edge_weights, node)
    if not run.keep:
        call.saved.depthwise1 = call.saved.depthwise2 = torch.empty(
            0, dtype=run.precision.scratch, device=mix_EK.device
        )
    nodes = call.saved.full[layout.inputs * s.full_input_size :]
    return nodes.view(s.batch, layout.nodes * s.CF, s.H, s.W), call.saved


def cell_backward(
    run: CellRun,
    inputs: list[Tensor],
    mix_EK: Tensor,
    flat: Tensor,
    saved: Saved,
    grad_nodes: Tensor,
    *,
    input_grads: list[bool],
) -> tuple[list[Tensor | None], Tensor, Tensor | None]:
    """(gradients of the inputs, of the mixing weights [E, K], of the packed parameters).

    Where the run keeps nothing for the parameters' gradients nothing is computed that only they need; without
    any of `input_grads` the first wave then stops at the mixing weights' gradients.
    """
    layout = run.layout
    batch, _, height, width = inputs[-1].shape
    s = CellShape(run, batch, height, width, grad_nodes.device)
    call = CellCall(run, s, mix_EK, flat, saved)
    work = backward.allocate(call, grad_nodes)
    into_inputs = any(input_grads) or (run.keep and bool(layout.input_channels))
    if layout.groups > 1:
        edge_weights = mix_EK.sum(1)
        work.dfull, edge_sums = partial.open_gradients(layout, s, work.dstate, grad_nodes)
    for node, wave in reversed(list(enumerate(layout.waves))):
        has_edges = wave[3] > wave[2]
        if has_edges:
            backward.reduce_branches(call, wave, work)
        if node > 0 or run.keep or into_inputs:
            if has_edges and layout.second:
                backward.pointwise_gradients(call, wave, "second", work)
                backward.inner_gradients(call, wave, work)
            if has_edges and layout.first:
                backward.pointwise_gradients(call, wave, "first", work)
            if node == 0 and layout.reduced_edges:
                backward.reduction_gradients(call, work)
            backward.state_gradients(call, wave, work)
        if layout.groups > 1:
            partial.close_source(
                layout, s, saved, wave, edge_weights, work.dstate, work.dfull, edge_sums
            )
    if layout.groups > 1 and into_inputs:
        partial.return_inputs(layout, s, work.dstate, work.dfull)
    grads: list[Tensor | None] = [None] * len(inputs)
    grad_flat = torch.empty_like(flat) if run.keep else None
    if into_inputs:
        grads = backward.input_gradients(call, inputs, work, input_grads, grad_flat)
    if grad_flat is not None:
        for name, shares in work.partials.items():
            torch.sum(shares, 0, out=layout.sections[name].of(grad_flat))
    grad_mix = backward.mixing_gradients(call, work)
    if layout.groups > 1:
        edge_grads = edge_sums.sum((1, 2))[:, None]
        grad_mix += edge_grads * (mix_EK != 0) if run.sparse else edge_grads
    return grads, grad_mix, grad_flat


def _allocate(run: CellRun, s: CellShape, mix_EK: Tensor) -> Saved:
    """Buffers for all that a forward pass keeps; where nothing is kept, depthwise outputs are one wave's."""
    layout, device = run.layout, mix_EK.device
    edges, sources = len(layout.edges), layout.states - 1

    def empty(*shape: int, dtype: torch.dtype = run.precision.storage) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    state = empty(layout.inputs * s.input_size + layout.nodes * s.node_size)
    full, pooled = state, 0
    if layout.groups > 1:
        full = empty(layout.inputs * s.full_input_size + layout.nodes * s.node_size * layout.groups)
        pooled = layout.inputs if layout.stride == 2 else 0
    passing = (pooled, s.batch, s.CF - s.C, s.HW)
    drawn = live = s.tables.slot_ops
    if run.sparse:
        drawn, live = drawn_flags(layout, s.tables, mix_EK, overlap=s.overlap)
    count1, count2 = len(layout.first), len(layout.second)
    held = edges if run.keep else max(last - begin for _, _, begin, last in layout.waves)
    depthwise1 = empty(held, max(1, count1), s.node_size, dtype=run.precision.scratch)
    depthwise2 = depthwise1
    if run.keep:
        depthwise2 = empty(held, count2, s.node_size, dtype=run.precision.scratch)
    saved = Saved(
        state=state,
        first=empty(edges, count1, s.node_size, dtype=run.precision.outputs),
        second=empty(edges, count2, s.node_size, dtype=run.precision.outputs),
        pools=empty(sources, layout.pools, s.node_size),
        argmax=empty(sources, len(layout.max_pools), s.node_size, dtype=torch.int8),
        reduced=empty(layout.reduced_edges, s.node_size, dtype=run.precision.outputs),
        moments=empty(layout.rows["end"], 2, dtype=torch.float32),
        full=full,
        passing=empty(*passing),
        passing_argmax=empty(*passing, dtype=torch.int8),
        drawn=drawn,
        live=live,
        depthwise1=depthwise1,
        depthwise2=depthwise2,
    )
    if layout.pools and not layout.pool_norm:
        plain = saved.moments[layout.rows["pool"] : layout.rows["reduction"]]
        plain[:, 0].zero_()
        plain[:, 1].fill_(1.0)
    return saved
