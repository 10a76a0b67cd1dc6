"""The mixed operation: the weighted sum of all candidates on one edge, from plain modules."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darts_core.errors import ConfigError
from darts_core.ops import create_op
from darts_core.ops.simple import AvgPool3x3, MaxPool3x3, ZeroOp

__all__ = ["MixedOp", "lean_sum"]


def lean_sum(terms: Sequence[tuple[Tensor, Tensor]], base: Tensor | None = None) -> Tensor:
    """base + sum_k weight_k * x_k over (weight_k, x_k): one kernel each way on a GPU.

    There the inputs are read once and kept only where a weight needs a gradient, and the sum can be
    derived once; on a CPU it is plain torch.

    Raises:
        ValueError: there is neither a term nor a base.
    """
    if not terms and base is None:
        raise ValueError("lean_sum needs at least one term or a base.")
    if not any(x.is_cuda for _, x in terms):
        # without the kernels' file: where there is no GPU there may be no Triton, as on macOS
        for weight, x in terms:
            term = weight.to(x.dtype) * x
            base = term if base is None else base + term
        assert base is not None
        return base
    from darts_kernels.weighted_sum import LARGEST_COUNT, weighted_sum

    room = LARGEST_COUNT - 1
    for start in range(0, len(terms), room):
        weights, xs = (list(part) for part in zip(*terms[start : start + room], strict=True))
        if base is not None:
            weights, xs = [torch.ones_like(weights[0]), *weights], [base, *xs]
        base = weighted_sum(xs, torch.stack(weights))
    assert base is not None
    return base


def _plain(terms: Iterable[tuple[Tensor, Tensor]]) -> Tensor | None:
    """The sum term by term; None without terms."""
    total: Tensor | None = None
    for weight, x in terms:
        total = weight * x if total is None else total + weight * x
    return total


def _lean(terms: Iterable[tuple[Tensor, Tensor]]) -> Tensor | None:
    """The sum at once; None without terms."""
    found = list(terms)
    if not found:
        return None
    # under autocast an identity keeps its input's dtype, a convolution does not
    dtype = functools.reduce(torch.promote_types, (x.dtype for _, x in found))
    return lean_sum([(weight, x.to(dtype)) for weight, x in found])


class MixedOp(nn.Module):
    """sum_k weight_k * op_k(x) over the candidate operations of an edge.

    With `channel_fraction` K > 1 only the first C / K channels are mixed; the others pass by (max-pooled
    where the stride is 2), times the weight of the edge, which is the sum of its operations' weights, and
    the channels are shuffled, as in PC-DARTS (arXiv:1907.05737, Eq. 2 and 4).

    Shapes: x [B, C, H, W], weights [K_ops] -> [B, C, ceil(H / stride), ceil(W / stride)].
    """

    def __init__(
        self,
        ops: Sequence[str],
        channels: int,
        stride: int,
        *,
        norm_after_pool: bool,
        channel_fraction: int = 1,
    ) -> None:
        super().__init__()
        if channels % channel_fraction:
            raise ConfigError(
                f"{channels} channels cannot be split into {channel_fraction} equal parts; choose "
                "search.channels as a multiple of the channel fraction."
            )
        self.names = tuple(ops)
        self.stride = stride
        self.channel_fraction = channel_fraction
        self.lean = False
        """Whether the outputs are summed by `lean_sum`; the fast paths switch it on."""
        mixed = channels // channel_fraction
        self.ops = nn.ModuleList()
        for name in ops:
            op = create_op(name, mixed, stride, affine=False)
            if norm_after_pool and isinstance(op, (MaxPool3x3, AvgPool3x3)):
                op = nn.Sequential(op, nn.BatchNorm2d(mixed, affine=False))
            self.ops.append(op)

    def forward(
        self, x_BCHW: Tensor, weights_K: Tensor, drawn: Sequence[int] | None = None
    ) -> Tensor:
        """The mixture; operations that return zeros are not run, nor those outside `drawn` if given."""
        channels = x_BCHW.shape[1] // self.channel_fraction
        mixed = x_BCHW[:, :channels] if self.channel_fraction > 1 else x_BCHW
        terms = (
            (weights_K[k], op(mixed))
            for k, op in enumerate(self.ops)
            if not isinstance(op, ZeroOp) and (drawn is None or k in drawn)
        )
        total = _lean(terms) if self.lean else _plain(terms)
        if total is None:
            # the weights stay in the graph: a loss that no edge reaches has alpha gradient zero
            zeros = torch.zeros_like(mixed[:, :, :: self.stride, :: self.stride])
            total = zeros * weights_K.sum()
        if self.channel_fraction == 1:
            return total
        return self._rejoin(total, x_BCHW[:, channels:], weights_K.sum())

    def _rejoin(self, mixed_BCHW: Tensor, rest_BCHW: Tensor, weight: Tensor) -> Tensor:
        """Concatenate the mixed and the weighted bypassed channels, then interleave them."""
        if self.stride == 2:
            rest_BCHW = F.max_pool2d(rest_BCHW, 2, 2, ceil_mode=True)
        joined = torch.cat([mixed_BCHW, weight * rest_BCHW], dim=1)
        batch, channels, height, width = joined.shape
        groups = self.channel_fraction
        joined = joined.view(batch, groups, channels // groups, height, width)
        return joined.transpose(1, 2).reshape(batch, channels, height, width)
