"""DARTS-: an auxiliary skip connection beside every mixed operation, fading out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from darts_core.errors import ConfigError
from darts_core.settings import Bounds, bounded
from darts_core.strategies.base import Batch, Penalty, SearchSettings
from darts_core.strategies.first_order import FirstOrder
from darts_core.supernet import Supernet

__all__ = ["AuxiliarySkip"]

_SKIP = "skip_connect"


class AuxiliarySkip(FirstOrder):
    """edge(x) = beta * x + sum_k weight_k op_k(x), beta falling linearly from `beta_start` to 0.

    The skip takes from the candidate skip its part as a helper of training, so that its alpha shows
    its worth as an operation. It shares the candidate's module: beta is added to the candidate's weight,
    which is the same function (where the stride is 2, both are one factorised reduction).

    Source: DARTS- (arXiv:2009.01027), Eq. 6 and 7; beta from 1 to 0, linear.

    Args:
        beta_start: weight of the auxiliary skip at the beginning of the search.
        decay_share: share of the search after which beta is 0; the paper's is the whole. Where alpha
            moves fast beside the params, a beta that falls to the end lets the candidate's alpha rise
            in its place.

    Raises:
        ConfigError: `beta_start` is negative or `decay_share` not in (0, 1]; in `setup`, if the space
            has no `skip_connect`.
    """

    capturable = True

    @bounded(beta_start=Bounds(low=0, high=1e6), decay_share=Bounds(low=0, low_open=True, high=1))
    def __init__(self, beta_start: float = 1.0, decay_share: float = 1.0) -> None:
        self.beta_start = beta_start
        self.decay_share = decay_share

    def beta(self) -> Tensor:
        """The present weight of the auxiliary skip, on the device."""
        left = (1 - self.supernet.progress / self.decay_share).clamp_min(0)
        return self.beta_start * left

    def setup(
        self, supernet: Supernet, settings: SearchSettings, penalties: Iterable[Penalty] = ()
    ) -> None:
        """Take the network; see `Strategy.setup`."""
        super().setup(supernet, settings, penalties)
        ops = supernet.space.ops
        if _SKIP not in ops:
            raise ConfigError(
                f"DARTS- needs the operation {_SKIP!r} among the candidates; the space "
                f"{supernet.space.name!r} has {', '.join(ops) or 'choices'}."
            )
        column = torch.zeros(len(ops), device=supernet.progress.device)
        column[ops.index(_SKIP)] = 1.0
        self._skip_K = column

    def loss(self, batch: Batch, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The loss with the auxiliary skips in place."""
        beta = self.beta()
        return super().loss(batch, {k: w + beta * self._skip_K for k, w in weights.items()})
