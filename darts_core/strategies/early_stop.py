"""OLES: operations that overfit the params split are frozen one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.errors import ConfigError
from darts_core.strategies.base import Batch, Penalty, SearchSettings
from darts_core.strategies.first_order import FirstOrder
from darts_core.supernet import Supernet, frozen_statistics
from darts_core.supernet.choices import LayerChoice
from darts_core.supernet.mixed_op import MixedOp

__all__ = ["OperationEarlyStopping", "candidate_operations", "cosine_of_groups"]


class OperationEarlyStopping(FirstOrder):
    """First order; an operation whose gradients on the two splits part ways is trained no more.

    For every candidate operation the cosine of dL_train/dparams and dL_alpha/dparams is averaged over
    `interval` steps; below `threshold` its params are frozen for the rest of the search.

    Source: OLES (Jiang et al., NeurIPS 2023), Eq. 5 (gradient matching) and Algorithm 1; checks every
    20 steps, threshold 0.3.

    Args:
        threshold: smallest mean cosine that keeps an operation in training.
        interval: steps between checks.

    Raises:
        ConfigError: the threshold is outside [-1, 1] or the interval below 1.
    """

    needs_plain_path = True
    capturable = False

    def __init__(self, threshold: float = 0.3, interval: int = 20) -> None:
        if not -1 <= threshold <= 1 or interval < 1:
            raise ConfigError(
                "OLES needs a threshold from -1 to 1 and an interval of at least 1, not "
                f"{threshold} and {interval}."
            )
        self.threshold = threshold
        self.interval = interval

    def setup(
        self, supernet: Supernet, settings: SearchSettings, penalties: Iterable[Penalty] = ()
    ) -> None:
        """Take the network; see `Strategy.setup`."""
        super().setup(supernet, settings, penalties)
        index = {id(param): i for i, param in enumerate(self.params)}
        self.groups = [
            [index[id(p)] for p in operation.parameters()]
            for operation in candidate_operations(supernet)
        ]
        self.similarity_sum = torch.zeros(len(self.groups), device=supernet.progress.device)
        self.frozen = torch.zeros(len(self.groups), dtype=torch.bool)
        self.counted = 0
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
        return loss.detach(), self.accuracy(logits, alpha_batch[1])

    def apply_params(self, gradients: Sequence[Tensor | None]) -> None:
        """Compare the gradients with those on the alpha split, then move the params not frozen."""
        gradients = list(gradients)
        self.reduce(gradients)
        if self._alpha_side:
            self.similarity_sum += cosine_of_groups(self.groups, gradients, self._alpha_side)
            self._alpha_side = []
            self.counted += 1
            if self.counted == self.interval:
                self.frozen |= (self.similarity_sum / self.counted < self.threshold).cpu()
                self.similarity_sum.zero_()
                self.counted = 0
        for group, frozen in zip(self.groups, self.frozen.tolist(), strict=True):
            if frozen:
                for i in group:
                    gradients[i] = None  # the optimizer passes over params without a gradient
        self._assign(self.params, gradients)
        if self.settings.grad_clip > 0:
            nn.utils.clip_grad_norm_(self.params, self.settings.grad_clip)
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """The optimizers, the frozen operations and the running similarity."""
        return {
            **super().state_dict(),
            "frozen": self.frozen,
            "similarity_sum": self.similarity_sum,
            "counted": self.counted,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`."""
        super().load_state_dict(state)
        self.frozen = state["frozen"].cpu()
        self.similarity_sum = state["similarity_sum"].to(self.similarity_sum.device)
        self.counted = state["counted"]


def candidate_operations(supernet: nn.Module) -> list[nn.Module]:
    """The candidate operations that have parameters, in the order in which modules are listed."""
    found: list[nn.Module] = []
    for module in supernet.modules():
        candidates: Iterable[nn.Module] = ()
        if isinstance(module, MixedOp):
            candidates = module.ops
        elif isinstance(module, LayerChoice):
            candidates = module.candidates
        found += [c for c in candidates if next(c.parameters(), None) is not None]
    return found


def cosine_of_groups(
    groups: Sequence[Sequence[int]],
    first: Sequence[Tensor | None],
    second: Sequence[Tensor | None],
) -> Tensor:
    """The cosine of two gradient lists over each group of entries; 0 where a gradient is missing.

    Shapes: -> [number of groups].
    """
    cosines = []
    device = next(g.device for g in first if g is not None)
    for group in groups:
        pairs = [(first[i], second[i]) for i in group]
        present = [(a.flatten(), b.flatten()) for a, b in pairs if a is not None and b is not None]
        if not present:
            cosines.append(torch.zeros((), device=device))
            continue
        a, b = (torch.cat(side) for side in zip(*present, strict=True))
        cosines.append(torch.dot(a, b) / (a.norm() * b.norm()).clamp_min(1e-20))
    return torch.stack(cosines) if cosines else torch.zeros(0, device=device)
