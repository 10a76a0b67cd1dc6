"""One forward pass of a planned cell on a CPU, in few and fast library calls.

States are channels-last images [G, S * C, H, W]: the S samples of a group lie beside the channels, see
`taps`. What leaves a wave's states is: relu, all first separable convolutions (`separable`), norm and relu
of those that have a second one (`mixing`), all second ones, pools once a state and not once an edge, and the
node sums, which form the norms of all that enters them. With sparse weights the same is done for the drawn
operations alone. Any floating dtype, the values and gradients of the module path up to rounding, derived
once at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from darts_core.supernet.mixing import EPSILON, Norms, Term, mix, moments, norm_relu
from darts_core.supernet.packed import PackedCell
from darts_core.supernet.partial import Bypass, ImageBypass
from darts_core.supernet.separable import Branch, block_matrices, matrix, separable
from darts_core.supernet.taps import LAST

if TYPE_CHECKING:
    from darts_kernels.layout import CellLayout

__all__ = ["BatchedRun", "inside", "outside", "samples_of"]

_COLUMNS = 128
_MOMENTUM = 0.1


def samples_of(batch: int, channels: int) -> int:
    """How many samples lie beside each other: a divisor of the batch with samples * channels <= 128.

    One, where the library has no kernels for such images.
    """
    if not torch.backends.mkldnn.is_available():
        return 1
    room = max(1, _COLUMNS // channels)
    return next(s for s in range(min(room, batch), 0, -1) if batch % s == 0)


def inside(x_BCHW: Tensor, samples: int) -> Tensor:
    """[G, S * C, H, W], channels-last, of [B, C, H, W]."""
    x = x_BCHW.unflatten(0, (-1, samples)).permute(0, 3, 4, 1, 2)
    return x.flatten(3).permute(0, 3, 1, 2).contiguous(memory_format=LAST)


def outside(states: Sequence[Tensor], samples: int) -> Tensor:
    """[B, sum of channels, H, W], channels-last, of states."""
    parts = [state.permute(0, 2, 3, 1).unflatten(3, (samples, -1)) for state in states]
    joined = torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]
    return joined.permute(0, 3, 1, 2, 4).flatten(0, 1).permute(0, 3, 1, 2)


@lru_cache(maxsize=1024)
def _index(starts: tuple[int, ...], length: int) -> Tensor:
    return (torch.tensor(starts)[:, None] + torch.arange(length)).flatten()


class _Parts:
    """What a wave adds to its nodes: images with a norm, images without, and where each goes."""

    def __init__(self) -> None:
        self.normed: list[Tensor] = []
        self.rows: list[int] = []
        self.raw: list[Tensor] = []
        self.uses: list[tuple[bool, int, int, int]] = []

    def add(self, y: Tensor, row: int | None, uses: Sequence[tuple[int, int]]) -> None:
        """An image, its row of statistics (None: no norm) and the (edge, column) that it belongs to."""
        images = self.raw if row is None else self.normed
        self.uses += [(row is None, len(images), edge, column) for edge, column in uses]
        images.append(y)
        if row is not None:
            self.rows.append(row)


class BatchedRun:
    """One forward pass of one cell.

    Args:
        cell: whose params and statistics are used.
        layout: of the cell.
        mix_EK: mixing weights in the layout's order.
        batch: number of samples.
        drawn: for each edge the columns that are run; None: all.
    """

    def __init__(
        self,
        cell: PackedCell,
        layout: CellLayout,
        mix_EK: Tensor,
        batch: int,
        drawn: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.cell, self.layout, self.mix, self.drawn = cell, layout, mix_EK, drawn
        self.tracking = cell._probe is None or bool(cell._probe.track_running_stats)
        self.train = cell.training or not self.tracking
        self.samples = samples_of(batch, layout.channels)
        self.packed = cell.sections(layout)
        counts = [end - begin for _, _, begin, end in layout.waves]
        self.waves = [
            dict(zip(_STAGES, part, strict=True))
            for part in zip(*(self.packed[name].split(counts) for name in _STAGES), strict=True)
        ]

    def runs(self, edge: int, column: int) -> bool:
        """Whether an operation has a part in the sum."""
        return column >= 0 and (self.drawn is None or column in self.drawn[edge])

    def enter(self, index: int, x_BCHW: Tensor) -> Tensor:
        """Input state `index`."""
        layout, x = self.layout, inside(x_BCHW, self.samples)
        if not layout.input_channels:
            return x
        weight, z = self.packed[f"input{index}"], F.relu(x)
        row = layout.rows["input"] + index * layout.width
        y = self._halve(z, weight)[0] if layout.input_reduces[index] else self._points(z, weight)[0]
        one = torch.ones(1, dtype=y.dtype)
        return mix([y], [Term(0, 0)], one, self._norms([y], [row], layout.width))[0]

    def leave(self, number: int, states: list[Tensor]) -> dict[int, Tensor]:
        """What a wave adds to the nodes, by node."""
        layout, parts = self.layout, _Parts()
        source0, source1, edge0, edge1 = layout.waves[number]
        stride = layout.stride if source0 < layout.inputs else 1
        self._convolutions(parts, states, number, stride)
        for source in range(source0, source1):
            edges = [e for e in range(edge0, edge1) if layout.edges[e][0] == source]
            self._shared(parts, states[source], source, edges, stride)
        if not parts.uses:
            return {}
        nodes = sorted({layout.edges[edge][1] for _, _, edge, _ in parts.uses})
        base = len(parts.normed)
        terms = [
            Term(base * raw + place, nodes.index(layout.edges[edge][1]))
            for raw, place, edge, _ in parts.uses
        ]
        weights = self.mix[[use[2] for use in parts.uses], [use[3] for use in parts.uses]]
        norms = self._norms(parts.normed, parts.rows, layout.channels)
        sums = mix([*parts.normed, *parts.raw], terms, weights, norms)
        return dict(zip(nodes, sums, strict=True))

    def loose(self, edge: int, state: Tensor) -> list[Tensor]:
        """Weighted outputs of the operations of an edge that run as modules."""
        plan = self.cell.plan
        columns = [k for k in plan.loose if self.runs(edge, k)]
        if not columns:
            return []
        x_BCHW = outside([state], self.samples).contiguous()
        ops: Any = self.cell.mixed[plan.order[edge]].ops
        return [inside(self.mix[edge, k] * ops[k](x_BCHW), self.samples) for k in columns]

    def bypass(self) -> Bypass:
        """What passes beside partial channels."""
        return ImageBypass(self.layout, self.mix, self.samples)

    def outside(self, states: Sequence[Tensor]) -> Tensor:
        """[B, sum of channels, H, W] of nodes."""
        return outside(states, self.samples)

    def empty(self, states: Sequence[Tensor]) -> Tensor:
        """A node that nothing enters: zeros, and the weights stay in the graph."""
        size = self.layout.output_size(*states[0].shape[2:])
        zeros = self.mix.new_zeros(*states[0].shape[:2], *size) * self.mix.sum()
        return zeros.contiguous(memory_format=LAST)

    def _convolutions(self, parts: _Parts, states: list[Tensor], number: int, stride: int) -> None:
        """The separable convolutions of a wave."""
        layout, params = self.layout, self.waves[number]
        _, _, edge0, edge1 = layout.waves[number]
        first, second, channels = layout.first, layout.second, layout.channels
        found = [
            Branch(layout.edges[e][0], e - edge0, f)
            for e in range(edge0, edge1)
            for f in range(len(first))
            if self.runs(e, layout.slots[f])
        ]
        if not found:
            return
        sources = sorted({branch.of for branch in found})
        branches = [Branch(sources.index(b.of), b.edge, b.filter) for b in found]
        zs = [F.relu(states[source]) for source in sources]
        ys = separable(
            zs, branches, first, stride, params["depthwise1"], params["pointwise1"], self.samples
        )
        rows = [
            layout.rows["first"] + ((b.edge + edge0) * len(first) + b.filter) * channels
            for b in branches
        ]
        twice = [i for i, b in enumerate(branches) if b.filter < len(second)]
        if twice:
            inner = [ys[i] for i in twice]
            zs = norm_relu(inner, self._norms(inner, [rows[i] for i in twice], channels))
            again = [Branch(n, branches[i].edge, branches[i].filter) for n, i in enumerate(twice)]
            outer = separable(
                zs, again, second, 1, params["depthwise2"], params["pointwise2"], self.samples
            )
            for i, b, y in zip(twice, again, outer, strict=True):
                ys[i] = y
                place = (b.edge + edge0) * len(second) + b.filter
                rows[i] = layout.rows["second"] + place * channels
        for y, row, b in zip(ys, rows, branches, strict=True):
            parts.add(y, row, [(b.edge + edge0, layout.slots[b.filter])])

    def _shared(
        self, parts: _Parts, state: Tensor, source: int, edges: Sequence[int], stride: int
    ) -> None:
        """Pools and identity of a state: pools are made once for all edges."""
        layout = self.layout
        first = len(layout.first)
        for p, kernel in enumerate((*layout.max_pools, *layout.avg_pools)):
            column, padding = layout.slots[first + p], kernel // 2
            uses = [(e, column) for e in edges if self.runs(e, column)]
            if not uses:
                continue
            if p < len(layout.max_pools):
                y = F.max_pool2d(state, kernel, stride, padding)
            else:
                y = F.avg_pool2d(state, kernel, stride, padding, count_include_pad=False)
            row = layout.rows["pool"] + (source * layout.pools + p) * layout.channels
            parts.add(y, row if layout.pool_norm else None, uses)
        skips = [e for e in edges if self.runs(e, layout.slots[-1])]
        if not skips:
            return
        if not layout.reduction or source >= layout.inputs:
            parts.add(state, None, [(e, layout.slots[-1]) for e in skips])
            return
        halved = self._halve(F.relu(state), self.packed["reduction"][skips])
        for edge, y in zip(skips, halved, strict=True):
            row = layout.rows["reduction"] + edge * layout.channels
            parts.add(y, row, [(edge, layout.slots[-1])])

    def _points(self, z: Tensor, weight_NOI: Tensor) -> list[Tensor]:
        """Pointwise convolutions of an image, one for each of N matrices."""
        blocks = block_matrices(weight_NOI, self.samples)
        shape = (z.shape[0], *z.shape[2:], -1)
        rows = matrix(z, blocks.shape[2])
        return [(rows @ block.t()).view(shape).permute(0, 3, 1, 2) for block in blocks.unbind(0)]

    def _halve(self, z: Tensor, weight_NOI: Tensor) -> list[Tensor]:
        """Factorised reductions of z = relu(state), one for each of N matrices."""
        _, _, height, width = z.shape
        z = F.pad(z, (0, width % 2, 0, height % 2))
        even, odd = z[:, :, ::2, ::2], z[:, :, 1::2, 1::2]
        half = weight_NOI.shape[1] // 2
        halves = zip(
            self._points(even, weight_NOI[:, :half]),
            self._points(odd, weight_NOI[:, half:]),
            strict=True,
        )
        apart = ([y.unflatten(1, (self.samples, -1)) for y in pair] for pair in halves)
        return [
            torch.cat(pair, dim=2).flatten(1, 2).contiguous(memory_format=LAST) for pair in apart
        ]

    @torch.no_grad()
    def _norms(self, ys: Sequence[Tensor], starts: Sequence[int], channels: int) -> Norms:
        """The norms of images whose statistics begin at `starts`."""
        cell = self.cell
        if not ys:
            none = self.mix.new_zeros(0, channels)
            return Norms(none, none, self.train)
        index = _index(tuple(starts), channels)
        if self.train:
            count = ys[0].numel() // channels
            if count == 1:
                raise ValueError("Expected more than 1 value per channel when training.")
            mean, var = moments(ys, self.samples)
            if self.tracking:
                unbiased = var * (count / (count - 1))
                for kept, new in ((cell._mean, mean), (cell._var, unbiased)):
                    kept[index] = kept[index].lerp(new.flatten(), _MOMENTUM)
        else:
            mean, var = (kept[index].view(-1, channels) for kept in (cell._mean, cell._var))
        return Norms(mean, (var + EPSILON).rsqrt(), self.train)


_STAGES = ("depthwise1", "pointwise1", "depthwise2", "pointwise2")
