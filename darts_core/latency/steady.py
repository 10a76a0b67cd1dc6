"""Times that stay comparable where a device's pace changes: a network of known time is timed beside each.

`NetworkTimer` does the same for searched networks, and samples the two calls in turn; here a network can only
be timed as a whole, by a clock of the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from darts_core.latency.timing import Timing

__all__ = ["ALIKE", "SteadyClock"]

# two timings of one network at one pace differ by less
ALIKE = 0.15


class SteadyClock:
    """A clock for comparisons: where the device's pace has changed, times are scaled to the first one's.

    The reference is timed again beside every network. A pace may change without any load to be seen (another
    guest of the same host, the clock of the processor), so load alone is not asked.

    Args:
        clock: times a network.
        reference: the network that is compared with.
        first: its time, to whose pace others are scaled.
    """

    def __init__(
        self, clock: Callable[[nn.Module], Timing], reference: nn.Module, first: Timing
    ) -> None:
        self._clock, self._reference, self._first = clock, reference, first

    def __call__(self, network: nn.Module) -> Timing:
        """The network's time."""
        row = self._clock(network)
        scale = self._first.median_ms / self._clock(self._reference).median_ms
        disturbed = row.flagged or self._first.flagged
        if not disturbed and abs(scale - 1.0) <= ALIKE:
            return row
        reason = f"{row.flag_reason}; scaled by the unpruned network's time".lstrip("; ")
        return replace(row.scaled(scale), flagged=disturbed, flag_reason=reason)
