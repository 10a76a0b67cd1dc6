"""One strategy: first order, alpha moving only in every n-th step."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from darts_core.errors import ConfigError
from darts_core.strategies import Batch, FirstOrder


class Seldom(FirstOrder):
    """Alpha steps are costly: take one in `every` steps, and repeat its loss in between."""

    capturable = False  # steps differ

    def __init__(self, every: int = 2) -> None:
        if every < 1:
            raise ConfigError(f"strategy.every must be at least 1, not {every}.")
        self.every = every
        self.count = 0
        self.last: tuple[Tensor, Tensor] | None = None

    def alpha_step(self, params_batch: Batch, alpha_batch: Batch) -> tuple[Tensor, Tensor]:
        if self.last is None or self.count % self.every == 0:
            self.last = super().alpha_step(params_batch, alpha_batch)
        self.count += 1
        return self.last

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "count": self.count, "last": self.last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.count, self.last = state["count"], state["last"]
