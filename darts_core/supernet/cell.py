"""Cells made of plain modules: the searched cell with mixed operations, and the fixed cell."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from darts_core.architecture import CellChoice
from darts_core.ops import create_op
from darts_core.ops.conv import ReluConvNorm
from darts_core.ops.simple import AvgPool3x3, FactorizedReduce, MaxPool3x3, Skip, ZeroOp
from darts_core.spaces import SearchSpace
from darts_core.supernet.drawn import drawn_columns, only_drawn, share_pool_statistics
from darts_core.supernet.mixed_op import MixedOp
from darts_core.supernet.skeleton import CellSpec

__all__ = ["FixedCell", "Preprocess", "SearchCell", "drop_path"]


class Preprocess(nn.Module):
    """Bring the two inputs of a DARTS cell to its width and resolution."""

    def __init__(self, spec: CellSpec, *, affine: bool) -> None:
        super().__init__()
        if spec.last_reduced:
            self.older: nn.Module = FactorizedReduce(
                spec.channels_before_last, spec.channels, affine=affine
            )
        else:
            self.older = ReluConvNorm(spec.channels_before_last, spec.channels, 1, 1, affine=affine)
        self.newer = ReluConvNorm(spec.channels_last, spec.channels, 1, 1, affine=affine)

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The two first states of the cell."""
        return [self.older(inputs[0]), self.newer(inputs[1])]


class SearchCell(nn.Module):
    """A cell in which every edge of the space carries a mixed operation.

    Attributes:
        sparse: operations of weight zero are not evaluated, see `darts_core.supernet.drawn`.
    """

    sparse: bool = False

    def __init__(
        self,
        space: SearchSpace,
        channels: int,
        *,
        kind: str,
        reduces: bool = False,
        preprocess: nn.Module | None = None,
        channel_fraction: int = 1,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.preprocess = preprocess
        self._edges = space.edges
        self._outputs = space.output_states
        self._first_node, self._states = space.inputs, space.inputs + space.nodes
        # what the plan of the fused path reads
        self.channels, self.inputs, self.nodes = channels, space.inputs, space.nodes
        self.edges, self.norm_after_pool = space.edges, space.norm_after_pool
        self.mixed = nn.ModuleList(
            MixedOp(
                space.ops,
                channels,
                2 if reduces and source < space.inputs else 1,
                norm_after_pool=space.norm_after_pool,
                channel_fraction=channel_fraction,
            )
            for source, _ in self._edges
        )

    def forward(self, inputs: Sequence[Tensor], weights_EK: Tensor) -> Tensor:
        """The cell's output from its input states and the mixing weights [E, K]."""
        states = list(self.preprocess(inputs) if self.preprocess is not None else inputs)
        drawn = None
        if self.sparse:
            weights_EK, drawn = only_drawn(weights_EK), drawn_columns(weights_EK)
        for target in range(self._first_node, self._states):
            terms = [
                self.mixed[e](states[source], weights_EK[e])
                if drawn is None
                else self.mixed[e](states[source], weights_EK[e], drawn[e])
                for e, (source, node) in enumerate(self._edges)
                if node == target
            ]
            states.append(torch.stack(terms).sum(0) if len(terms) > 1 else terms[0])
        if drawn is not None and self.training:
            share_pool_statistics(self, drawn)
        outputs = [states[state] for state in self._outputs]
        return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]


def drop_path(x_BCHW: Tensor, probability: Tensor) -> Tensor:
    """`x` with each sample's path zeroed with `probability` and the kept ones scaled up."""
    keep = 1.0 - probability.to(x_BCHW.dtype)
    mask = torch.rand(x_BCHW.shape[0], 1, 1, 1, device=x_BCHW.device, dtype=x_BCHW.dtype) < keep
    return x_BCHW * mask / keep


class FixedCell(nn.Module):
    """A cell of a discrete architecture: only its kept edges.

    Attributes:
        lean: in eval mode leave out what cannot change the output: edges that lead nowhere, zeros handed
            on by skips and pools; what is computed from zeros alone is computed for one sample.
            For export and its timings; the values stay exactly the same.
        keeping: the next lean forward keeps what is computed from zeros alone as buffers, which later
            ones read: for the weights and the input size of that forward only.
    """

    lean: bool = False
    keeping: bool = False

    def __init__(
        self,
        choice: CellChoice,
        channels: int,
        *,
        reduces: bool = False,
        preprocess: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.edges = tuple((source, target) for source, target, _ in choice.edges)
        self._outputs = choice.concat
        self._nodes = range(choice.inputs, choice.states)
        self.ops = nn.ModuleList(
            create_op(op, channels, 2 if reduces and source < choice.inputs else 1, affine=True)
            for source, _, op in choice.edges
        )

    def forward(self, inputs: Sequence[Tensor], drop_probability: Tensor | None = None) -> Tensor:
        """The cell's output; with a drop probability, paths other than skips are dropped."""
        states = list(self.preprocess(inputs) if self.preprocess is not None else inputs)
        if self.lean and not self.training:
            return self._without_dead(states)
        for target in self._nodes:
            total: Tensor | None = None
            nothing: Tensor | None = None
            for (source, node), op in zip(self.edges, self.ops, strict=True):
                if node != target:
                    continue
                if isinstance(op, ZeroOp):  # adding zeros would only cost time
                    nothing = op(states[source]) if nothing is None and total is None else nothing
                    continue
                term = op(states[source])
                if drop_probability is not None and not isinstance(op, Skip):
                    term = drop_path(term, drop_probability)
                total = term if total is None else total + term
            if total is None:  # a node without edges: nothing reads it, but states are numbered
                total = torch.zeros_like(states[-1]) if nothing is None else nothing
            states.append(total)
        outputs = [states[state] for state in self._outputs]
        return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]

    def _without_dead(self, states: list[Tensor]) -> Tensor:
        """The output of eval mode from the edges that matter; states of zeros hold one sample."""
        batch = states[0].shape[0]
        zeros, wanted = self._zeros_and_wanted()
        constant = [False] * len(states)
        for target in self._nodes:
            moving: list[tuple[nn.Module, Tensor]] = []
            still: list[tuple[nn.Module, Tensor]] = []
            for (source, node), op in zip(self.edges, self.ops, strict=True):
                if node == target and target in wanted and not self._vanishes(op, source, zeros):
                    (still if constant[source] else moving).append((op, states[source]))
            constant.append(not moving)
            terms = [op(x) for op, x in moving]
            if still or not moving:
                terms.append(self._constant(target, still, states, wanted))
            states.append(sum(terms[1:], terms[0]))
        outputs = [
            states[state].expand(batch, -1, -1, -1) if constant[state] else states[state]
            for state in self._outputs
        ]
        return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]

    def _constant(
        self,
        target: int,
        still: list[tuple[nn.Module, Tensor]],
        states: list[Tensor],
        wanted: set[int],
    ) -> Tensor:
        """What node `target` receives whatever the input, [1, C, H, W]; read where it was kept."""
        name = f"constant_{target}"
        if name in self._buffers:
            return self.get_buffer(name)
        terms = [op(x) for op, x in still]
        total = sum(terms[1:], terms[0]) if terms else self._blank(states, target, wanted)
        if self.keeping:
            self.register_buffer(name, total.detach().clone(), persistent=False)
        return total

    def _zeros_and_wanted(self) -> tuple[set[int], set[int]]:
        """The nodes that are zero whatever the input, and the states that reach an output."""
        edges = [(*edge, op) for edge, op in zip(self.edges, self.ops, strict=True)]
        zeros: set[int] = set()
        for node in self._nodes:
            if all(self._vanishes(op, source, zeros) for source, end, op in edges if end == node):
                zeros.add(node)
        wanted = set(self._outputs)
        for node in reversed(self._nodes):
            if node in wanted:
                wanted |= {
                    source
                    for source, end, op in edges
                    if end == node and not self._vanishes(op, source, zeros)
                }
        return zeros, wanted

    @staticmethod
    def _vanishes(op: nn.Module, source: int, zeros: set[int]) -> bool:
        """Whether an edge hands on zeros whatever the cell's input."""
        hands_on = isinstance(op, (Skip, AvgPool3x3, MaxPool3x3))
        return isinstance(op, ZeroOp) or (source in zeros and hands_on)

    def _blank(self, states: list[Tensor], target: int, wanted: set[int]) -> Tensor:
        """Zeros of one sample in the shape of node `target`; of any shape where nothing reads it."""
        for (source, node), op in zip(self.edges, self.ops, strict=True):
            if node == target and target in wanted:
                x = states[source]
                return torch.zeros_like(op(x.new_zeros((1, *x.shape[1:]))))
        return states[-1].new_zeros((1, *states[-1].shape[1:]))
