"""Random inputs of a shape, as a network takes them: for counting, timing, tracing and comparing.

Shapes: C channels, H W height and width, T positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from darts_core.memory import check_memory

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["draw_inputs", "formats_beside_float32", "is_unbuilt", "number_format"]


def draw_inputs(
    shape: Sequence[int],
    batch: int,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    generator: torch.Generator | None = None,
    vocabulary: int = 2,
    zeros: bool = False,
) -> Tensor:
    """A random batch as a network takes it: standard normal values, or token numbers for a shape (T,).

    Args:
        shape: of one sample: (C, H, W), (C, T) or (T,).
        batch: samples.
        device: of the batch.
        dtype: of values; tokens are int64.
        generator: on `device`; None draws from the global one.
        vocabulary: token numbers lie below it.
        zeros: nothing but zeros instead.

    Raises:
        MemoryShortageError: no memory holds so many.
    """
    import torch

    place = torch.device(device)
    check_memory(
        batch * math.prod(shape) * (dtype or torch.float32).itemsize,
        f"A batch of {batch} of shape {tuple(shape)} needs",
        "use a smaller batch",
        place,
    )
    if zeros:
        dtype = torch.int64 if len(shape) == 1 else dtype
        return torch.zeros(batch, *shape, device=device, dtype=dtype)
    if len(shape) == 1:
        return torch.randint(vocabulary, (batch, *shape), device=device, generator=generator)
    return torch.randn(batch, *shape, device=device, dtype=dtype, generator=generator)


def is_unbuilt(model: nn.Module) -> bool:
    """Whether a layer that takes its sizes from its first input, such as nn.LazyLinear, met none yet."""
    from torch.nn.parameter import is_lazy

    return any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers()))


def number_format(model: nn.Module) -> torch.dtype:
    """Of the values that a network takes: that of its first weights; float32 where it has none.

    A vector or a number beside its layers, as one made of a numpy array, may have a format of its own.
    """
    import torch
    from torch.nn.parameter import is_lazy

    own = [p for p in model.parameters() if p.is_floating_point()]
    # one that its first input builds has no dimensions yet
    weights = (p.dtype for p in own if is_lazy(p) or p.dim() > 1)
    return next(weights, own[0].dtype if own else torch.float32)


def formats_beside_float32(model: nn.Module) -> list[str]:
    """Names of the other number formats that parameters of `model` have, float64 for instance; often none."""
    import torch

    floating = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return sorted(str(kind).removeprefix("torch.") for kind in floating - {torch.float32})
