"""Branches: what a searched cell's operations are in the terms of the plan.

Operations declare primitives; every operation of every edge becomes a branch of one of these forms:

    separable    one separable convolution (relu, depthwise, pointwise, norm), or two of them in a row
    dense        relu, dense convolution, norm (cells with one are planned in `plan_dense`)
    pool         max or average pool (and a norm without affine part, where the space asks for it)
    identity     the state itself; with stride 2 a factorised reduction
    zero         nothing

A cell all of whose operations have such a form runs on the fused kernels. What an operation without
primitives, or one made in another way, does to its cell says `plan`. The plan computes from primitives, not
from the module, so nothing that they leave out may count: a forward function that was written after them, or
a norm of another epsilon or momentum, leaves an operation without a form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import nn

from darts_core.ops.primitives import (
    AvgPool,
    BatchNorm,
    Conv,
    Depthwise,
    FactorizedReduction,
    Identity,
    MaxPool,
    Pointwise,
    Primitive,
    Relu,
    Zero,
)

if TYPE_CHECKING:
    from darts_core.supernet.dense_layout import DenseLayout
    from darts_kernels.layout import CellLayout

__all__ = ["Binding", "Branch", "CellPlan", "branch_of", "common_form", "is_normed"]

_EPSILON, _MOMENTUM = 1e-5, 0.1  # of every norm of the plan
# offsets and places are held in a few bits: filters and averages in 4, the place of a maximum in an int8
_WIDEST, _WIDEST_MAXIMUM = 15, 11


@dataclass(frozen=True)
class Branch:
    """One operation in the plan's terms.

    Attributes:
        form: "separable", "dense", "max_pool", "avg_pool", "identity", "reduction" or "zero".
        filters: (kernel, dilation) of each separable convolution, or of the dense one.
        stride: of the first of them.
        pool: kernel size of a pool.
    """

    form: str
    filters: tuple[tuple[int, int], ...] = ()
    stride: int = 1
    pool: int = 0


@dataclass(frozen=True)
class Binding:
    """Where a module's tensor lies in the packed buffers: `count` values from `start` on."""

    module: str
    name: str
    start: int
    count: int


@dataclass
class CellPlan:
    """A cell's layout and the places of its parameters and running statistics.

    Attributes:
        layout: what the kernels need; None when the cell stays on the module path.
        order: for each edge of the layout its row in the space's order.
        params: module parameters inside the packed vector.
        norms: batch norms inside the packed running statistics.
        reasons: why the cell is not fused.
        loose: columns of a separable cell that run as modules; a dense layout names its own.
    """

    layout: CellLayout | DenseLayout | None
    order: tuple[int, ...] = ()
    params: list[Binding] = field(default_factory=list)
    norms: list[Binding] = field(default_factory=list)
    reasons: tuple[str, ...] = ()
    loose: tuple[int, ...] = ()


_SEPARABLE = (Relu, Depthwise, Pointwise, BatchNorm)


def branch_of(module: nn.Module) -> Branch | None:
    """The branch an operation runs as, or None when it has no such form."""
    norms = (m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    if not all(_is_usual(norm) for norm in norms):
        return None
    if isinstance(module, nn.Sequential) and not hasattr(module, "primitives"):
        # a pool and the norm that the space puts behind it
        if len(module) == 2 and isinstance(module[1], nn.BatchNorm2d) and not module[1].affine:
            inner = branch_of(module[0])
            return inner if inner is not None and inner.pool else None
        return None
    declare = getattr(module, "primitives", None)
    if declare is None or not _is_of_its_forward(module):
        return None
    return _branch_of_primitives(list(declare()))


def common_form(branches: Sequence[Branch | None], strides: Sequence[int]) -> str | None:
    """The form of an operation, given as its branch on every edge and the edges' strides.

    "skip" is an identity that is a factorised reduction where the stride is 2. None: the operation has no
    form, or not the same one on every edge.
    """
    known = [branch for branch in branches if branch is not None]
    if len(known) < len(branches):
        return None
    forms = [branch.form for branch in known]
    if set(forms) == {"zero"}:
        return "zero"
    if forms == ["identity" if stride == 1 else "reduction" for stride in strides]:
        return "skip"
    kinds = {(branch.form, branch.filters, branch.pool) for branch in known}
    same = len(kinds) == 1 and [branch.stride for branch in known] == list(strides)
    return forms[0] if same else None


def is_normed(module: nn.Module) -> bool:
    """Whether the space put a norm behind a pool."""
    return isinstance(module, nn.Sequential) and not hasattr(module, "primitives")


def _is_usual(norm: nn.modules.batchnorm._BatchNorm) -> bool:
    """Whether a norm is tracked, and of the epsilon and momentum that the plan has for all of them."""
    tracked = norm.running_mean is not None
    return tracked and norm.eps == _EPSILON and norm.momentum == _MOMENTUM


def _is_of_its_forward(module: nn.Module) -> bool:
    """Whether `primitives` says what `forward` does: under a new `forward` inherited ones say too little."""
    if "primitives" in vars(module):
        return True
    classes = type(module).__mro__
    said, done = (
        next((i for i, kind in enumerate(classes) if name in vars(kind)), len(classes))
        for name in ("primitives", "forward")
    )
    return said <= done


def _branch_of_primitives(primitives: Sequence[Primitive]) -> Branch | None:
    if len(primitives) == 1:
        only = primitives[0]
        if isinstance(only, Zero):
            return Branch("zero")
        if isinstance(only, Identity):
            return Branch("identity")
        if isinstance(only, MaxPool | AvgPool):
            return _pool(only)
        if isinstance(only, FactorizedReduction) and not only.affine:
            return Branch("reduction", stride=2)
        return None
    if len(primitives) == 3:
        return _dense(primitives)
    if len(primitives) not in (4, 8):
        return None
    filters, stride = [], 1
    for index, primitive in enumerate(primitives):
        if not isinstance(primitive, _SEPARABLE[index % 4]):
            return None
        if isinstance(primitive, BatchNorm) and primitive.affine:
            return None
        if isinstance(primitive, Depthwise):
            # four bits each for kernel and dilation; an even kernel has no same padding
            if primitive.kernel % 2 == 0 or max(primitive.kernel, primitive.dilation) > _WIDEST:
                return None
            if index > 3 and primitive.stride != 1:
                return None
            if index < 4:
                stride = primitive.stride
            filters.append((primitive.kernel, primitive.dilation))
    return Branch("separable", tuple(filters), stride)


def _pool(pool: MaxPool | AvgPool) -> Branch | None:
    maximum = isinstance(pool, MaxPool)
    # an even kernel has no same padding
    if pool.kernel % 2 == 0 or pool.kernel > (_WIDEST_MAXIMUM if maximum else _WIDEST):
        return None
    return Branch("max_pool" if maximum else "avg_pool", pool=pool.kernel, stride=pool.stride)


def _dense(primitives: Sequence[Primitive]) -> Branch | None:
    relu, conv, norm = primitives
    if not (isinstance(relu, Relu) and isinstance(conv, Conv) and isinstance(norm, BatchNorm)):
        return None
    if norm.affine or conv.kernel % 2 == 0:
        return None
    return Branch("dense", ((conv.kernel, conv.dilation),), conv.stride)
