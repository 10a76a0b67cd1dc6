"""`Stepper`: the batches of a search and the step on them, recorded where the device allows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from darts_core.data.batches import Preparation
from darts_core.search.captured import CapturedStep
from darts_core.search.types import SearchConfig
from darts_core.strategies import Strategy
from darts_core.strategies.base import Batch, StepStats

if TYPE_CHECKING:
    from darts_core.data import DataBundle

__all__ = ["Stepper"]

StepFunction = Callable[[Batch, Batch], StepStats]


class Stepper:
    """Gives the batches of an epoch, and makes a step on them.

    On a GPU the step is one CUDA graph; augmentation and normalising are part of it where the transform
    draws on the device alone, and images travel as pixels until then.

    Attributes:
        alone: whether this is the only process of the search; gradients of several are averaged by calls
            that a graph does not hold.

    Args:
        strategy: how alpha and params move.
        bundle: the data.
        config: batch size, and whether a step may be recorded.
        seed: of order and augmentation.
        augment: see `DataBundle.batches`.
    """

    def __init__(
        self, strategy: Strategy, bundle: DataBundle, config: SearchConfig, seed: int, augment: Any
    ) -> None:
        self.strategy, self.bundle, self.config = strategy, bundle, config
        self.seed, self.augment = seed, augment
        self.alone = True
        self.steps = bundle.steps("params", config.batch_size)
        self._alpha_steps = bundle.steps("alpha", config.batch_size)
        self._preparations = [Preparation(bundle, augment) for _ in range(2)]
        self._function: StepFunction | None = None

    @property
    def captures(self) -> bool:
        """Whether the step is to be one CUDA graph."""
        return bool(self.config.capture) and self.bundle.device.type == "cuda" and self.alone

    @property
    def later(self) -> tuple[Preparation | None, Preparation | None]:
        """What prepares the images inside the step, for params and alpha; None: they come prepared."""
        params, alpha = self._preparations
        if not (self.captures and self.strategy.capturable and params.capturable):
            return None, None
        return params, alpha if self.strategy.needs_alpha_batch else None

    def batches(self, epoch: int, first: int) -> Iterator[tuple[int, Batch, Batch]]:
        """(step, params batch, alpha batch) from step `first`; the alpha split is cycled through."""
        params = self._of("params", epoch, first, self.later[0])
        alpha = self._alpha_batches(epoch * self.steps + first)
        needs_alpha = self.strategy.needs_alpha_batch
        for step, batch in enumerate(params, start=first):
            yield step, batch, next(alpha) if needs_alpha else batch

    def _alpha_batches(self, step: int) -> Iterator[Batch]:
        while True:
            epoch, start = divmod(step, self._alpha_steps)
            for batch in self._of("alpha", epoch, start, self.later[1]):
                yield batch
                step += 1

    def _of(self, split: str, epoch: int, start: int, later: Preparation | None) -> Iterator[Batch]:
        return self.bundle.batches(
            split, self.config.batch_size, seed=self.seed, epoch=epoch, augment=self.augment,
            start=start, later=later,
        )  # fmt: skip

    def prepared(self, batch: Batch) -> Batch:
        """A params batch as the strategy sees it."""
        later = self.later[0]
        return batch if later is None else (later(batch[0]), batch[1])

    def forget(self) -> None:
        """Let go of what was recorded, and of the memory that it holds."""
        self._function = None

    def __call__(self, params_batch: Batch, alpha_batch: Batch) -> StepStats:
        """Make one step on batches that `batches` gave."""
        if self._function is None:
            self._function = self.strategy.step
            if self.captures:
                # recorded only now: a checkpoint that was loaded has replaced the optimizers' tensors
                batches = (params_batch, alpha_batch)
                self._function = CapturedStep(self.strategy, batches, self.later)
        return self._function(params_batch, alpha_batch)
