"""The cell of a discrete architecture: only its kept edges, and nothing computed that cannot matter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from darts_core.architecture import CellChoice
from darts_core.ops import create_op
from darts_core.ops.simple import AvgPool3x3, MaxPool3x3, Skip, ZeroOp

__all__ = ["FixedCell", "drop_path"]


def drop_path(x: Tensor, probability: Tensor) -> Tensor:
    """`x` [B, ...] with each sample's path zeroed with `probability` and the kept ones scaled up."""
    keep = 1.0 - probability.to(x.dtype)
    ones = (1,) * (x.dim() - 1)
    mask = torch.rand(x.shape[0], *ones, device=x.device, dtype=x.dtype) < keep
    return x * mask / keep


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
