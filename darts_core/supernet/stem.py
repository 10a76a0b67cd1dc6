"""Stems on the fused path: every convolution and its affine norm as `darts_kernels.stem`.

`fuse_stems` finds the chains of (relu,) convolution, batch norm in a stem - one in the form for small images,
two in the ImageNet form - and changes their class in place. Modules, parameters and statistics stay where
they are, so state dicts and optimizers see no difference; `unfuse_stems` changes the class back.

On a CPU the stem stays with the library: unfolded and multiplied, a 3x3 convolution and its norm took 1.04
to 2.7 times as long both ways (C=16 to 48, 8x8 and 32x32, batch 64, one core), and no launch is saved.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["FusedStem", "chains", "fuse_stems", "stem_parts", "unfuse_stems"]

_EPSILON = 1e-5  # that of `darts_kernels.norm`


class FusedStem(nn.Sequential):
    """A chain of (relu,) convolution and batch norm on kernels; made by `fuse_stems` from a Sequential.

    Shapes: [B, in_channels, H, W] -> [B, channels, H / strides, W / strides], rounded up.
    """

    precision: str
    low: bool

    def forward(self, input: Tensor) -> Tensor:
        """The stem's output, in the storage dtype of the precision (fp32 if `low` is false)."""
        from darts_kernels._common import PRECISIONS
        from darts_kernels.stem import StemRun, conv_norm

        precision = PRECISIONS[self.precision]
        x = input
        for relu, conv, norm in stem_parts(self):
            update = self.training and norm.track_running_stats
            if update:
                norm.num_batches_tracked.add_(1)  # type: ignore[union-attr,operator]
            run = StemRun(
                precision,
                norm.running_mean,  # type: ignore[arg-type]
                norm.running_var,  # type: ignore[arg-type]
                stride=conv.stride[0],
                relu=relu,
                momentum=float(norm.momentum or 0.0) if update else 0.0,
                train=self.training,
                dtype=None if self.low else torch.float32,
            )
            x = conv_norm(run, x, conv.weight, norm.weight, norm.bias)
        return x


def stem_parts(chain: nn.Sequential) -> list[tuple[bool, nn.Conv2d, nn.BatchNorm2d]]:
    """(relu before, convolution, norm) of each part of a chain; empty if it is no such chain."""
    parts: list[tuple[bool, nn.Conv2d, nn.BatchNorm2d]] = []
    modules: list[Any] = list(chain)
    while modules:
        relu = isinstance(modules[0], nn.ReLU)
        conv, norm = [*modules[int(relu) : int(relu) + 2], None, None][:2]
        if not (isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
            return []
        if not (_is_plain(conv) and _is_usual(norm)):
            return []
        parts.append((relu, conv, norm))
        modules = modules[int(relu) + 2 :]
    return parts


def _is_plain(conv: nn.Conv2d) -> bool:
    """Whether a convolution is square, odd, padded to the same size and nothing else."""
    kernel = conv.kernel_size[0]
    return (
        conv.kernel_size == (kernel, kernel)
        and kernel % 2 == 1
        and conv.stride[0] == conv.stride[1]
        and conv.padding == (kernel // 2, kernel // 2)
        and conv.padding_mode == "zeros"
        and conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.bias is None
    )


def _is_usual(norm: nn.BatchNorm2d) -> bool:
    """Whether a norm is affine, tracked, and of the epsilon and kind of momentum that the kernels have."""
    tracked = norm.running_mean is not None and norm.momentum is not None
    return bool(norm.affine) and tracked and norm.eps == _EPSILON


def chains(stem: nn.Module) -> Iterator[nn.Sequential]:
    """The chains in a stem, in the order of the forward pass."""
    for module in stem.modules():
        if isinstance(module, nn.Sequential) and stem_parts(module):
            yield module


def fuse_stems(stem: nn.Module, precision: str, *, low: bool = True) -> int:
    """Put every chain of a stem on the kernels, in place; returns how many there are.

    Args:
        stem: on a GPU.
        precision: "fp32", "tf32" or "bf16".
        low: whether what reads the stem takes the storage dtype of the precision; else it is fp32.
    """
    count = 0
    for chain in list(chains(stem)):
        chain.__class__ = FusedStem
        fused: Any = chain
        fused.precision, fused.low = precision, low
        count += 1
    return count


def unfuse_stems(stem: nn.Module) -> None:
    """Back to ordinary modules."""
    for chain in list(stem.modules()):
        if isinstance(chain, FusedStem):
            del chain.precision, chain.low
            chain.__class__ = nn.Sequential  # type: ignore[assignment]
