"""Mean and standard deviation of the inputs a channel, from the params split alone."""

from __future__ import annotations

import numpy as np

__all__ = ["channel_statistics"]

# enough samples that both are exact to well below a grey level
_SAMPLES = 10_000
_BLOCK = 1000

Pair = tuple[tuple[float, ...], tuple[float, ...]]


def channel_statistics(inputs: np.ndarray, index: np.ndarray) -> Pair:
    """(mean, std) a channel of evenly chosen samples: images of uint8 on the scale 0..1, others as they are.

    Token rows [N, T] have neither. A channel that never changes has std 1: it is left at its scale instead
    of being divided by nothing.
    """
    chosen = index[:: max(1, len(index) // _SAMPLES)]
    if inputs.ndim == 2:
        return (), ()
    one = _of_bytes if inputs.dtype == np.uint8 else _of_numbers
    pairs = [one(inputs, chosen, channel) for channel in range(inputs.shape[1])]
    return tuple(m for m, _ in pairs), tuple(s or 1.0 for _, s in pairs)


def _of_bytes(inputs: np.ndarray, chosen: np.ndarray, channel: int) -> tuple[float, float]:
    values = np.arange(256) / 255
    counts = np.zeros(256)
    for start in range(0, len(chosen), _BLOCK):
        block = inputs[chosen[start : start + _BLOCK], channel]
        counts += np.bincount(block.reshape(-1), minlength=256)
    share = counts / counts.sum()
    centre = float(share @ values)
    return centre, float(np.sqrt(share @ (values - centre) ** 2))


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
