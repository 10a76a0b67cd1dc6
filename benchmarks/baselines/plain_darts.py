"""The rival of the fused step: the DARTS supernet out of ordinary per-operation modules.

The step follows the reference code of the paper: the alpha step calls `backward` and so fills the
gradients of all params too, which nobody reads; then SGD on the params. Variants: eager, the whole step
as one CUDA graph, each mixed operation compiled by torch.compile, and compiled inside a graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PlainStep"]


class PlainStep:
    """One first-order step of a plain supernet on static batches.

    Args:
        supernet: on the module path, on its device.
        batch: (images, labels) for the params and for alpha.
        autocast: run the passes under bf16 autocast, images channels-last.
        compiled: compile every mixed operation.
    """

    def __init__(
        self, supernet: Any, batch: tuple[Tensor, Tensor, Tensor, Tensor],
        *, autocast: bool = False, compiled: bool = False,
    ) -> None:  # fmt: skip
        self.supernet, self.batch, self.autocast = supernet, batch, autocast
        if compiled:
            for cell in supernet.cells:
                for mixed in getattr(cell, "mixed", []):
                    mixed.compile()
        self.params = list(supernet.parameters())
        self.alphas = supernet.alphas()
        device = batch[0].device
        cuda = device.type == "cuda"
        rate: float | Tensor = torch.tensor(0.025, device=device) if cuda else 0.025
        self.optimizer = torch.optim.SGD(
            self.params, lr=rate, momentum=0.9, weight_decay=3e-4, foreach=True
        )
        self.alpha_optimizer = torch.optim.Adam(
            self.alphas, lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3, capturable=cuda
        )

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        if self.autocast:
            x = x.contiguous(memory_format=torch.channels_last)
            with torch.autocast(x.device.type, dtype=torch.bfloat16):
                return F.cross_entropy(self.supernet(x).float(), y)
        return F.cross_entropy(self.supernet(x), y)

    def __call__(self) -> Tensor:
        """Alpha, then params; returns the params loss."""
        x, y, alpha_x, alpha_y = self.batch
        for tensor in [*self.params, *self.alphas]:
            tensor.grad = None
        self._loss(alpha_x, alpha_y).backward()
        self.alpha_optimizer.step()
        for tensor in [*self.params, *self.alphas]:
            tensor.grad = None
        loss = self._loss(x, y)
        loss.backward()
        nn.utils.clip_grad_norm_(self.params, 5.0)
        self.optimizer.step()
        return loss.detach()

    def captured(self, warm_up: int = 2) -> Callable[[], Tensor]:
        """The same step as one CUDA graph."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(warm_up):
                self()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self()

        def replay() -> Tensor:
            graph.replay()
            return loss

        return replay
