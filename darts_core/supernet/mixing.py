"""Batch norms without affine part on a CPU, and what reads them: relu, and the weighted sums of nodes.

Images are channels-last [G, S * C, H, W], see `taps`. A norm is never stored: its statistics are taken of
S * C columns (whose vectors are full in narrow networks, too) and joined over the samples, and whoever reads
it forms it on the way:

    relu:       z = max((y - m) i, 0)
    node sum:   out_t = sum over terms (y, t) of w (y - m) i

with m the mean and i = (var + eps)^(-1/2) of each channel. With g the gradient of what is read,
n = (y - m) i, M the count of values and <> sums over all but the channel,

    d w = sum_c <g n>,      d y = w i (g - <g> / M - n <g n> / M)

where statistics are the batch's; else d y = w i g. Everything is derived once at most.

Source: batch norm, arXiv:1502.03167; the node sum, DARTS (arXiv:1806.09055), Eq. 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["EPSILON", "Norms", "Term", "mix", "moments", "norm_relu"]

EPSILON = 1e-5


@dataclass(frozen=True)
class Term:
    """One summand of a node.

    Attributes:
        of: which image is added.
        to: which sum it is added to.
    """

    of: int
    to: int


@dataclass(frozen=True)
class Norms:
    """The norms of N images.

    Attributes:
        mean_NC: means.
        inverse_NC: inverse deviations.
        batch: whether they are the images' own.
    """

    mean_NC: Tensor
    inverse_NC: Tensor
    batch: bool

    def of(self, rows: Sequence[int]) -> Norms:
        """Those of some of the images."""
        return Norms(self.mean_NC[rows], self.inverse_NC[rows], self.batch)


def moments(ys: Sequence[Tensor], samples: int) -> tuple[Tensor, Tensor]:
    """Means and biased variances [N, C] of each channel of images."""
    found = [torch.batch_norm_update_stats(y, None, None, 0.0) for y in ys]
    mean, var = (torch.stack(part).unflatten(1, (samples, -1)) for part in zip(*found, strict=True))
    return mean.mean(1), var.mean(1) + mean.var(1, correction=0)


def norm_relu(ys: Sequence[Tensor], norms: Norms) -> list[Tensor]:
    """relu of the norm of every image."""
    return list(_NormRelu.apply(norms, *ys))


def mix(
    ys: Sequence[Tensor], terms: Sequence[Term], weights_T: Tensor, norms: Norms
) -> tuple[Tensor, ...]:
    """The sums of weighted terms.

    Args:
        ys: images; those that have norms come first.
        terms: what is added to what.
        weights_T: weight of each term.
        norms: of the first images.
    """
    sums: tuple[Tensor, ...] = _Mix.apply(tuple(terms), weights_T, norms, *ys)
    return sums


def _columns(values_NC: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """The values of each channel beside every sample, for each of N: [1, S * C, 1, 1]."""
    wide = values_NC.repeat(1, y.shape[1] // values_NC.shape[1])
    return wide[:, None, :, None, None].unbind(0)


def _reductions(
    pairs: Sequence[tuple[Tensor, Tensor]], mean_NC: Tensor, inverse_NC: Tensor
) -> tuple[Tensor, Tensor]:
    """<g> and <g n> [N, C] of pairs (g, y)."""
    samples = pairs[0][1].shape[1] // mean_NC.shape[1]
    means, inverses = mean_NC.repeat(1, samples), inverse_NC.repeat(1, samples)
    found = [
        torch.ops.aten.native_batch_norm_backward(
            g, y, None, None, None, mean, inverse, True, EPSILON, [False, True, True]
        )
        for (g, y), mean, inverse in zip(pairs, means.unbind(0), inverses.unbind(0), strict=True)
    ]
    shape = (len(found), samples, -1)
    product, plain = (torch.stack([f[k] for f in found]).view(shape).sum(1) for k in (1, 2))
    return plain, product


def _own_part(
    plain: Tensor, product: Tensor, mean: Tensor, inverse: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """(b, c) [N, C] of the part b y + c that the statistics add to the gradient."""
    count = y.numel() // mean.shape[1]
    slope = -inverse.square() * product / count
    return slope, -inverse * plain / count - slope * mean


class _NormRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, norms: Norms, *ys: Tensor) -> tuple[Tensor, ...]:
        scales = _columns(norms.inverse_NC, ys[0])
        shifts = _columns(-norms.mean_NC * norms.inverse_NC, ys[0])
        zs = [
            torch.addcmul(shift, y, scale).relu_()
            for y, scale, shift in zip(ys, scales, shifts, strict=True)
        ]
        ctx.batch = norms.batch
        ctx.save_for_backward(norms.mean_NC, norms.inverse_NC, *ys, *zs)
        return tuple(zs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        mean, inverse, *saved = ctx.saved_tensors
        ys, zs = saved[: len(grads)], saved[len(grads) :]
        gs = [
            torch.ops.aten.threshold_backward(grad, z, 0) for grad, z in zip(grads, zs, strict=True)
        ]
        scales = _columns(inverse, ys[0])
        if not ctx.batch:
            return None, *(g.mul_(scale) for g, scale in zip(gs, scales, strict=True))
        plain, product = _reductions(list(zip(gs, ys, strict=True)), mean, inverse)
        slope, offset = _own_part(plain, product, mean, inverse, ys[0])
        parts = zip(gs, ys, scales, _columns(slope, ys[0]), _columns(offset, ys[0]), strict=True)
        return None, *(torch.addcmul(c, y, b).addcmul_(g, a) for g, y, a, b, c in parts)


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, terms: tuple[Term, ...], weights_T: Tensor, norms: Norms, *ys: Tensor
    ) -> tuple[Tensor, ...]:
        mean, inverse = _padded(norms, len(ys))
        of = [term.of for term in terms]
        scale_TC = weights_T[:, None] * inverse[of]
        to = torch.tensor([term.to for term in terms])
        shift_TC = torch.zeros(1 + int(to.max()), mean.shape[1], dtype=mean.dtype)
        shift_TC.index_add_(0, to, -scale_TC * mean[of])
        scales, sums = _columns(scale_TC, ys[0]), list(_columns(shift_TC, ys[0]))
        begun: set[int] = set()
        for term, scale in zip(terms, scales, strict=True):
            # the first term makes the image that the others are added to
            add = torch.Tensor.addcmul_ if term.to in begun else torch.addcmul
            sums[term.to] = add(sums[term.to], ys[term.of], scale)
            begun.add(term.to)
        ctx.terms, ctx.own = terms, len(norms.mean_NC) if norms.batch else 0
        ctx.save_for_backward(weights_T, mean, inverse, *ys)
        return tuple(sums)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        weights_T, mean_NC, inverse_NC, *ys = ctx.saved_tensors
        wants_weights = ctx.needs_input_grad[1]
        of = torch.tensor([term.of for term in ctx.terms])
        product_TC = mean_NC.new_zeros(len(of), mean_NC.shape[1])
        plain_TC = torch.zeros_like(product_TC)
        # what has no statistics of its own has a reduction for its weight alone
        rows = [i for i, t in enumerate(ctx.terms) if wants_weights or t.of < ctx.own]
        if rows:
            pairs = [(grads[ctx.terms[i].to], ys[ctx.terms[i].of]) for i in rows]
            found = _reductions(pairs, mean_NC[of[rows]], inverse_NC[of[rows]])
            plain_TC[rows], product_TC[rows] = found
        shape = torch.zeros_like(mean_NC)
        plain = shape.index_add(0, of, weights_T[:, None] * plain_TC)
        product = shape.index_add(0, of, weights_T[:, None] * product_TC)
        slope, offset = _own_part(plain, product, mean_NC, inverse_NC, ys[0])
        totals: list[Tensor | None] = [
            torch.addcmul(c, y, b) if n < ctx.own else None
            for n, (y, b, c) in enumerate(
                zip(ys, _columns(slope, ys[0]), _columns(offset, ys[0]), strict=True)
            )
        ]
        scales = _columns(weights_T[:, None] * inverse_NC[of], ys[0])
        for term, scale in zip(ctx.terms, scales, strict=True):
            g, total = grads[term.to], totals[term.of]
            totals[term.of] = g * scale if total is None else total.addcmul_(g, scale)
        return None, product_TC.sum(1) if wants_weights else None, None, *totals


def _padded(norms: Norms, count: int) -> tuple[Tensor, Tensor]:
    """The moments of all images: those without a norm have mean 0 and deviation 1."""
    rest = (count - len(norms.mean_NC), norms.mean_NC.shape[1])
    return (
        torch.cat([norms.mean_NC, norms.mean_NC.new_zeros(rest)]),
        torch.cat([norms.inverse_NC, norms.inverse_NC.new_ones(rest)]),
    )
