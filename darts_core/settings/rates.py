"""The learning rate of the alphas, which follows from the number of their steps."""

from __future__ import annotations

__all__ = ["LARGEST_RATE", "PAPER_RATE", "PAPER_STEPS", "alpha_learning_rate"]

PAPER_RATE = 3e-4
"""DARTS's (arXiv:1806.09055, A.1), made for `PAPER_STEPS`."""
PAPER_STEPS = 50 * (25_000 // 64)
"""50 epochs of batch 64 on half of CIFAR-10's training images."""
LARGEST_RATE = 0.02
"""The rate at which `benchmarks/planted_field` finds what is right; a larger one is untried."""


def alpha_learning_rate(steps: int) -> float:
    """The rate for so many steps of alpha: the paper's at its length, inversely longer for fewer steps.

    Adam moves an alpha whose gradient keeps its sign by the rate in every step, so that rate * steps is
    how far alphas can part. At the paper's rate 500 steps part them by 0.15 at most, and all mixing
    weights stay near-ties. More steps than the paper's keep its rate.
    """
    return min(LARGEST_RATE, max(PAPER_RATE, PAPER_RATE * PAPER_STEPS / max(steps, 1)))
