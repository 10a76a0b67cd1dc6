"""Sub-networks by gradient: alphas over widths and depths, the parameters frozen.

Each step draws one option a variable (straight-through Gumbel), runs the whole network gated to it, and moves
the alphas down the task's loss plus a multiplier times the excess of the expected latency over the budget;
the multiplier rises while the budget is broken (dual ascent). Sources: DARTS, arXiv:1806.09055; GDAS,
arXiv:1910.04465, Eq. 3 to 5; DASH, arXiv:2605.20936, does this for widths of language models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darts_core.elastic.cost import NetworkCost
from darts_core.elastic.gates import Gates
from darts_core.elastic.network import Elastic
from darts_core.elastic.norms import batch_statistics
from darts_core.modes import with_gradients
from darts_core.penalties import BudgetPenalty
from darts_core.relax.gumbel import GumbelStraightThrough

__all__ = ["descend", "fitted"]

Batches = Sequence[tuple[Tensor, Any]]
LossOf = Callable[[Tensor, Any], Tensor]


def descend(
    net: Elastic,
    cost: NetworkCost,
    batches: Batches,
    loss_of: LossOf,
    budget_ms: float,
    *,
    steps: int,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Variable -> the probability of each of its options after `steps` steps.

    Args:
        net: the elastic network, trained; it is left as it is.
        cost: its latency.
        batches: (inputs, targets), taken in turn.
        loss_of: the task's loss of (outputs, targets).
        budget_ms: what the expected latency may be.
        steps: of the alphas.
        seed: of the draws.
    """
    home = next(net.model.parameters()).device
    generator = torch.Generator(device=home).manual_seed(seed)
    alphas = {
        v.name: torch.zeros(1, len(v.options), device=home, requires_grad=True)
        for v in net.variables
    }
    optimizer = torch.optim.Adam(alphas.values(), lr=0.1, betas=(0.5, 0.999))
    relaxation = GumbelStraightThrough(2.0, 0.3, sparse=False)
    penalty = BudgetPenalty(cost, budget=budget_ms, rate=0.1, damping=2.0).to(home)  # type: ignore[arg-type]
    gates = Gates(net)
    with batch_statistics(net.model), _statistics_kept(net), with_gradients(net.model):
        for step in range(steps):
            x, y = batches[step % len(batches)]
            drawn = {
                name: relaxation.weights(alpha, step / max(steps - 1, 1), generator)[0]
                for name, alpha in alphas.items()
            }
            with gates(drawn) as network:
                # the batch serves again, and a network may write into its input
                loss = loss_of(network(x.clone()).float(), y)
            expected = {name: alpha.softmax(1)[0] for name, alpha in alphas.items()}
            optimizer.zero_grad()
            (loss + penalty(expected)).backward()
            optimizer.step()
    return {
        name: alpha.detach().softmax(1)[0].double().cpu().numpy() for name, alpha in alphas.items()
    }


@contextmanager
def _statistics_kept(net: Elastic) -> Iterator[None]:
    """A block after which the running statistics are what they were."""
    before = {buffer: buffer.clone() for buffer in net.model.buffers()}
    try:
        yield
    finally:
        for buffer, value in before.items():
            buffer.copy_(value)


def fitted(
    cost: NetworkCost,
    weights: Mapping[str, np.ndarray],
    budget_ms: float,
    start: Mapping[str, int] | None = None,
) -> dict[str, int] | None:
    """The choices of most weight within the budget; None where even the smallest are above it.

    From the likeliest options (or `start`), the step down that loses least log-weight for the time that it
    saves is taken until the budget is met; then what still fits goes up, what gains most first.
    """
    options = {variable.name: variable.options for variable in cost.variables}
    score = {name: np.log(np.maximum(w, 1e-12)) for name, w in weights.items()}
    place = {name: int(np.argmax(w)) for name, w in weights.items()}
    if start is not None:
        place = {name: options[name].index(start[name]) for name in options}

    def choices() -> dict[str, int]:
        return {name: options[name][at] for name, at in place.items()}

    def moved(name: str, by: int) -> float:
        place[name] += by
        found = cost.of(choices())
        place[name] -= by
        return found

    now = cost.of(choices())
    while now > budget_ms:
        steps = []
        for name, at in place.items():
            if at > 0:
                saved = now - moved(name, -1)
                lost = float(score[name][at] - score[name][at - 1])
                # a step that saves nothing is the last resort, however little it loses
                rate = lost / saved if lost > 0 and saved > 1e-12 else lost * saved
                steps.append((rate if saved > 1e-12 else np.inf, name))
        if not steps:
            return None
        place[min(steps)[1]] -= 1
        now = cost.of(choices())
    while True:
        gains = [
            (float(score[name][at + 1] - score[name][at]), name)
            for name, at in place.items()
            if at + 1 < len(options[name]) and moved(name, 1) <= budget_ms
        ]
        if not gains:
            return choices()
        place[max(gains)[1]] += 1
