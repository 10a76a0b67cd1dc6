"""Times of whole networks in the form in which they will be deployed, taken patiently."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

from darts_core.architecture import Architecture
from darts_core.device import require_device
from darts_core.latency.deployed import as_deployed, in_runtime, without_norms
from darts_core.latency.measure import measure
from darts_core.latency.timing import Timing
from darts_core.sample_inputs import draw_inputs

__all__ = ["NetworkTimer"]

log = logging.getLogger("darts_core")
_PAUSE_SECONDS = 1.0
_TRIES = 3


class NetworkTimer:
    """Times the plain network of an architecture.

    Where other work disturbs a timing, it is taken again: as long as the patience of `wait_seconds`, shared
    by all timings, lasts. After that the fastest of three counts, and the timer says so.

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
    ) -> None:
        self.make, self.runtime, self.dtype, self.seconds = make, runtime, dtype, seconds
        self.device, self.batch = require_device(device), batch
        self.disturbed, self.waited = 0, 0.0
        self._shape, self._patience, self._told = tuple(input_shape), wait_seconds, False

    def __call__(self, architecture: Architecture) -> Timing:
        """The time of one call of its network."""
        x = draw_inputs(self._shape, self.batch, device=self.device)
        network = without_norms(self.make(architecture), x)
        call = in_runtime(*as_deployed(network, x, self.dtype), self.runtime)
        # the lock is let go of while this waits
        return self._patient(
            lambda: measure(
                call, device=self.device, runtime=self.runtime, batch=self.batch,
                graph=self.runtime == "graph", max_seconds=self.seconds,
                warmup_seconds=self.seconds / 2,
            )
        )  # fmt: skip

    def _patient(self, take: Callable[[], Timing]) -> Timing:
        tries: list[Timing] = []
        while True:
            started = time.monotonic()
            tries.append(take())
            if not tries[-1].flagged:
                return tries[-1]
            if self._patience <= 0 and len(tries) >= _TRIES:
                self.disturbed += 1
                return min(tries, key=lambda timing: timing.median_ms)
            if self._patience > 0:
                self._say(tries[-1].flag_reason)
                time.sleep(_PAUSE_SECONDS)
                passed = time.monotonic() - started
                self.waited += passed
                self._patience -= passed
                if self._patience <= 0:
                    log.warning(
                        "networks are now timed beside other work; their times are less sure"
                    )

    def _say(self, reason: str) -> None:
        if not self._told:
            log.info("waiting up to %.0f s for a quiet device: %s", self._patience, reason)
            self._told = True
