"""Which operations of a sparse cell are drawn, as flags that every kernel reads from device memory.

Maths. With w the mixing weights, slot k the column of a slot,

    drawn[e, k] = [w_ek != 0],        live[r] = [some edge that uses row group r of the statistics drew it]

A group is the channels of one branch of an edge, or of one pool of a state, which all edges of that state
share. Programs of a branch that is not drawn return at once, forward and backward: what they would have
written stays undefined and is never read, as every reader looks at the same flags. The gradient of a weight
that is not drawn is zero, and so are those of its operation's params; running statistics stay.

The edges that leave a state of a cell with dense convolutions have flags of their own: [J * E] of the
convolutions, kernel size by kernel size, then whether some edge drew each pool, and the skip.

Shapes: w [E, K] fp32; drawn [E, slots] and live [groups], int32. Bytes: none to speak of.

Source: one path an edge as in GDAS (arXiv:1910.04465), section 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from darts_kernels._common import launch_options
from darts_kernels._device import begin

if TYPE_CHECKING:
    from darts_kernels.layout import CellLayout, CellTables

__all__ = ["drawn_flags", "drawn_reference", "source_flags", "source_flags_reference"]


def drawn_reference(layout: CellLayout, mix_EK: Tensor) -> tuple[Tensor, Tensor]:
    """(drawn [E, slots], live [groups]) by torch alone."""
    columns = [max(0, column) for column in layout.slots]
    drawn = (mix_EK != 0)[:, columns]
    count = len(layout.first)
    pools = drawn[:, count : count + layout.pools]
    states = [
        pools[[e for e, (source, _) in enumerate(layout.edges) if source == state]].any(0)
        for state in range(layout.states - 1)
    ]
    live = [
        drawn[:, :count].reshape(-1),
        drawn[:, : len(layout.second)].reshape(-1),
        torch.stack(states).reshape(-1),
        drawn[: layout.reduced_edges, -1],
    ]
    return drawn.int(), torch.cat(live).int()


@triton.jit(do_not_specialize=["edges", "reduced", "second", "pool", "reduction"])
def _flag_kernel(
    mix_ptr, slot_op_ptr, first_ptr, drawn_ptr, live_ptr, edges, reduced, second, pool, reduction,
    F1: tl.constexpr, F2: tl.constexpr, NPOOL: tl.constexpr, K_OPS: tl.constexpr,
    OVERLAP: tl.constexpr = False,
):  # fmt: skip
    begin(OVERLAP)
    i = tl.program_id(0)
    SLOTS: tl.constexpr = F1 + NPOOL + 1
    if i < edges:
        for k in tl.static_range(SLOTS):
            flag = (tl.load(mix_ptr + i * K_OPS + tl.load(slot_op_ptr + k)) != 0.0).to(tl.int32)
            tl.store(drawn_ptr + i * SLOTS + k, flag)
            if k < F1:
                tl.store(live_ptr + i * F1 + k, flag)
            if k < F2:
                tl.store(live_ptr + second + i * F2 + k, flag)
            if k == SLOTS - 1:
                tl.store(live_ptr + reduction + i, flag, mask=i < reduced)
    else:
        state = i - edges
        for p in tl.static_range(NPOOL):
            column = tl.load(slot_op_ptr + F1 + p)
            some = 0
            for e in range(tl.load(first_ptr + state), tl.load(first_ptr + state + 1)):
                some |= (tl.load(mix_ptr + e * K_OPS + column) != 0.0).to(tl.int32)
            tl.store(live_ptr + pool + state * NPOOL + p, some)


def drawn_flags(
    layout: CellLayout, tables: CellTables, mix_EK: Tensor, *, overlap: bool = False
) -> tuple[Tensor, Tensor]:
    """(drawn [E, slots], live [groups]) in one launch, without a look from the host."""
    edges, groups = len(layout.edges), layout.rows["input"] // layout.channels
    drawn = torch.empty(edges, len(layout.slots), dtype=torch.int32, device=mix_EK.device)
    live = torch.empty(groups, dtype=torch.int32, device=mix_EK.device)
    starts = [layout.rows[name] // layout.channels for name in ("second", "pool", "reduction")]
    _flag_kernel[(edges + layout.states - 1,)](
        mix_EK, tables.slot_ops, tables.first_edge, drawn, live, edges, layout.reduced_edges,
        *starts,
        F1=len(layout.first), F2=len(layout.second), NPOOL=layout.pools, K_OPS=layout.operations,
        **launch_options(1, overlap=overlap),
    )  # fmt: skip
    return drawn, live


def source_flags_reference(mix_ES: Tensor, filters: int) -> Tensor:
    """Flags of one state: [filters * E] of its edges' convolutions, then [slots - filters] of the rest."""
    drawn = mix_ES != 0
    return torch.cat([drawn[:, :filters].t().reshape(-1), drawn[:, filters:].any(0)]).int()


@triton.jit
def _source_flag_kernel(
    mix_ptr, live_ptr, E: tl.constexpr, J: tl.constexpr, SLOTS: tl.constexpr
):  # fmt: skip
    slot = tl.program_id(0)
    some = 0
    for e in range(E):
        flag = (tl.load(mix_ptr + e * SLOTS + slot) != 0.0).to(tl.int32)
        some |= flag
        if slot < J:
            tl.store(live_ptr + slot * E + e, flag)
    if slot >= J:
        tl.store(live_ptr + J * E + slot - J, some)


def source_flags(mix_ES: Tensor, filters: int) -> Tensor:
    """`source_flags_reference` in one launch, without a look from the host; fp32, contiguous weights."""
    edges, slots = mix_ES.shape
    live = torch.empty(filters * edges + slots - filters, dtype=torch.int32, device=mix_ES.device)
    _source_flag_kernel[(slots,)](mix_ES, live, E=edges, J=filters, SLOTS=slots, num_warps=1)
    return live
