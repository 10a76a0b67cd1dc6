"""Times of whole networks in the form in which they will be deployed, taken patiently."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from darts_core.architecture import Architecture
from darts_core.device import require_device
from darts_core.latency.deployed import as_deployed, in_runtime, without_norms
from darts_core.latency.measure import measure
from darts_core.latency.steady import in_turn_with
from darts_core.latency.timing import Timing
from darts_core.sample_inputs import draw_inputs

__all__ = ["NetworkTimer", "Reference"]

log = logging.getLogger("darts_core")
_PAUSE_SECONDS = 1.0
_TRIES = 3


@dataclass(frozen=True)
class Reference:
    """A network whose time is known.

    Attributes:
        make: builds it.
        ms: that it takes.
    """

    make: Callable[[], nn.Module]
    ms: float


class NetworkTimer:
    """Times the plain network of an architecture.

    Where other work disturbs a timing, it is taken again: as long as the patience of `wait_seconds`, shared
    by all timings, lasts; the timer says so. Then the network is sampled in turn with the reference, and
    their ratio, times what the reference is known to take, counts: other work slows both, and a device's
    pace may have changed, with no load to be seen, since the reference was timed. Without a reference the
    timing itself counts, and on a busy device the fastest of three.

    Attributes:
        disturbed: how many of the times so far were taken beside other work.
        waited: seconds that passed so far because other work was there.

    Args:
        make: builds the plain network of an architecture.
        input_shape: of one sample: (C, H, W), (C, T) or (T,).
        batch: samples a call.
        device: where.
        runtime: how networks run, see `deployed.RUNTIMES`.
        dtype: number format on a GPU.
        seconds: longest time for one timing.
        wait_seconds: patience, in all.
        reference: what networks are compared with.
    """

    def __init__(
        self,
        make: Callable[[Architecture], nn.Module],
        input_shape: Sequence[int],
        *,
        batch: int,
        device: str | torch.device = "cpu",
        runtime: str = "onnx",
        dtype: torch.dtype = torch.float32,
        seconds: float = 0.4,
        wait_seconds: float = 0.0,
        reference: Reference | None = None,
    ) -> None:
        self.make, self.runtime, self.dtype, self.seconds = make, runtime, dtype, seconds
        self.device, self.batch = require_device(device), batch
        self.disturbed, self.waited = 0, 0.0
        self._shape, self._patience, self._told = tuple(input_shape), wait_seconds, False
        # a captured graph is what samples in turn replay on a GPU
        alike = self.device.type == "cpu" or runtime == "graph"
        self._reference = reference if alike else None
        self._other: Callable[[], Any] | None = None

    def __call__(self, architecture: Architecture) -> Timing:
        """The time of one call of its network."""
        call = self._call_of(self.make(architecture))
        tries: list[Timing] = []
        while True:
            started = time.monotonic()
            tries.append(self._measured(call))
            busy = tries[-1].flagged
            if busy and self._patience > 0:  # the lock is let go of meanwhile
                self._wait(started, tries[-1].flag_reason)
                continue
            if busy and self._reference is None and len(tries) < _TRIES:
                continue
            self.disturbed += busy
            if self._reference is not None:
                return self._beside(self._reference, call, tries[-1])
            return min(tries, key=lambda timing: timing.median_ms) if busy else tries[-1]

    def _call_of(self, network: nn.Module) -> Callable[[], Any]:
        x = draw_inputs(self._shape, self.batch, device=self.device)
        plain = without_norms(network, x)
        return in_runtime(*as_deployed(plain, x, self.dtype), self.runtime)

    def _measured(self, call: Callable[[], Any]) -> Timing:
        return measure(
            call, device=self.device, runtime=self.runtime, batch=self.batch,
            graph=self.runtime == "graph", max_seconds=self.seconds, warmup_seconds=self.seconds / 2,
        )  # fmt: skip

    def _beside(self, reference: Reference, call: Callable[[], Any], row: Timing) -> Timing:
        """`row` with what the ratio to the reference says, both sampled in turn."""
        if self._other is None:  # built once, as every timing asks for it
            self._other = self._call_of(reference.make())
        return in_turn_with(
            self._other, reference.ms, row, call, device=self.device, seconds=self.seconds
        )

    def _wait(self, started: float, reason: str) -> None:
        self._say(reason)
        time.sleep(_PAUSE_SECONDS)
        passed = time.monotonic() - started
        self.waited += passed
        self._patience -= passed
        if self._patience <= 0:
            log.warning("networks are now timed beside other work; their times are less sure")

    def _say(self, reason: str) -> None:
        if not self._told:
            log.info("waiting up to %.0f s for a quiet device: %s", self._patience, reason)
            self._told = True
