"""Batch norm over the samples of all processes, on any device.

Shapes: x [B, C, ...]; statistics [C].
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["Replaced", "SumOverProcesses", "SynchronizedNorm", "restore_norms", "synchronize_norms"]

# (parent, name, the norm that stood there)
Replaced = tuple[nn.Module, str, nn.Module]
_KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

log = logging.getLogger("darts_core")


class SumOverProcesses(torch.autograd.Function):
    """y = sum of x over the processes; the gradient of x is the sum of the gradients of y.

    The objective is the sum of the processes' losses; each of them depends on every x through y.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """The sum."""
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        """The sum of the gradients; differentiable again."""
        result: Tensor = SumOverProcesses.apply(gradient.contiguous())
        return result


class SynchronizedNorm(nn.BatchNorm2d):
    """A batch norm whose training statistics are those of all processes together."""

    def forward(self, x: Tensor) -> Tensor:
        """The normalised input."""
        if not self.training:
            return super().forward(x)
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        count = x.numel() // x.shape[1] * dist.get_world_size()
        others = [d for d in range(x.dim()) if d != 1]
        shape = [-1, *[1] * (x.dim() - 2)]
        # two sums one after the other: E[x^2] - E[x]^2 in one would cancel
        mean = SumOverProcesses.apply(wide.sum(others)) / count
        centred = wide - mean.view(shape)
        variance = SumOverProcesses.apply(centred.square().sum(others)) / count
        if self.track_running_stats and self.running_mean is not None:
            self._track(mean.detach(), variance.detach() * count / max(count - 1, 1))
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        out = centred * scale.view(shape)
        if self.bias is not None:
            out = out + self.bias.view(shape)
        return out.to(x.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any that has channels: it stands for norms of series and volumes, too."""

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        with torch.no_grad():
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
            momentum = self.momentum
            if momentum is None:  # the plain mean over all batches so far, as torch takes it
                seen = self.num_batches_tracked
                momentum = 0.0 if seen is None else 1.0 / float(seen)
            if self.running_mean is not None:
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
            if self.running_var is not None:
                self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)


def synchronize_norms(module: nn.Module) -> list[Replaced]:
    """Make every batch norm inside `module` a `SynchronizedNorm`, in place, values kept; what it replaced.

    A subclass may compute more than its parent, so it stays as it is; that is said once.
    """
    alike = (*_KINDS, SynchronizedNorm, nn.SyncBatchNorm)
    own = [m for m in module.modules() if isinstance(m, _BatchNorm) and type(m) not in alike]
    if own:
        _say_left(len(own), tuple(sorted({type(m).__name__ for m in own})))
    replaced: list[Replaced] = []
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) in _KINDS:
                assert isinstance(child, _BatchNorm)
                norm = SynchronizedNorm(
                    child.num_features,
                    child.eps,
                    child.momentum,
                    child.affine,
                    child.track_running_stats,
                )
                norm.train(child.training)
                # the same tensors: optimizers and state dicts go on as before
                norm._parameters, norm._buffers = child._parameters, child._buffers
                setattr(parent, name, norm)
                replaced.append((parent, name, child))
    return replaced


@lru_cache
def _say_left(count: int, kinds: tuple[str, ...]) -> None:
    log.warning(
        "sync_batchnorm: %d norms are of a class of their own (%s) and see their own process's part of a "
        "batch; the result is not that of one process",
        count,
        ", ".join(kinds),
    )


def restore_norms(replaced: list[Replaced]) -> None:
    """Put back what `synchronize_norms` replaced, with the values of now."""
    for parent, name, norm in replaced:
        norm.train(getattr(parent, name).training)
        setattr(parent, name, norm)
