"""OLES: operations that overfit the params split are frozen one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.settings import Bounds, bounded
from darts_core.strategies.base import Batch, Penalty, SearchSettings
from darts_core.strategies.first_order import FirstOrder
from darts_core.supernet import Supernet, frozen_statistics
from darts_core.supernet.choices import LayerChoice
from darts_core.supernet.mixed_op import MixedOp
from darts_core.supernet.packed import PackedCell

__all__ = [
    "OperationEarlyStopping",
    "candidate_operations",
    "cosine_of_groups",
    "operation_spans",
]

Span = tuple[int, slice]
"""The number of a parameter and which of its values, flattened."""


class OperationEarlyStopping(FirstOrder):
    """First order; an operation whose gradients on the two splits part ways is trained no more.

    For every candidate operation the cosine of dL_train/dparams and dL_alpha/dparams is averaged over
    `interval` steps; below `threshold` its params are frozen for the rest of the search. Steps count in
    which it has both gradients: one that a sampling relaxation did not draw has none, which says nothing.

    Source: OLES (Jiang et al., NeurIPS 2023), Eq. 5 (gradient matching) and Algorithm 1; checks every
    20 steps, threshold 0.3.

    Args:
        threshold: smallest mean cosine that keeps an operation in training.
        interval: steps that an operation is compared in before it is judged.

    Raises:
        ConfigError: the threshold is outside [-1, 1] or the interval below 1.
    """

    capturable = False

    @bounded(threshold=Bounds(low=-1, high=1), interval=Bounds(low=1, high=1_000_000_000))
    def __init__(self, threshold: float = 0.3, interval: int = 20) -> None:
        self.threshold = threshold
        self.interval = interval

    def setup(
        self, supernet: Supernet, settings: SearchSettings, penalties: Iterable[Penalty] = ()
    ) -> None:
        """Take the network; see `Strategy.setup`."""
        super().setup(supernet, settings, penalties)
        self.groups = operation_spans(supernet)
        self.similarity_sum = torch.zeros(len(self.groups), device=supernet.progress.device)
        self.frozen = torch.zeros_like(self.similarity_sum, dtype=torch.bool)
        # steps since an operation was last judged in which both of its gradients were there
        self.measured = torch.zeros_like(self.similarity_sum, dtype=torch.long)
        self.counted = 0
        # for each value of a parameter the number of its operation, one past the last if it has none
        self._owners: dict[int, Tensor] = {}
        for number, group in enumerate(self.groups):
            for i, span in group:
                if i not in self._owners:
                    shape = (self.params[i].numel(),)
                    self._owners[i] = self.params[i].new_full(shape, len(self.groups)).long()
                self._owners[i][span] = number
        self._moving: dict[int, Tensor] = {}
        self._alpha_side: list[Tensor | None] = []

    def alpha_step(self, params_batch: Batch, alpha_batch: Batch) -> tuple[Tensor, Tensor]:
        """One Adam step of alpha; the same pass gives the operations' gradients on the alpha split."""
        with frozen_statistics(self.supernet):
            loss, logits = self.alpha_loss(alpha_batch)
        alphas = self.supernet.alphas()
        found = torch.autograd.grad(loss, [*alphas, *self.params], allow_unused=True)
        gradients = [
            torch.zeros_like(alpha) if gradient is None else gradient
            for alpha, gradient in zip(alphas, found, strict=False)
        ]
        self._alpha_side = list(found[len(alphas) :])
        self.reduce([*gradients, *self._alpha_side])
        self.apply_alpha(gradients)
        return loss.detach(), self.score(logits, alpha_batch[1])

    def apply_params(self, gradients: Sequence[Tensor | None]) -> None:
        """Compare the gradients with those on the alpha split, then move the params not frozen."""
        gradients = self.completed(gradients)
        self.reduce(gradients)
        if self._alpha_side:
            cosines, seen = _compared(self.groups, gradients, self._alpha_side)
            self.similarity_sum += cosines
            self.measured += seen
            self._alpha_side = []
            self.counted += 1
            if self.counted == self.interval:
                self._judge()
                self.counted = 0
        before = {}
        for i, moving in self._moving.items():
            before[i] = self.params[i].detach().clone()
            gradient = gradients[i]
            if gradient is not None:
                gradients[i] = gradient * moving
        self.move_params(gradients)
        with torch.no_grad():
            for i, moving in self._moving.items():
                # momentum and weight decay have moved the frozen values too
                self.params[i].copy_(torch.where(moving, self.params[i], before[i]))

    def _judge(self) -> None:
        """Freeze what falls short among the operations that were compared often enough."""
        due = self.measured >= self.interval
        mean = self.similarity_sum / self.measured.clamp_min(1)
        self.frozen |= due & (mean < self.threshold)
        self.similarity_sum.masked_fill_(due, 0.0)
        self.measured.masked_fill_(due, 0)
        self._find_moving()

    def _find_moving(self) -> None:
        """For each parameter of an operation: which of its values still move. The host waits for nothing."""
        moves = torch.cat([~self.frozen, self.frozen.new_ones(1)])
        self._moving = {
            i: moves[group].view_as(self.params[i]) for i, group in self._owners.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """The optimizers, the frozen operations and the running similarity."""
        return {
            **super().state_dict(),
            "frozen": self.frozen,
            "similarity_sum": self.similarity_sum,
            "measured": self.measured,
            "counted": self.counted,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`."""
        super().load_state_dict(state)
        self.frozen = state["frozen"].to(self.similarity_sum.device)
        self.similarity_sum = state["similarity_sum"].to(self.similarity_sum.device)
        self.counted = state["counted"]
        known = state.get("measured")
        if known is None:  # of a version that counted every step for every operation
            known = torch.full_like(self.measured, self.counted)
        self.measured = known.to(self.measured.device)
        self._find_moving()


def candidate_operations(supernet: nn.Module) -> list[nn.Module]:
    """The candidate operations that have parameters of their own, in the order modules are listed."""
    return [c for c in _candidates(supernet) if next(c.parameters(), None) is not None]


def _candidates(supernet: nn.Module) -> Iterator[nn.Module]:
    for module in supernet.modules():
        if isinstance(module, MixedOp):
            yield from module.ops
        elif isinstance(module, LayerChoice):
            yield from module.candidates


def operation_spans(supernet: nn.Module) -> list[list[Span]]:
    """For each candidate operation with params: where they lie, in the order modules are listed.

    The order is that of `candidate_operations` on the module path, whatever path the cells take: a
    packed cell keeps the params of all its operations in one tensor. Params are numbered as a strategy
    has them: those that are held fast are left out.
    """
    moving = (param for param in supernet.parameters() if param.requires_grad)
    index = {id(param): i for i, param in enumerate(moving)}
    packed: dict[int, list[Span]] = {}
    for cell in supernet.modules():
        if isinstance(cell, PackedCell) and id(cell.packed) in index:
            inside = dict(cell.named_modules())
            for binding in cell.plan.params:
                span = (index[id(cell.packed)], slice(binding.start, binding.start + binding.count))
                packed.setdefault(id(inside[binding.module]), []).append(span)
    groups = []
    for operation in _candidates(supernet):
        own = [(index[id(p)], slice(None)) for p in operation.parameters() if id(p) in index]
        group = own + [
            span for module in operation.modules() for span in packed.get(id(module), ())
        ]
        if group:
            groups.append(group)
    return groups


def cosine_of_groups(
    groups: Sequence[Sequence[Span]],
    first: Sequence[Tensor | None],
    second: Sequence[Tensor | None],
) -> Tensor:
    """The cosine of two gradient lists over each group of values; 0 where a gradient is missing.

    Shapes: -> [number of groups].
    """
    return _compared(groups, first, second)[0]


def _compared(
    groups: Sequence[Sequence[Span]],
    first: Sequence[Tensor | None],
    second: Sequence[Tensor | None],
) -> tuple[Tensor, Tensor]:
    """The cosines of `cosine_of_groups`, and whether both gradients are there and other than zero."""
    cosines, seen = [], []
    device = next(g.device for g in first if g is not None)
    for group in groups:
        pairs = [(first[i], second[i], span) for i, span in group]
        present = [
            (a.flatten()[span], b.flatten()[span])
            for a, b, span in pairs
            if a is not None and b is not None
        ]
        if not present:
            cosines.append(torch.zeros((), device=device))
            seen.append(torch.zeros((), device=device, dtype=torch.bool))
            continue
        a, b = (torch.cat(side) for side in zip(*present, strict=True))
        sizes = a.norm(), b.norm()
        cosines.append(torch.dot(a, b) / (sizes[0] * sizes[1]).clamp_min(1e-20))
        seen.append((sizes[0] > 0) & (sizes[1] > 0))
    if not cosines:
        return torch.zeros(0, device=device), torch.zeros(0, device=device, dtype=torch.bool)
    return torch.stack(cosines), torch.stack(seen)
