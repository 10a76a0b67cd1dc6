"""Guards against collapse: bad cells, sharp minima in alpha, gradients that part ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from darts_core.search.cell_guards import NearTies, SkipCount, Trainable, count_skips
from darts_core.search.types import Guard, GuardContext, GuardFinding
from darts_core.settings import Bounds, bounded
from darts_core.strategies.base import Batch, Strategy, without_gradients
from darts_core.strategies.early_stop import cosine_of_groups, operation_spans
from darts_core.supernet import frozen_statistics
from darts_core.supernet.draws import same_draws

if TYPE_CHECKING:
    from darts_core.data import DataBundle

__all__ = [
    "AlphaEigenvalue",
    "GradientSimilarity",
    "NearTies",
    "SkipCount",
    "Trainable",
    "count_skips",
    "largest_eigenvalue",
]


class AlphaEigenvalue(Guard):
    """Fires when the largest eigenvalue of the alpha loss's Hessian in alpha grows fast.

    The eigenvalue is measured on one fixed batch of the alpha split by power iteration on
    Hessian-vector products from central differences of the gradient; no Hessian is stored. With the
    mean over the last `window` measurements as value_i, it fires when
    value_{i - lag} / value_i < ratio. It advises; with `stop` it ends the search and doubts everything
    found since measurement i - lag. On RobustDARTS's own logs it fires on most searches, sound ones too.

    Source: RobustDARTS (arXiv:1909.09656), section 4.3: window 5, lag 5, ratio 0.75.

    Args:
        ratio: smallest allowed quotient, from 0 to 1.
        lag: measurements between the compared means.
        window: measurements in a mean.
        interval: epochs between measurements.
        iterations: power iterations; each measurement starts from the last one's vector.
        after: share of the search's epochs before the first measurement: at the beginning the
            curvature grows from nothing in any search.
        stop: end the search when it fires, with an architecture from before the rise.

    Raises:
        ConfigError: a number is out of range.
    """

    name = "eigenvalue"

    @bounded(
        ratio=Bounds(low=0, low_open=True, high=1, high_open=True),
        lag=Bounds(low=1, high=1_000_000),
        window=Bounds(low=1, high=1_000_000),
        interval=Bounds(low=1, high=1_000_000),
        iterations=Bounds(low=1, high=10_000),
        after=Bounds(low=0, high=1),
    )
    def __init__(
        self,
        ratio: float = 0.75,
        lag: int = 5,
        window: int = 5,
        interval: int = 1,
        iterations: int = 3,
        after: float = 0.25,
        *,
        stop: bool = False,
    ) -> None:
        self.after = after
        self.ratio, self.lag, self.window = ratio, lag, window
        self.interval, self.iterations, self.stop = interval, iterations, stop
        self.values: list[float] = []
        self.epochs: list[int] = []
        self.vector: list[Tensor] | None = None
        self.measured = False

    def after_epoch(self, context: GuardContext) -> GuardFinding | None:
        """Measure, and compare with `lag` measurements ago."""
        self.measured = False
        if context.epoch < self.after * context.config.epochs:
            return None
        if _rests(context.strategy) or context.epoch % self.interval:
            return None
        gradients = alpha_gradient_function(context.strategy, fixed_batch(context, "alpha"))
        alphas = [alpha.detach() for alpha in context.supernet.alphas()]
        start = self.vector
        if start is None or [v.shape for v in start] != [a.shape for a in alphas]:
            start = None
        value, self.vector = largest_eigenvalue(
            gradients, alphas, iterations=self.iterations, start=start
        )
        return self.record(value, context.epoch)

    def record(self, value: float, epoch: int) -> GuardFinding | None:
        """Add one measurement; a finding when the rule says stop."""
        self.values.append(value)
        self.measured = True
        self.epochs = [*self.epochs, epoch][-self.lag - 1 :]
        before, now = self._mean(len(self.values) - 1 - self.lag), self._mean(len(self.values) - 1)
        if before is None or now is None or now <= 0 or before <= 0 or before / now >= self.ratio:
            return None
        return GuardFinding(
            self.name,
            epoch,
            f"the largest eigenvalue of the alpha Hessian rose from {before:.3g} to {now:.3g} within "
            f"{self.lag} measurements (mean of {self.window}).",
            stop=self.stop,
            value=now,
            since=self.epochs[0] + 1,
        )

    def _mean(self, last: int) -> float | None:
        """The mean of the `window` values up to `last`; None before there are so many."""
        first = last - self.window + 1
        return None if first < 0 else sum(self.values[first : last + 1]) / self.window

    def measurements(self) -> dict[str, float]:
        """The eigenvalue of this epoch, if it was measured."""
        return {"eigenvalue": self.values[-1]} if self.measured else {}

    def state_dict(self) -> dict[str, Any]:
        """The values, the epochs of the last ones and the vector."""
        return {"values": self.values, "epochs": self.epochs, "vector": self.vector}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`."""
        self.values = list(state.get("values", []))
        self.epochs = list(state.get("epochs", []))
        self.vector = state.get("vector")


class GradientSimilarity(Guard):
    """Reports how well the operations' gradients on the params and the alpha split agree.

    The mean over candidate operations of the cosine of the two gradients, on one fixed batch each. Those
    without a gradient, such as what an edge may not choose, say nothing and do not count. Low values mean
    operations that overfit the params split, and alpha turning to those without params.

    Source: gradient matching of OLES (Jiang et al., NeurIPS 2023), Eq. 5.

    Args:
        least: fires below it.
        patience: epochs in a row below it before it fires.
        interval: epochs between measurements.
        stop: end the search when it fires.

    Raises:
        ConfigError: `least` is outside [-1, 1] or another number below 1.
    """

    name = "gradient_similarity"

    @bounded(
        least=Bounds(low=-1, high=1),
        patience=Bounds(low=1, high=1_000_000),
        interval=Bounds(low=1, high=1_000_000),
    )
    def __init__(
        self, least: float = 0.0, patience: int = 3, interval: int = 1, *, stop: bool = False
    ) -> None:
        self.least, self.patience, self.interval, self.stop = least, patience, interval, stop
        self.streak = 0
        self.value: float | None = None

    def after_epoch(self, context: GuardContext) -> GuardFinding | None:
        """Measure the similarity."""
        self.value = None
        if _rests(context.strategy) or context.epoch % self.interval:
            return None
        params = [param for param in context.supernet.parameters() if param.requires_grad]
        groups = operation_spans(context.supernet)
        if not groups:
            return None
        sides = []
        for split in ("params", "alpha"):
            with frozen_statistics(context.supernet), same_draws(context.supernet):
                weights = {k: w.detach() for k, w in context.supernet.expected_weights().items()}
                loss, _ = context.strategy.loss(fixed_batch(context, split), weights)
            sides.append(torch.autograd.grad(loss, params, allow_unused=True))
        cosines = cosine_of_groups(groups, *sides)
        known = cosines[cosines != 0]
        return self.record(float(known.mean()), context.epoch) if known.numel() else None

    def record(self, value: float, epoch: int) -> GuardFinding | None:
        """Add one measurement; a finding when it was too low for too long."""
        self.value = value
        self.streak = self.streak + 1 if value < self.least else 0
        if self.streak < self.patience:
            return None
        return GuardFinding(
            self.name,
            epoch,
            f"the operations' gradients on the two splits have a mean cosine of {value:.3f}, below "
            f"{self.least:g} for {self.streak} measurements: operations overfit.",
            stop=self.stop,
            value=value,
        )

    def measurements(self) -> dict[str, float]:
        """The mean cosine of this epoch, if it was measured."""
        return {} if self.value is None else {"gradient_similarity": self.value}

    def state_dict(self) -> dict[str, Any]:
        """The streak."""
        return {"streak": self.streak}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`."""
        self.streak = state.get("streak", 0)


def _rests(strategy: Strategy) -> bool:
    """Whether alpha is not moving: its curvature and gradients then mean nothing."""
    return not (strategy.moves_alpha and strategy.alpha_active)


def fixed_batch(context: GuardContext, split: str) -> Batch:
    """One batch from all of the split (its first samples may be of one class), the same in every epoch.

    It is not augmented.
    """
    bundle: DataBundle = context.bundle
    size = min(context.config.batch_size, bundle.size(split))
    # a batch of evaluation, as `ShardedBundle` knows it: whole in every process
    return next(iter(bundle.batches(split, size, drop_last=False)))


def alpha_gradient_function(
    strategy: Strategy, batch: Batch
) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """A function of alphas: the gradient of the batch's loss under expected weights.

    What a strategy or a module of the network draws is the same at each call: the guard takes differences.
    """
    supernet = strategy.supernet
    own: list[Tensor] = list(supernet.alphas())

    def gradients(alphas: Sequence[Tensor]) -> list[Tensor]:
        saved = [alpha.detach().clone() for alpha in own]
        with torch.no_grad():
            torch._foreach_copy_(own, list(alphas))
        try:
            with (
                without_gradients(strategy.params),
                frozen_statistics(supernet),
                same_draws(supernet),
            ):
                loss, _ = strategy.loss(batch, supernet.expected_weights())
            found = torch.autograd.grad(loss, own, allow_unused=True)
        finally:
            with torch.no_grad():
                torch._foreach_copy_(own, saved)
        return [
            torch.zeros_like(alpha) if g is None else g for alpha, g in zip(own, found, strict=True)
        ]

    return gradients


def largest_eigenvalue(
    gradients: Callable[[Sequence[Tensor]], list[Tensor]],
    at: Sequence[Tensor],
    *,
    iterations: int,
    start: Sequence[Tensor] | None = None,
    epsilon: float = 1e-2,
) -> tuple[float, list[Tensor]]:
    """The largest (most positive) eigenvalue of the Hessian of a function, and its vector.

    Power iteration on Hv = (gradient(at + eps v) - gradient(at - eps v)) / (2 eps). When it runs into a
    negative eigenvalue, it goes on with the Hessian shifted by it.

    Args:
        gradients: the function's gradient.
        at: the point.
        iterations: power iterations.
        start: vector to start from; a fixed pseudo-random one if None.
        epsilon: step of the difference, for a vector of norm 1.
    """
    if start is None:
        generator = torch.Generator().manual_seed(0)
        start = [torch.randn(a.shape, generator=generator, dtype=a.dtype).to(a.device) for a in at]

    def norm_of(vector: Sequence[Tensor]) -> Tensor:
        return torch.linalg.vector_norm(torch.stack([v.norm() for v in vector]))

    def product(vector: Sequence[Tensor]) -> list[Tensor]:
        plus = gradients([a + epsilon * v for a, v in zip(at, vector, strict=True)])
        minus = gradients([a - epsilon * v for a, v in zip(at, vector, strict=True)])
        return [(p - m) / (2 * epsilon) for p, m in zip(plus, minus, strict=True)]

    def iterate(vector: list[Tensor], shift: float) -> tuple[float, list[Tensor]]:
        rayleigh = 0.0
        for _ in range(iterations):
            scale = norm_of(vector).clamp_min(1e-30)
            vector = [v / scale for v in vector]
            image = product(vector)
            rayleigh = float(sum((v * h).sum() for v, h in zip(vector, image, strict=True)))
            vector = [h - shift * v for v, h in zip(vector, image, strict=True)]
        scale = norm_of(vector).clamp_min(1e-30)
        return rayleigh, [v / scale for v in vector]

    value, vector = iterate(list(start), 0.0)
    if value < 0:
        value, vector = iterate(list(start), value)
    return value, vector
