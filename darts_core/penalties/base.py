"""What a penalty on the alphas is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

__all__ = ["AlphaPenalty"]


class AlphaPenalty:
    """Base class: a scalar of the alphas that is added to the alpha loss, with any relaxation.

    As of a relaxation: no value may be copied to the host, and Python may not branch on a tensor's value.
    """

    NODE: ClassVar[str] = "penalty"

    def of_alphas(self, alphas: Mapping[str, Tensor], progress: Tensor | float) -> Tensor:
        """The penalty.

        Args:
            alphas: logits [E, K] by cell kind, [1, K] by label; a disallowed operation has -inf.
            progress: how much of the search is done, 0 to 1.
        """
        raise NotImplementedError("A penalty must define of_alphas(alphas, progress).")
