"""Networks that are fed otherwise than they were written: several named inputs, rows of values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.named_inputs import NamedInput
from darts_core.sample_inputs import number_format

__all__ = ["ByName", "Rows", "inner"]


class ByName(nn.Module):
    """Takes a row of raw values [B, 1, F] apart, normalises each input, and calls `model(**inputs)`.

    In a low precision the row stays in float32, and a lower number format begins behind the normalisation:
    token numbers, and values far from 0, would be rounded to others.

    Args:
        model: takes the inputs as keywords.
        inputs: in the order of the row.
    """

    raw_input = True

    def __init__(self, model: nn.Module, inputs: Sequence[NamedInput]) -> None:
        super().__init__()
        self.model, self.inputs = model, tuple(inputs)
        self._dtype = number_format(model)
        for one in self.inputs:
            if not one.tokens:
                # not saved: the description of the inputs holds them
                shape = (-1, *[1] * (len(one.shape) - 1))
                scale = torch.tensor([1.0 / s for s in one.std]).view(shape)
                shift = torch.tensor([-m / s for m, s in zip(one.mean, one.std, strict=True)])
                self.register_buffer(f"scale_{one.name}", scale, persistent=False)
                self.register_buffer(f"shift_{one.name}", shift.view(shape), persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """What torch calls of `to(...)`: the normalisation stays as precise as it is."""
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, value in before.items():
            now = self._buffers[name]
            if value is not None and now is not None and now.itemsize < torch.float32.itemsize:
                self._buffers[name] = value.to(now.device)
        self._dtype = number_format(self.model)
        return self

    def named(self, row_B1F: Tensor) -> dict[str, Tensor]:
        """The inputs by name: normalised values, or int64 token numbers."""
        found: dict[str, Tensor] = {}
        parts = row_B1F.squeeze(1).split([one.size for one in self.inputs], dim=1)
        for one, part in zip(self.inputs, parts, strict=True):
            value = part.unflatten(1, one.shape)
            if one.tokens:
                # random rows of a timing hold no token numbers
                found[one.name] = value.round().clamp(0, one.tokens - 1).long()
            else:
                scale, shift = (
                    getattr(self, f"scale_{one.name}"),
                    getattr(self, f"shift_{one.name}"),
                )
                value = value * scale + shift
                low = self._dtype.itemsize < torch.float32.itemsize
                found[one.name] = value.to(self._dtype) if low else value
        return found

    def forward(self, row_B1F: Tensor) -> Any:
        """What the network gives."""
        return self.model(**self.named(row_B1F))


class Rows(nn.Module):
    """Samples of one channel [B, 1, F], or of one position [B, F, 1], as rows [B, F]: plain values."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        """What the network gives."""
        return self.model(x.flatten(1))


def inner(model: nn.Module) -> nn.Module:
    """The network as its author made it, which stands behind a `ByName` or `Rows`; else `model`."""
    return model.model if isinstance(model, (ByName, Rows)) else model
