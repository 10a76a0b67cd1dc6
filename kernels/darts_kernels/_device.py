"""Small functions that kernels share: what is easily got wrong once in a dozen places."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

__all__ = ["begin", "larger", "merge_moments", "place_of", "relu"]


@triton.jit
def begin(OVERLAP: tl.constexpr):
    """The first statement of a kernel that may be launched while the one before it still runs.

    With OVERLAP (programmatic dependent launch, compute capability 9.0) its programs take their places
    while the last ones of the kernel before are busy, and wait here until all that it wrote can be read.
    Nothing may be read or written before: who waits is then behind everything that came earlier, as the
    kernel before has waited likewise. Then the next kernel may take places, too.
    """
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()


@triton.jit
def larger(a, b):
    """max(a, b), NaN if either is: plain `maximum` loses a NaN on a GPU, where torch keeps it."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def relu(x):
    """max(x, 0) that keeps NaN, as torch does: a search that diverged must not look sound."""
    return larger(x, tl.zeros_like(x))


@triton.jit
def place_of(layout_ptr, state, ALIGNED: tl.constexpr):
    """(start, step from sample to sample) of a state in the state buffer.

    ALIGNED says that all of them are multiples of 16 (`CellTables.aligned`): the compiler cannot know what a
    table holds, and without the hint every access of a state is one element wide.
    """
    start = tl.load(layout_ptr + 2 * state)
    step = tl.load(layout_ptr + 2 * state + 1).to(tl.int32)
    if ALIGNED:
        start = tl.multiple_of(start, 16)
        step = tl.multiple_of(step, 16)
    return start, step


@triton.jit
def merge_moments(count, mean, second, tile_count, tile_mean, tile_second):
    """Count, mean and centred second moment of two sets joined (Chan's formula)."""
    total = count + tile_count
    share = tile_count / larger(total, 1.0)
    delta = tile_mean - mean
    return total, mean + delta * share, second + tile_second + delta * delta * (count * share)
