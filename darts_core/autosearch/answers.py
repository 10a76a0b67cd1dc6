"""What a kept network says to made-up inputs: its weights fit many networks that compute something else.

One built with another activation, or by code that has changed since, takes the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["answers_of", "differ"]

_NUMBERS = 32
# of the largest number: more than the rounding of another device
_ROUNDING = 0.02


def answers_of(model: Any, input_shape: Sequence[int] | None) -> list[float] | None:
    """Some of the numbers that a network gives for two made-up inputs, in evaluation mode.

    None where it takes no such inputs, gives no finite numbers or others each time. The network, and what
    torch draws next, are left as they were.

    Args:
        model: a `torch.nn.Module`.
        input_shape: of one input, without the batch; None: not known.
    """
    if input_shape is None:
        return None
    import torch

    from darts_core.modes import evaluating, unmoved
    from darts_core.sample_inputs import draw_inputs, number_format

    home = next((p.device for p in model.parameters()), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    try:
        values = torch.randn(2, *input_shape, generator=generator)
        inputs = [values.to(home, number_format(model))]
        if len(input_shape) == 1:
            inputs.append(draw_inputs(input_shape, 2, generator=generator).to(home))
    except Exception:  # a shape for each of several inputs, say, or of more than the memory holds
        return None
    drawn_on = [home] if home.type == "cuda" else []
    for x in inputs:
        with torch.random.fork_rng(drawn_on), torch.no_grad(), evaluating(model):
            found = _twice(model, x, unmoved)
        if found is not None:
            return found
    return None


def _twice(model: Any, x: Any, unmoved: Callable[[Any], Any]) -> list[float] | None:
    found = []
    for _ in range(2):
        try:
            with unmoved(model):
                found.append(_numbers(model(x.clone())))
        except Exception:  # whatever a foreign network raises
            return None
    if not found[0] or not all(map(math.isfinite, found[0])) or differ(*found):
        return None
    return found[0]


def _numbers(output: Any) -> list[float]:
    import torch

    from darts_core.supernet.choices_build import all_tensors

    rows = [part.flatten() for part in all_tensors(output) if part.is_floating_point()]
    flat = torch.cat([row.double().cpu() for row in rows]) if rows else torch.zeros(0)
    places = torch.linspace(0, max(len(flat) - 1, 0), min(len(flat), _NUMBERS)).long()
    return [float(number) for number in flat[places]]


def differ(now: Sequence[float], then: Sequence[float]) -> bool:
    """Whether two lists of answers are of different functions, by more than rounding."""
    if len(now) != len(then):
        return True
    most = _ROUNDING * max(map(abs, (*now, *then)), default=0.0)
    return any(abs(a - b) > most for a, b in zip(now, then, strict=True))
