"""Mean and standard deviation of the inputs a channel, from the params split alone."""

from __future__ import annotations

import logging

import numpy as np

from darts_core.data.encoded import EncodedImages

__all__ = ["channel_statistics", "tell_other_scale"]

# enough samples that both are exact to well below a grey level
_SAMPLES = 10_000
# of those that must be decoded for it
_DECODED = 2_000
_BLOCK = 1000
_BYTES = 100
# of a test set: values that are looked at, how many times as large is another scale, samples it takes
_LOOKED_AT, _TIMES, _LEAST = 2**22, 10, 10
# more channels are no picture's, but planes of a board or the like; share of 1.0 in pictures from 0 to 1
_COLOURS, _FEW = 3, 0.05

log = logging.getLogger("darts_core")
Pair = tuple[tuple[float, ...], tuple[float, ...]]


def channel_statistics(
    inputs: np.ndarray | EncodedImages, index: np.ndarray, origin: str = "the data"
) -> Pair:
    """(mean, std) a channel of evenly chosen samples: images of uint8 on the scale 0..1, others as they are.

    Token rows [N, T] have neither. A channel that never changes has std 1: it is left at its scale instead
    of being divided by nothing. Where that is so of all of them, the log tells of `origin`.
    """
    most = _DECODED if isinstance(inputs, EncodedImages) else _SAMPLES
    chosen = index[:: max(1, len(index) // most)]
    if inputs.ndim == 2:
        return (), ()
    if isinstance(inputs, EncodedImages) or inputs.dtype == np.uint8:
        pairs = _of_bytes(inputs, chosen, origin)
    else:
        pairs = [_of_numbers(inputs, chosen, channel) for channel in range(inputs.shape[1])]
    if not any(s for _, s in pairs):
        log.warning(
            "%s: its inputs are one number everywhere, in each channel, so that nothing can be learned from "
            "them; look at what was saved",
            origin,
        )
    return tuple(m for m, _ in pairs), tuple(s or 1.0 for _, s in pairs)


def tell_other_scale(inputs: np.ndarray, index: np.ndarray, fitted: Pair, origin: str) -> None:
    """A warning where a test set of its own is normalised by statistics that are not nearly its own.

    Args:
        inputs: [N, C, ...], of all samples.
        index: of the test samples.
        fitted: (mean, std) a channel.
        origin: what the data are called.
    """
    count = max(_LEAST, _LOOKED_AT // int(np.prod(inputs.shape[1:])))
    block = inputs[index[:: max(1, len(index) // count)]].astype(np.float64)
    if len(block) < _LEAST:
        return
    axes = (0, *range(2, block.ndim))
    unit = 255 if inputs.dtype == np.uint8 else 1
    own_mean, own_std = block.mean(axes) / unit, block.std(axes) / unit
    mean, std = (np.array(values) for values in fitted)
    other = (np.abs(own_mean - mean) > _TIMES * std) | (own_std > _TIMES * std)
    # a channel that never changes in the test set has no scale, nor one in the training set, whose std is 1
    other |= (own_std > 0) & (own_std * _TIMES < std) & (std != 1.0)
    if 2 * int(other.sum()) > len(other):
        first = int(other.argmax())
        log.warning(
            "%s: its test inputs are on another scale than the training ones, by which they are normalised "
            "(channel %d: mean %.3g and deviation %.3g, not %.3g and %.3g); save both alike",
            origin, first, own_mean[first], own_std[first], mean[first], std[first],
        )  # fmt: skip


def _of_bytes(
    inputs: np.ndarray | EncodedImages, chosen: np.ndarray, origin: str
) -> list[tuple[float, float]]:
    values = np.arange(256) / 255
    counts = np.zeros((inputs.shape[1], 256))
    for start in range(0, len(chosen), _BYTES):
        block = inputs[chosen[start : start + _BYTES]]
        for channel, own in enumerate(counts):
            own += np.bincount(block[:, channel].reshape(-1), minlength=256)
    if inputs.ndim == 4 and inputs.shape[1] <= _COLOURS and _all_but_zero(counts):
        log.warning(
            "%s: its bytes are 0 and 1 alone; if they were numbers from 0 to 1, most was lost by the cast: "
            "np.rint(255 * x).astype(np.uint8)",
            origin,
        )
    shares = counts / counts.sum(1, keepdims=True)
    centres = shares @ values
    spreads = [float(np.sqrt(s @ (values - c) ** 2)) for s, c in zip(shares, centres, strict=True)]
    return list(zip(map(float, centres), spreads, strict=True))


def _all_but_zero(counts: np.ndarray) -> bool:
    """Whether bytes are 0 and a few of them 1, as a cast leaves what was 1.0: drawings have more."""
    return not counts[:, 2:].any() and 0 < counts[:, 1].sum() < _FEW * counts.sum()


def _of_numbers(inputs: np.ndarray, chosen: np.ndarray, channel: int) -> tuple[float, float]:
    count, total, square = 0, 0.0, 0.0
    # about the first value, so that a large offset costs no digits
    about = float(inputs[chosen[0], channel].reshape(-1)[0])
    for start in range(0, len(chosen), _BLOCK):
        block = inputs[chosen[start : start + _BLOCK], channel].astype(np.float64) - about
        count += block.size
        total += float(block.sum())
        square += float((block**2).sum())
    centre = total / count
    return about + centre, float(np.sqrt(max(square / count - centre**2, 0.0)))
