"""The next token at each position: cross entropy over positions, and perplexity.

Shapes: B batch, T positions, V tokens; outputs are logits [B, T, V], targets int64 [B, T], `IGNORED` where
a position does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from darts_core.metric import Metric
from darts_core.tasks.base import IGNORED, Meter, Task, register_task

__all__ = ["NextToken"]

# beyond it a perplexity says nothing, and exp() would overflow
_MOST_NATS = 80.0


class _Nats(Meter):
    """Adds up cross entropy over positions and right answers."""

    def __init__(self, task: Task, device: torch.device) -> None:
        super().__init__(task, device)
        self._nats = torch.zeros((), dtype=torch.float64, device=device)
        self._right = torch.zeros((), dtype=torch.int64, device=device)
        self._count = torch.zeros((), dtype=torch.int64, device=device)

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch's nats and right answers."""
        output = output.detach().float()
        self._nats += _cross_entropy(output, target).double()
        self._right += (output.argmax(-1) == target).sum()
        self._count += (target != IGNORED).sum()

    def result(self) -> dict[str, float]:
        """Perplexity, and the share of right tokens."""
        count = max(int(self._count), 1)
        nats = float(self._nats) / count
        return {
            self.task.metric.name: float(
                torch.tensor(min(nats, _MOST_NATS), dtype=torch.float64).exp()
            ),
            "token_accuracy": int(self._right) / count,
        }


def _cross_entropy(output: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
    """Summed over the positions that count."""
    return functional.cross_entropy(
        output.flatten(0, -2), target.flatten(), ignore_index=IGNORED, reduction="sum",
        label_smoothing=smoothing,
    )  # fmt: skip


def _mean_nats(output: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
    """0 of a batch in which no position counts, whose plain mean would be NaN."""
    count = (target != IGNORED).sum().clamp(min=1)
    return _cross_entropy(output, target, smoothing) / count


@register_task(
    "next_token", description="the next token at each position: cross entropy, perplexity"
)
@dataclass(frozen=True)
class NextToken(Task):
    """Cross entropy in nats a position; perplexity, its exponential (1 is perfect, V pure guessing)."""

    metric = Metric("perplexity", "minimize")
    takes = ("token",)
    smooths = True
    ranked = True

    def output_shape(self, input_shape: Sequence[int]) -> tuple[int, ...]:
        """(T, V): logits at each position."""
        return (*input_shape, self.outputs)

    def loss(self, output: Tensor, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Mean cross entropy in nats a position."""
        return _mean_nats(output, target, label_smoothing)

    def summed_loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, int]:
        """The same, summed, and how many positions count."""
        return _cross_entropy(output, target), int((target != IGNORED).sum())

    def distillation_loss(self, output: Tensor, teacher: Tensor) -> Tensor:
        """Divergence from the teacher's distribution, the mean over positions."""
        return functional.kl_div(
            functional.log_softmax(output.flatten(0, -2), -1),
            functional.log_softmax(teacher.flatten(0, -2), -1),
            reduction="batchmean",
            log_target=True,
        )

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """Perplexity."""
        nats = _mean_nats(output.detach().float(), target)
        return nats.clamp(max=_MOST_NATS).exp()

    def meter(self, device: torch.device) -> Meter:
        """One that adds up nats."""
        return _Nats(self, device)

    def read(self, output: Tensor) -> Tensor:
        """Probabilities [B, T, V]."""
        return output.float().softmax(-1)

    def answers(self, answer: Tensor) -> dict[str, float]:
        """Probabilities of what follows the last position."""
        return super().answers(answer[-1])

    def agreement(self, output: Tensor, reference: Tensor) -> Tensor:
        """Share of positions whose top token is the same."""
        return (output.argmax(-1) == reference.argmax(-1)).double().mean()
