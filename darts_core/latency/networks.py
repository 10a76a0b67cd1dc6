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
from darts_core.latency.deployed import as_deployed, in_runtime, settle_seconds, without_norms
from darts_core.latency.measure import measure
from darts_core.latency.steady import in_ratio
from darts_core.latency.timing import Timing
from darts_core.latency.turns import ratios_in_turn
from darts_core.sample_inputs import draw_inputs

__all__ = ["NetworkTimer", "Reference"]

log = logging.getLogger("darts_core")
_PAUSE_SECONDS = 1.0
_TRIES = 3
_ROUNDS = 7
# two timings of one network on a quiet device differ by less
_ALIKE = 0.1


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
    by all timings, lasts. After that the network is sampled in turn with the reference, which other work
    slows as well: their ratio, times what the reference is known to take, counts. Without a reference the
    fastest of three does. The timer says so. Where the reference takes another time on a quiet device than
    is known of it, times are given as if it took that: what counts is their ratio.

    Attributes:
        disturbed: how many of the times so far were taken beside other work.
        waited: seconds that passed so far because other work was there.

    Args:
        make: builds the plain network of an architecture.
        input_shape: of one sample: (C, H, W), (C, T) or (T,).
        batch: samples a call.
        device: where.
        runtime: how networks run, see `forms.RUNTIMES`.
        dtype: number format on a GPU.
        seconds: longest time for one timing.
        wait_seconds: patience, in all.
        reference: what is timed beside a network on a busy device.
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
        self._pace: float | None = None
        self._other: Callable[[], Any] | None = None

    def __call__(self, architecture: Architecture) -> Timing:
        """The time of one call of its network."""
        call = self._call_of(self.make(architecture))
        tries: list[Timing] = []
        while True:
            started = time.monotonic()
            tries.append(self._measured(call))
            if not tries[-1].flagged:
                return self._as_paced(tries[-1], call)
            if self._patience <= 0 and self._reference is not None:
                self.disturbed += 1
                return self._beside(self._reference, call, tries[-1])
            if self._patience <= 0 and len(tries) >= _TRIES:
                self.disturbed += 1
                return min(tries, key=lambda timing: timing.median_ms)
            if self._patience > 0:  # the lock is let go of meanwhile
                self._wait(started, tries[-1].flag_reason)

    def _call_of(self, network: nn.Module) -> Callable[[], Any]:
        x = draw_inputs(self._shape, self.batch, device=self.device)
        plain = without_norms(network, x)
        return in_runtime(*as_deployed(plain, x, self.dtype), self.runtime)

    def _reference_call(self, reference: Reference) -> Callable[[], Any]:
        if self._other is None:  # built once, as every disturbed timing asks for it
            self._other = self._call_of(reference.make())
        return self._other

    def _measured(self, call: Callable[[], Any]) -> Timing:
        return measure(
            call, device=self.device, runtime=self.runtime, batch=self.batch,
            graph=self.runtime == "graph", max_seconds=self.seconds, warmup_seconds=self.seconds / 2,
        )  # fmt: skip

    def _beside(self, reference: Reference, call: Callable[[], Any], row: Timing) -> Timing:
        """`row` with what the ratio to the reference says, both sampled in turn."""
        other = self._reference_call(reference)
        ratios = ratios_in_turn(
            call, other, device=self.device, rounds=_ROUNDS, settle=settle_seconds(self.runtime)
        )
        return in_ratio(row, ratios, reference.ms)

    def _as_paced(self, row: Timing, call: Callable[[], Any]) -> Timing:
        """`row`, taken on a quiet device, as it would be where the reference takes what it is known to take.

        That may have been measured beside other work, before this device was quiet.
        """
        if self._reference is None:
            return row
        if self._pace is None:
            now = self._measured(self._reference_call(self._reference))
            if now.flagged:
                return self._beside(self._reference, call, row)
            pace = self._reference.ms / now.median_ms
            self._pace = pace if abs(pace - 1.0) > _ALIKE else 1.0
        if self._pace == 1.0:
            return row
        return row.scaled(self._pace)

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
