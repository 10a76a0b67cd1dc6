"""One forward pass of a planned cell on a CPU: large matrix products instead of thousands of small calls.

For small planes, where the calls of `batched_run` cost more than what they compute. The layout inside a cell
is [channel, pixel, sample]. There a depthwise convolution is a product with a banded matrix made from its
taps, an average pool a product with a fixed matrix, a pointwise convolution one product for all edges and
filters of a wave, and a batch norm one call for all of them. Pools are made once a state instead of once an
edge. Everything is ordinary torch: any floating dtype, any number of derivatives, the values of the module
path up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from darts_core.supernet.packed import PackedCell
from darts_core.supernet.partial import Bypass, PixelBypass

if TYPE_CHECKING:
    from darts_kernels.layout import CellLayout

__all__ = ["BandedRun", "pool_matrix", "tap_bands"]


# what is kept for later passes must be no tensor of inference mode: a backward pass could not read it
@lru_cache(maxsize=64)
@torch.inference_mode(False)
def tap_bands(
    height: int, width: int, kernel: int, dilation: int, stride: int, dtype: torch.dtype
) -> Tensor:
    """[kernel^2, out pixels * in pixels]: the band matrix of every tap of a depthwise convolution."""
    plane = torch.eye(height * width, dtype=dtype).view(height * width, 1, height, width)
    radius = kernel // 2 * dilation
    taps = F.unfold(plane, kernel, dilation=dilation, padding=radius, stride=stride)
    # [in pixels, taps, out pixels] -> [taps, out pixels, in pixels]
    return taps.permute(1, 2, 0).reshape(kernel * kernel, -1).contiguous()


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def pool_matrix(height: int, width: int, kernel: int, stride: int, dtype: torch.dtype) -> Tensor:
    """[out pixels, in pixels]: average pooling as a matrix."""
    plane = torch.eye(height * width, dtype=dtype).view(height * width, 1, height, width)
    pooled = F.avg_pool2d(plane, kernel, stride, kernel // 2, count_include_pad=False)
    return pooled.flatten(1).t().contiguous()


class BandedRun:
    """One forward pass of one cell."""

    def __init__(
        self, cell: PackedCell, layout: CellLayout, mix_EK: Tensor, height: int, width: int
    ) -> None:
        inner = layout.output_size(height, width)
        self.size = [(height, width)] * layout.inputs + [inner] * layout.nodes
        self.cell, self.layout, self.mix = cell, layout, mix_EK
        self.tracking = cell._probe is None or bool(cell._probe.track_running_stats)
        self.train = cell.training or not self.tracking
        self.packed = cell.sections(layout)

    def norm(self, y: Tensor, row: int) -> Tensor:
        """`y` [..., pixels * samples] normalised; its leading indices are rows from `row` on."""
        length = y.shape[-1]
        rows = y.numel() // length
        span = slice(row, row + rows)
        use = self.tracking or not self.train
        out = F.batch_norm(
            y.reshape(1, rows, length),
            self.cell._mean[span] if use else None,
            self.cell._var[span] if use else None,
            training=self.train,
            momentum=0.1,
        )
        return out.view(y.shape)

    def enter(self, index: int, x_BCHW: Tensor) -> Tensor:
        """Input state `index` as [C, pixels, samples]."""
        layout = self.layout
        batch, channels, height, width = x_BCHW.shape
        x = x_BCHW.permute(1, 2, 3, 0)
        if not layout.input_channels:
            return x.reshape(channels, height * width, batch)
        weight = self.packed[f"input{index}"][0]
        row = layout.rows["input"] + index * layout.width
        if layout.input_reduces[index]:
            flat = x.reshape(channels, height * width, batch)
            y = self._halve(F.relu(flat), weight[None], height, width)[0]
        else:
            y = weight @ F.relu(x.reshape(channels, -1))
        return self.norm(y.reshape(layout.width, -1), row).view(layout.width, -1, batch)

    def _halve(self, z: Tensor, weight_EOI: Tensor, height: int, width: int) -> Tensor:
        """[E, O, out pixels * samples]: factorised reductions of z = relu(state) [C, pixels, samples]."""
        edges, outs, _ = weight_EOI.shape
        plane = z.view(z.shape[0], height, width, -1)
        plane = F.pad(plane, (0, 0, 0, width % 2, 0, height % 2))
        even = plane[:, ::2, ::2].reshape(z.shape[0], -1)
        odd = plane[:, 1::2, 1::2].reshape(z.shape[0], -1)
        half = outs // 2
        low = weight_EOI[:, :half].reshape(edges * half, -1) @ even
        high = weight_EOI[:, half:].reshape(edges * (outs - half), -1) @ odd
        return torch.cat([low.view(edges, half, -1), high.view(edges, outs - half, -1)], dim=1)

    def _taps(self, name: str, edge0: int, edge1: int) -> list[Tensor]:
        """Weights [E', C, k^2] of every filter, of the first or the second convolutions."""
        layout = self.layout
        filters = layout.first if name == "depthwise1" else layout.second
        block = self.packed[name][edge0:edge1]
        sizes = [layout.channels * kernel * kernel for kernel, _ in filters]
        return [part.view(edge1 - edge0, layout.channels, -1) for part in block.split(sizes, dim=1)]

    def leave(self, number: int, states: list[Tensor]) -> dict[int, Tensor]:
        """What a wave adds to the nodes, by node."""
        terms: dict[int, list[Tensor]] = {}
        for edge, term in self.wave(self.layout.waves[number], states, self.size):
            terms.setdefault(self.layout.edges[edge][1], []).append(term)
        return {
            node: torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
            for node, parts in terms.items()
        }

    def bypass(self) -> Bypass:
        """What passes beside partial channels."""
        return PixelBypass(self.layout, self.mix, self.size[0])

    def empty(self, states: Sequence[Tensor]) -> Tensor:
        """A node that nothing enters: zeros, and the weights stay in the graph."""
        height, width = self.size[-1]
        shape = (self.layout.channels, height * width, states[0].shape[-1])
        return self.mix.new_zeros(shape) * self.mix.sum()

    def outside(self, states: Sequence[Tensor]) -> Tensor:
        """[B, sum of channels, H, W] of nodes."""
        outputs = [state.unflatten(1, self.size[-1]).permute(3, 0, 1, 2) for state in states]
        return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0].contiguous()

    def wave(
        self, wave: tuple[int, int, int, int], states: list[Tensor], size: list[tuple[int, int]]
    ) -> list[tuple[int, Tensor]]:
        """(edge, its weighted sum [C, pixels, samples]) for every edge of the wave."""
        layout = self.layout
        source0, source1, edge0, edge1 = wave
        if edge1 == edge0:
            return []
        stride = layout.stride if source0 < layout.inputs else 1
        height, width = size[source0]
        pooled, firsts, terms = [], [], []
        for source in range(source0, source1):
            rows = [e for e in range(edge0, edge1) if layout.edges[e][0] == source]
            if rows:
                z = F.relu(states[source])
                firsts.append(self._first(z, rows[0], rows[-1] + 1, height, width, stride))
                pooled.append((rows, self._shared(states[source], source, size[source], stride)))
        y1 = self.norm(
            torch.cat(firsts) if len(firsts) > 1 else firsts[0],
            layout.rows["first"] + edge0 * len(layout.first) * layout.channels,
        )
        edges, two = edge1 - edge0, len(layout.second)
        y1 = y1.view(edges, len(layout.first), -1)
        total = torch.zeros((), dtype=y1.dtype)
        mix = self.mix[edge0:edge1]
        out_size = size[-1]
        if two:
            y2 = self._second(y1[:, :two], edge0, edge1, out_size)
            total = torch.bmm(mix[:, list(layout.slots[:two])][:, None], y2)[:, 0]
        if len(layout.first) > two:
            columns = list(layout.slots[two : len(layout.first)])
            one = torch.bmm(mix[:, columns][:, None], y1[:, two:])[:, 0]
            total = total + one if two else one
        halved = None
        if source0 < layout.inputs and layout.reduced_edges:
            halved = self._reductions(states, edge0, edge1, size[0])
        shared_columns = [c for c in layout.slots[len(layout.first) :] if c >= 0]
        if halved is not None:
            shared_columns = shared_columns[:-1]
        for rows, shared in pooled:
            extra = self.mix[rows][:, shared_columns] @ shared if shared is not None else None
            for i, edge in enumerate(rows):
                term = total[edge - edge0]
                if extra is not None:
                    term = term + extra[i]
                if halved is not None:
                    term = term + self.mix[edge, layout.slots[-1]] * halved[edge - edge0]
                terms.append((edge, term.view(layout.channels, -1, states[0].shape[-1])))
        return terms

    def runs(self, edge: int, column: int) -> bool:
        """Whether an operation has a part in the sum."""
        return True

    def loose(self, edge: int, state: Tensor) -> list[Tensor]:
        """Weighted outputs [C, out pixels, samples] of the operations of an edge that run as modules."""
        plan = self.cell.plan
        columns = [k for k in plan.loose if self.runs(edge, k)]
        if not columns:
            return []
        channels, _, batch = state.shape
        size = self.size[self.layout.edges[edge][0]]
        x_BCHW = state.view(channels, *size, batch).permute(3, 0, 1, 2).contiguous()
        ops: Any = self.cell.mixed[plan.order[edge]].ops
        outs = [self.mix[edge, k] * ops[k](x_BCHW) for k in columns]
        return [out.permute(1, 2, 3, 0).reshape(channels, -1, batch) for out in outs]

    def _first(
        self, z: Tensor, edge0: int, edge1: int, height: int, width: int, stride: int
    ) -> Tensor:
        """[E' * F, C, out pixels * samples]: first convolutions of the edges of one source."""
        layout = self.layout
        edges, channels = edge1 - edge0, layout.channels
        bands = []
        for taps, (kernel, dilation) in zip(
            self._taps("depthwise1", edge0, edge1), layout.first, strict=True
        ):
            basis = tap_bands(height, width, kernel, dilation, stride, z.dtype)
            bands.append(taps.transpose(0, 1).reshape(channels * edges, -1) @ basis)
        # [F, C, E', out, in] -> [C, E' F out, in]
        matrix = torch.stack([b.view(channels, edges, -1, z.shape[1]) for b in bands], dim=2)
        d = torch.bmm(matrix.reshape(channels, -1, z.shape[1]), z)
        d = d.view(channels, edges * len(layout.first), -1).transpose(0, 1)
        weight = self.packed["pointwise1"][edge0:edge1].reshape(-1, channels, channels)
        return torch.bmm(weight, d)

    def _second(self, y1: Tensor, edge0: int, edge1: int, size: tuple[int, int]) -> Tensor:
        """[E', F2, C * out pixels * samples]: normalised second convolutions."""
        layout = self.layout
        edges, channels, two = edge1 - edge0, layout.channels, len(layout.second)
        pixels = size[0] * size[1]
        z = F.relu(y1).reshape(edges * two * channels, pixels, -1)
        bands = []
        for taps, (kernel, dilation) in zip(
            self._taps("depthwise2", edge0, edge1), layout.second, strict=True
        ):
            basis = tap_bands(*size, kernel, dilation, 1, z.dtype)
            bands.append((taps.reshape(edges * channels, -1) @ basis).view(edges, channels, -1))
        matrix = torch.stack(bands, dim=1).view(edges * two * channels, pixels, pixels)
        d = torch.bmm(matrix, z).view(edges * two, channels, -1)
        weight = self.packed["pointwise2"][edge0:edge1].reshape(-1, channels, channels)
        y = torch.bmm(weight, d)
        row = layout.rows["second"] + edge0 * two * channels
        return self.norm(y, row).view(edges, two, -1)

    def _shared(
        self, state: Tensor, source: int, size: tuple[int, int], stride: int
    ) -> Tensor | None:
        """[pools (and skip), C * out pixels * samples]: what all edges of a state share."""
        layout = self.layout
        channels, _, batch = state.shape
        pools = []
        if layout.max_pools:
            plane = state.view(channels, *size, batch).permute(3, 0, 1, 2)
            for kernel in layout.max_pools:
                best = F.max_pool2d(plane, kernel, stride, kernel // 2)
                pools.append(best.permute(1, 2, 3, 0).reshape(channels, -1))
        for kernel in layout.avg_pools:
            matrix = pool_matrix(*size, kernel, stride, state.dtype)
            pools.append(torch.matmul(matrix, state).reshape(channels, -1))
        if pools and layout.pool_norm:
            row = layout.rows["pool"] + source * layout.pools * channels
            pools = list(self.norm(torch.stack(pools), row).unbind(0))
        if layout.skip and stride == 1:
            pools.append(state.reshape(channels, -1))
        return torch.stack(pools).flatten(1) if pools else None

    def _reductions(
        self, states: list[Tensor], edge0: int, edge1: int, size: tuple[int, int]
    ) -> Tensor:
        """[E', C * out pixels * samples]: normalised factorised reductions of the input edges."""
        layout = self.layout
        parts = []
        for source in range(layout.inputs):
            rows = [e for e in range(edge0, edge1) if layout.edges[e][0] == source]
            if rows:
                weight = self.packed["reduction"][rows[0] : rows[-1] + 1]
                parts.append(self._halve(F.relu(states[source]), weight, *size))
        return self.norm(torch.cat(parts), layout.rows["reduction"]).flatten(1)
