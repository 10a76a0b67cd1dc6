"""Several named inputs of one network: side by side in one row of numbers, and taken apart in front of it.

Everything between the data and the network (batches, streaming, export, timing) knows one tensor. Inputs of
several kinds travel as one row [B, 1, F] of raw values; `ByName` cuts it up, normalises each input a channel
and calls the network with them by name. Normalisation is thus a part of the network, saved and exported too.

Shapes: N samples, B batch, F values of all inputs of a sample, C channels, T positions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from darts_core.errors import ConfigError, DataError

__all__ = ["NamedInput", "pack", "read_named", "shapes_of", "total"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_MOST_TOKENS = 100_000
_SAMPLES = 10_000


@dataclass(frozen=True)
class NamedInput:
    """One input.

    Attributes:
        name: the keyword of `forward`.
        shape: of one sample: (C, ...), or (T,) of tokens.
        tokens: how many different token numbers there are; 0 of other values.
        mean, std: one number a channel; of tokens none.
    """

    name: str
    shape: tuple[int, ...]
    tokens: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """Values a sample."""
        return math.prod(self.shape)

    def fitted(self, values_NF: np.ndarray) -> NamedInput:
        """With the mean and deviation a channel of these samples; a channel that never changes has std 1."""
        if self.tokens:
            return self
        chosen = values_NF[:: max(1, len(values_NF) // _SAMPLES)].astype(np.float64)
        by_channel = chosen.reshape(len(chosen), self.shape[0], -1)
        mean, std = by_channel.mean((0, 2)), by_channel.std((0, 2))
        return replace(self, mean=tuple(map(float, mean)), std=tuple(float(s) or 1.0 for s in std))

    def described(self) -> dict[str, Any]:
        """Plain data for saved files."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}


def total(inputs: Sequence[NamedInput]) -> int:
    """F: values of all inputs of a sample."""
    return sum(one.size for one in inputs)


def shapes_of(inputs: Sequence[NamedInput]) -> str:
    """The inputs in words: `image [3, 8, 8], words [12] (tokens)`."""
    return ", ".join(
        f"{one.name} {list(one.shape)}{' (tokens)' if one.tokens else ''}" for one in inputs
    )


def pack(
    arrays: Mapping[str, np.ndarray], label: str, known: Sequence[NamedInput] = ()
) -> tuple[np.ndarray, tuple[NamedInput, ...]]:
    """(the rows float32 [N, 1, F], the inputs) of named arrays [N, ...].

    Args:
        arrays: by name; whole numbers [N, T] are tokens, all else are values of C channels first; [N] is one
            value a sample.
        label: how messages call them.
        known: the inputs that they must be, of which those of values may come as whole numbers; none:
            whatever they are.

    Raises:
        DataError: a name, shape, dtype or value does not fit.
    """
    order = [one.name for one in known] or sorted(arrays)
    if set(order) != set(arrays):
        raise DataError(f"{label} holds {', '.join(sorted(arrays))}; needed is {shapes_of(known)}.")
    given = {one.name: one for one in known}
    found = [_input(name, arrays[name], label, given.get(name)) for name in order]
    counts = {name: len(arrays[name]) for name in order}
    if len(set(counts.values())) != 1:
        told = ", ".join(f"{count:,} of {name}" for name, count in counts.items())
        raise DataError(f"{label} holds {told}; every sample needs all inputs.")
    rows = [arrays[one.name].reshape(counts[one.name], one.size) for one in found]
    return np.concatenate([r.astype(np.float32) for r in rows], 1)[:, None], tuple(found)


def _input(name: str, values: np.ndarray, label: str, known: NamedInput | None) -> NamedInput:
    if not _NAME.fullmatch(name):
        raise DataError(
            f"{label}: {name[:80]!r} is no name of an input; use letters, digits and _."
        )
    if values.dtype.kind not in "uifb" or values.ndim < 1 or values.size == 0:
        raise DataError(
            f"{label}: {name} has dtype {values.dtype} and shape {values.shape}; needed are numbers, one "
            "or more a sample."
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError(
            f"{label}: {name} holds NaN or infinity; remove or replace what is missing."
        )
    shape = values.shape[1:] or (1,)
    tokens = 0
    # of an input that is known to be values, whole numbers are values, too
    if values.ndim == 2 and values.dtype.kind in "ui" and (known is None or known.tokens):
        low, high = int(values.min()), int(values.max())
        tokens = known.tokens if known is not None else high + 1
        if low < 0 or high >= max(tokens, 1) or tokens > _MOST_TOKENS:
            raise DataError(
                f"{label}: {name} holds the token number {low if low < 0 else high}; allowed are 0 to "
                f"{(tokens if known is not None else _MOST_TOKENS) - 1} (numbers that are no tokens: save "
                "them as floats)."
            )
    if known is None:
        return NamedInput(name, tuple(int(side) for side in shape), tokens)
    if tuple(shape) != known.shape or bool(tokens) != bool(known.tokens):
        raise DataError(
            f"{label}: {name} has dtype {values.dtype} and shape {values.shape}; needed is "
            f"{shapes_of([known])} a sample."
        )
    return known


def read_named(content: Any, label: str) -> tuple[NamedInput, ...]:
    """The inputs that a saved file describes.

    Raises:
        ConfigError: the description is damaged.
    """
    try:
        found = tuple(
            NamedInput(
                str(one["name"]),
                tuple(int(side) for side in one["shape"]),
                int(one.get("tokens", 0)),
                tuple(float(value) for value in one.get("mean", ())),
                tuple(float(value) for value in one.get("std", ())),
            )
            for one in content
        )
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise ConfigError(f"{label}: its named inputs are damaged ({error}).") from None
    for one in found:
        channels = 0 if one.tokens else (one.shape[0] if one.shape else -1)
        sound = _NAME.fullmatch(one.name) and one.shape and 0 < one.size <= 2**26
        sound = (
            sound and 0 <= one.tokens <= _MOST_TOKENS and all(math.isfinite(m) for m in one.mean)
        )
        if (
            not sound
            or len(one.mean) != channels
            or len(one.std) != channels
            or not all(0.0 < value < math.inf for value in one.std)
        ):
            raise ConfigError(f"{label}: the named input {one.name[:80]!r} is damaged.")
    if len({one.name for one in found}) != len(found):
        raise ConfigError(f"{label}: two named inputs have one name.")
    return found
