"""`CapturedStep`: a strategy's whole step, augmentation to optimizers, as one CUDA graph."""

from __future__ import annotations

import logging
import pickle
import random
from collections.abc import Hashable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from darts_core.data.batches import Preparation
from darts_core.latency.samples import recording
from darts_core.strategies.base import Batch, StepStats, Strategy
from darts_core.supernet.draws import Draws

__all__ = ["CapturedStep"]

log = logging.getLogger("darts_core")

_WARM_UP_STEPS = 3


class CapturedStep:
    """Calls like `strategy.step`, but replays a CUDA graph in which the step was recorded once.

    Batches are copied into the graph's own buffers; the returned statistics are overwritten by the next
    call. Learning rates, progress and random generators live on the device, so schedules go on. A graph is
    recorded for every setting a strategy switches (`alpha_active`, and `graph_key` where it has one). On
    another batch shape, on the CPU, for a strategy that is not `capturable`, or where recording fails, the
    step runs as it is, and the log says so once.

    Args:
        strategy: set up, and loaded from its checkpoint: recording keeps pointers to optimizer states.
        example_batches: a params batch and an alpha batch of the shapes to come.
        prepare: what makes the params images and the alpha images of the batches that are given; None
            where they come prepared, and for alpha where a step has one batch for both.
    """

    def __init__(
        self,
        strategy: Strategy,
        example_batches: tuple[Batch, Batch],
        prepare: tuple[Preparation | None, Preparation | None] = (None, None),
    ) -> None:
        self.strategy, self._prepare = strategy, prepare
        self._shapes = [tuple(t.shape) for batch in example_batches for t in batch]
        self._on_gpu = example_batches[0][0].is_cuda
        self._static: list[Tensor] = (
            [t.clone() for batch in example_batches for t in batch] if self._on_gpu else []
        )
        self._graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, StepStats]] = {}
        self._optimizer: torch.optim.Optimizer | None = None
        self._said = False
        self._broken = False

    def __call__(self, params_batch: Batch, alpha_batch: Batch) -> StepStats:
        """Move alpha and params by one step."""
        tensors = [*params_batch, *alpha_batch]
        if not self._on_gpu or self._broken:
            return self._plain(params_batch, alpha_batch, "there is no GPU")
        if not self.strategy.capturable:
            name = type(self.strategy).__name__
            why = (
                f"{name} decides on the host, does not say `capturable = True`, or all passes must see one "
                "draw"
            )
            return self._plain(params_batch, alpha_batch, why)
        if [tuple(t.shape) for t in tensors] != self._shapes:
            return self._plain(params_batch, alpha_batch, "the batch has another shape")
        for static, tensor in zip(self._static, tensors, strict=True):
            static.copy_(tensor, non_blocking=True)
        if self.strategy.optimizer is not self._optimizer:
            # strategies that rebuild their supernet make new optimizers: old graphs would move old tensors,
            # and hold the memory of their pools. The optimizer itself is kept: a number such as id() is
            # handed out again once its owner is gone
            self._graphs.clear()
            self._optimizer = self.strategy.optimizer
        key = (self.strategy.alpha_active, getattr(self.strategy, "graph_key", None))
        if key not in self._graphs:
            why = ""
            try:
                self._graphs[key] = self._record()
            except RuntimeError as error:
                self._broken, why = True, f"it cannot be recorded ({error})"
            if self._broken:
                # outside the handler: the traceback would keep the recording's tensors alive
                self._graphs.clear()
                return self._plain(params_batch, alpha_batch, why)
        graph, stats = self._graphs[key]
        graph.replay()
        return stats

    def _plain(self, params_batch: Batch, alpha_batch: Batch, why: str) -> StepStats:
        if not self._said and self._on_gpu:
            log.info("the search step runs without a CUDA graph: %s", why)
            self._said = True
        return self._step(params_batch, alpha_batch)

    def _run(self) -> StepStats:
        x, y, alpha_x, alpha_y = self._static
        return self._step((x, y), (alpha_x, alpha_y))

    def _step(self, params_batch: Batch, alpha_batch: Batch) -> StepStats:
        """Prepare the images and step."""
        params, alpha = self._prepare
        if params is not None:
            params_batch = (params(params_batch[0]), params_batch[1])
            alpha_batch = params_batch if alpha is None else (alpha(alpha_batch[0]), alpha_batch[1])
        return self.strategy.step(params_batch, alpha_batch)

    def _generators(self) -> list[torch.Generator]:
        """The sources of random numbers inside a step."""
        found = [self.strategy.supernet.generator]
        found += [prepare.generator for prepare in self._prepare if prepare is not None]
        return [generator for generator in found if generator is not None]

    def _record(self) -> tuple[torch.cuda.CUDAGraph, StepStats]:
        """Warm up on a side stream, record, and put everything the warm-up moved back."""
        keep, global_draws = _Snapshot(self.strategy), Draws(self.strategy.supernet)
        own_draws = [(generator, generator.get_state()) for generator in self._generators()]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                before = _host_draws()
                for _ in range(_WARM_UP_STEPS):
                    self._run()
            torch.cuda.current_stream().wait_stream(stream)
            if _host_draws() != before:
                # a network that drops layers by Python's random numbers would drop the same ones for ever
                raise RuntimeError("it draws random numbers on the host")
            graph = torch.cuda.CUDAGraph()
            for generator, _ in own_draws:
                if generator.device.type == "cuda":
                    graph.register_generator_state(generator)
            with recording(graph, stream):
                stats = self._run()
        finally:
            keep.restore()
            global_draws.again()
            for generator, state in own_draws:
                generator.set_state(state)
        return graph, stats


def _host_draws() -> tuple[object, ...]:
    """Where the global generators of Python, numpy and torch stand on the host."""
    of_numpy = pickle.dumps(np.random.get_state(legacy=False))
    return random.getstate(), of_numpy, torch.get_rng_state().numpy().tobytes()


class _Snapshot:
    """Values of everything a step moves, put back in place: a graph keeps pointers."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        supernet = strategy.supernet
        self._tensors = [*supernet.parameters(), *supernet.alphas(), *supernet.buffers()]
        # the multiplier of a budget moves in every alpha step
        penalties = [p for p in strategy.penalties if isinstance(p, nn.Module)]
        self._tensors += [buffer for penalty in penalties for buffer in penalty.buffers()]
        self._values = [tensor.detach().clone() for tensor in self._tensors]
        self._states = {id(value): value.detach().clone() for value in self._moments()}

    def _moments(self) -> Iterator[Tensor]:
        """What the two optimizers keep, as far as it is made."""
        for optimizer in (self._strategy.optimizer, self._strategy.alpha_optimizer):
            for state in optimizer.state.values():
                yield from (value for value in state.values() if isinstance(value, Tensor))

    @torch.no_grad()
    def restore(self) -> None:
        """Old values where there were any; states that the warm-up made start at zero."""
        for tensor, value in zip(self._tensors, self._values, strict=True):
            tensor.copy_(value)
        for value in self._moments():
            old = self._states.get(id(value))
            if old is None:
                value.zero_()
            else:
                value.copy_(old)
