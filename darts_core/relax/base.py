"""What a relaxation is: the map from architecture logits (alpha) to mixing weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from darts_core.spaces import SearchSpace

__all__ = ["Relaxation"]


class Relaxation:
    """Base class: alpha -> weights, as pure functions that a CUDA graph can capture.

    No method may copy a value to the host or branch in Python on a tensor's value. Random numbers are
    drawn from the generator that is passed in.
    """

    NODE: ClassVar[str] = "relax"

    channel_fraction: int = 1
    """The mixed operation sees 1 / channel_fraction of the channels; the rest passes by."""
    sparse: bool = False
    """Operations of weight zero are neither evaluated nor in any gradient: the weights' gradient is
    taken through the operations drawn alone."""
    samples: bool = False
    """Whether `weights` draws random numbers."""
    draws_one: bool = False
    """Whether `weights` are one-hot: one architecture a step. Its metric on val is then that of the pick."""

    def weights(
        self, alpha_EK: Tensor, progress: Tensor | float, generator: torch.Generator | None
    ) -> Tensor:
        """Mixing weights [E, K] of one kind of cell.

        Args:
            alpha_EK: architecture logits; a disallowed operation has -inf.
            progress: how much of the search is done, 0 to 1.
            generator: the source of random numbers; None uses torch's global one.
        """
        raise NotImplementedError("A relaxation must define weights(alpha, progress, generator).")

    def evaluate(self, alpha_EK: Tensor) -> Tensor:
        """Deterministic weights [E, K] for evaluation and discretisation: softmax unless overridden."""
        return torch.softmax(alpha_EK, dim=-1)

    def extra_alphas(self, space: SearchSpace) -> dict[str, tuple[int, ...]]:
        """Shapes of further architecture parameters by name, made with zeros; none by default."""
        return {}

    def edge_scale(
        self, kind: str, extras: Mapping[str, Tensor], space: SearchSpace
    ) -> Tensor | None:
        """A factor [E] for the weights of each edge, from the extra alphas; None leaves them."""
        return None

    def penalty(
        self, alphas: Mapping[str, Tensor], progress: Tensor | float = 1.0
    ) -> Tensor | None:
        """A scalar that is added to the alpha loss, or None.

        Args:
            alphas: logits by cell kind, -inf for a disallowed operation, and the extra alphas.
            progress: how much of the search is done, 0 to 1.
        """
        return None
