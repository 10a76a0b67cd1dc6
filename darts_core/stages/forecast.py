"""How long a training will take and how much memory it needs, from a few steps of a throw-away network.

Shapes: x_BCHW images or other inputs [B, ...], y_B targets [B, ...].
"""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.data import DataBundle
from darts_core.device import wait_for
from darts_core.errors import first_line, is_memory_shortage
from darts_core.layout import in_layout, input_in_layout, telling_of_views
from darts_core.sample_inputs import draw_inputs
from darts_core.supernet.memory import memory_sentence, shared_memory_sentence
from darts_core.tasks import Task

__all__ = ["Forecast", "duration", "forecast", "process_peak_mib"]

log = logging.getLogger("darts_core")
_TIMED_STEPS, _TIMED_SECONDS = 3, 4.0
# a training of fewer seconds or steps is not worth another look; a smaller gain is not told from noise
_WORTH_A_LOOK, _MANY_STEPS, _CLEARLY = 60.0, 100, 0.9
Step = Callable[[Tensor, Tensor], Any]
LossOf = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Forecast:
    """Seconds of one step, seconds of all steps, and the peak memory in MiB while stepping."""

    step_seconds: float
    seconds: float
    peak_mib: float


def forecast(
    make: Callable[[], nn.Module],
    bundle: DataBundle,
    *,
    batch_size: int,
    steps: int,
    device: torch.device,
    what: str,
    step_of: Callable[[nn.Module], Step] | None = None,
    processes: int = 1,
    autocast: torch.dtype | None = None,
    channels_last: bool = False,
    look: bool = True,
) -> Forecast:
    """Time a few steps of a fresh network, after a warm-up, and log the forecast.

    The random generators are left as they were, so that a forecast changes no result.

    Args:
        make: builds the network; it is thrown away.
        bundle: whose inputs are drawn, and whose targets the task's loss is taken of.
        batch_size: images a step.
        steps: optimizer steps to come.
        device: where the network will run.
        what: names the work in the log line.
        step_of: network -> what makes one step of it, called with inputs and targets; None: a forward and
            a backward pass.
        processes: that share each batch: a step of one of them is timed.
        autocast: the dtype in which that pass runs under autocast; None: it does not.
        channels_last: the layout of images and weights, as in the training.
        look: whether to say so where a long training would be clearly quicker with channels last.

    Raises:
        MemoryShortageError: a step does not fit; states the largest batch that does, of a process alone.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        model = make().to(device)
        model.train()
        # two at least where there are two: a batch norm of a process alone refuses one
        own_size = max(min(2, batch_size), batch_size // processes)
        x_BCHW = draw_inputs(bundle.input_shape, own_size, vocabulary=bundle.in_channels)
        if channels_last:
            x_BCHW = input_in_layout(x_BCHW, torch.channels_last)
            in_layout(model, torch.channels_last)
        first = bundle.pool.targets_N[bundle.parts["params"][:1]].cpu()
        y_B = first.expand(own_size, *first.shape[1:]).contiguous()
        loss_of = _loss_of(model, bundle.task, autocast)
        make_step = step_of or (lambda model: _pass_of(model, loss_of))
        with telling_of_views(channels_last):
            step_seconds, peak_mib = _guarded(
                model, x_BCHW, y_B, device, loss_of, make_step, batch_size, processes
            )
    found = Forecast(step_seconds, step_seconds * steps, peak_mib)
    log.info(
        "%s: about %s for %d steps of %.0f ms, about %.0f MiB on %s",
        what,
        duration(found.seconds),
        steps,
        1e3 * found.step_seconds,
        found.peak_mib,
        device,
    )
    long = found.seconds > _WORTH_A_LOOK and steps >= _MANY_STEPS
    if look and long and step_of is None and not channels_last:
        with torch.random.fork_rng(devices=devices):
            _tell_of_layout(model, _pass_of(model, loss_of), x_BCHW, y_B, device, step_seconds)
    return found


def _tell_of_layout(
    model: nn.Module, step: Step, x_BCHW: Tensor, y_B: Tensor, device: torch.device, before: float
) -> None:
    """Say where a training with channels last would be clearly quicker; `model` is left in either layout."""
    if x_BCHW.dim() != 4 or not any(param.dim() == 4 for param in model.parameters()):
        return

    def seconds_in(layout: torch.memory_format) -> float:
        in_layout(model, layout)
        x = input_in_layout(x_BCHW.to(device), layout)
        return _time(step, x, y_B.to(device), device)[0]

    try:
        seconds = seconds_in(torch.channels_last)
        if seconds < _CLEARLY * before:  # not for having come later, or beside less other work
            before = min(before, seconds_in(torch.contiguous_format))
    # of foreign code, of any kind: it joins channels and positions by view(), or the memory is too short
    except Exception:
        return
    if seconds < _CLEARLY * before:
        log.info(
            "train.channels_last=true would take about %.2f of that (a step of %.0f ms), with other rounding",
            seconds / before,
            1e3 * seconds,
        )


def duration(seconds: float) -> str:
    """`seconds` in words of a fitting size: 42 s, 3.5 min, 2.1 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _guarded(
    model: nn.Module,
    x_BCHW: Tensor,
    y_B: Tensor,
    device: torch.device,
    loss_of: LossOf,
    step_of: Callable[[nn.Module], Step],
    batch_size: int,
    processes: int,
) -> tuple[float, float]:
    shortage = None
    try:
        return _time(step_of(model), x_BCHW.to(device), y_B.to(device), device)
    except (RuntimeError, MemoryError) as error:
        if not is_memory_shortage(error):
            raise
        shortage = first_line(error)
    # outside the handler: the traceback would keep the failed step's tensors alive
    if processes > 1:
        raise shared_memory_sentence(batch_size, processes, device, shortage)
    raise memory_sentence(loss_of, model, x_BCHW, y_B, device, shortage)


def _loss_of(model: nn.Module, task: Task, autocast: torch.dtype | None) -> LossOf:
    def loss_of(x_BCHW: Tensor, y_B: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(x_BCHW.device.type, dtype=autocast, enabled=autocast is not None):
            out: Any = model(x_BCHW)
        logits = out[0] if isinstance(out, tuple) else out
        return task.loss(logits.float(), y_B), logits

    return loss_of


def _pass_of(model: nn.Module, loss_of: LossOf) -> Step:
    """A forward and a backward pass."""

    def step(x_BCHW: Tensor, y_B: Tensor) -> None:
        model.zero_grad(set_to_none=True)
        loss_of(x_BCHW, y_B)[0].backward()

    return step


def _time(step: Step, x_BCHW: Tensor, y_B: Tensor, device: torch.device) -> tuple[float, float]:
    """(median seconds of a step, peak MiB)."""
    if device.type == "cuda":  # else it is that of what ran before in this process
        torch.cuda.reset_peak_memory_stats(device)
    step(x_BCHW, y_B)
    wait_for(device)
    seconds: list[float] = []
    while len(seconds) < _TIMED_STEPS and sum(seconds) < _TIMED_SECONDS:
        started = time.perf_counter()
        step(x_BCHW, y_B)
        wait_for(device)
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)[len(seconds) // 2], process_peak_mib(device)


def process_peak_mib(device: torch.device) -> float:
    """Peak MiB so far: of a process on a CPU; on a GPU the allocator's since the last forecast or timing."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # bytes on macOS, KiB elsewhere
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
