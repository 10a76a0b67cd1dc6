"""The one rule by which a kernel's error is judged."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["assert_matches", "relative_error"]


def relative_error(value: Tensor, exact: Tensor, scale: float = 0.0) -> float:
    """|value - exact| / max(|exact|, scale) in the 2-norm, computed in fp64; NaN counts as infinite."""
    difference = (value.detach().double().cpu() - exact.detach().double().cpu()).norm()
    size = exact.detach().double().cpu().norm().clamp_min(scale)
    error = float(difference / size.clamp_min(torch.finfo(torch.float64).tiny))
    return error if error == error else float("inf")


def assert_matches(
    value: Tensor,
    exact: Tensor,
    plain: Tensor | None = None,
    *,
    floor: float = 1e-6,
    factor: float = 2.0,
    scale: float = 0.0,
    name: str = "value",
) -> None:
    """Refuse a kernel whose error is above `factor` times that of plain torch, plus `floor`.

    Args:
        value: what the kernel computed.
        exact: the same from the reference in fp64.
        plain: the same from plain torch at the kernel's precision; None judges by the floor alone.
        floor: absolute part of the budget, as a relative 2-norm.
        factor: how much worse than plain torch is allowed.
        scale: what the errors are relative to where `exact` is smaller: the size of what was summed up, of
            which little is left where the terms cancel. The rounding of the terms stays.
        name: for the message.

    Raises:
        AssertionError: with all three errors.
    """
    error = relative_error(value, exact, scale)
    usual = 0.0 if plain is None else relative_error(plain, exact, scale)
    budget = factor * usual + floor
    if not error <= budget:
        raise AssertionError(
            f"{name}: error {error:.3e} is above the budget {budget:.3e} "
            f"({factor:g} x plain torch's {usual:.3e} + {floor:.1e})."
        )
